"""The client, against a server that plays Label Studio's answers."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.edges.labelstudio_api import LabelStudio
from backend.edges.labelstudio_records import AnnotationRecord, TaskRecord, TasksGoneError
from backend.edges.labelstudio_token import Credentials, jwt_claims
from backend.errors import PlatformError, TokenError

WebServer = Any  # the server of conftest.py


def jwt(**claims: Any) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.c2ln"


PAT = jwt(token_type="refresh", exp=8_102_665_570, iat=1_795_465_570)


def reply(handler: BaseHTTPRequestHandler, body: Any, status: int = 200) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def platform(web: WebServer, token: str = "legacy-token-0123") -> LabelStudio:
    client = LabelStudio(web.url, token, timeout_s=5)
    client._http._backoff_s = 0.001
    return client


def serve_json(web: WebServer, path: str, body: Any, status: int = 200) -> None:
    web.routes[path] = lambda handler: reply(handler, body, status)


class TokenDesk:
    """Hands out access tokens that say when they end; the last one is good."""

    def __init__(self, web: WebServer, lifetime_s: int = 300) -> None:
        self.given: list[str] = []
        self.good = ""
        self.lifetime_s = lifetime_s
        web.routes["/api/token/refresh/"] = self.refresh
        web.routes["/api/current-user/whoami"] = self.whoami

    def refresh(self, handler: BaseHTTPRequestHandler) -> None:
        self.good = jwt(n=len(self.given), iat=0, exp=self.lifetime_s)
        self.given.append(self.good)
        reply(handler, {"access": self.good})

    def whoami(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Authorization"] == f"Bearer {self.good}":
            reply(handler, {"id": 1})
        else:
            reply(handler, {"detail": "Authentication credentials were not provided."}, 401)


def test_legacy_token_is_sent_as_it_is(web: WebServer) -> None:
    serve_json(web, "/api/current-user/whoami", {"id": 1})
    client = platform(web)
    assert client.token_kind == "legacy"
    assert client.whoami() == {"id": 1}
    assert web.asked[0][2]["Authorization"] == "Token legacy-token-0123"


def test_session_cookie_is_not_sent_back(web: WebServer) -> None:
    web.serve("/api/version", b"{}", headers={"Set-Cookie": "sessionid=abc; Path=/"})
    client = platform(web)
    client.version()
    client.version()
    assert all("Cookie" not in headers for _, _, headers in web.asked)


def test_personal_token_is_exchanged_once_and_again_when_refused(web: WebServer) -> None:
    desk = TokenDesk(web)
    client = platform(web, PAT)
    assert client.token_kind == "refresh"
    client.whoami()
    client.whoami()
    assert len(desk.given) == 1
    desk.good = "revoked"
    client.whoami()
    assert len(desk.given) == 2


def test_access_token_is_renewed_before_its_end(web: WebServer) -> None:
    desk, now = TokenDesk(web, lifetime_s=300), [0.0]
    credentials = Credentials(web.url, PAT, clock=lambda: now[0])
    for moment, exchanges in ((0, 1), (239, 1), (241, 2), (480, 2), (482, 3)):
        now[0] = moment
        assert credentials.header() == f"Bearer {desk.good}"
        assert len(desk.given) == exchanges


def test_token_that_is_refused_twice_is_an_error_not_a_loop(web: WebServer) -> None:
    desk = TokenDesk(web)
    serve_json(web, "/api/current-user/whoami", {"detail": "Invalid"}, 401)
    with pytest.raises(TokenError, match="Account & Settings") as caught:
        platform(web, PAT).whoami()
    assert caught.value.code == 401
    assert len(desk.given) == 2


def test_broken_personal_token_says_so(web: WebServer) -> None:
    serve_json(web, "/api/token/refresh/", {"detail": "Token is invalid"}, 401)
    with pytest.raises(TokenError, match="does not accept this personal access token: Token is"):
        platform(web, PAT).whoami()


def test_switched_off_legacy_tokens_say_where_the_switch_is(web: WebServer) -> None:
    cause = "legacy token authentication has been disabled for this organization"
    serve_json(web, "/api/current-user/whoami", {"detail": cause}, 401)
    with pytest.raises(TokenError, match="Access Token Settings"):
        platform(web).whoami()


@pytest.mark.parametrize("token", ["", "  "])
def test_missing_token_is_refused_at_once(token: str) -> None:
    with pytest.raises(TokenError, match="No token"):
        LabelStudio("http://127.0.0.1:1", token)


@pytest.mark.parametrize("text", ["a.b.c", "..", "0123456789", "a.W10.c"])
def test_other_tokens_are_no_jwt(text: str) -> None:
    assert jwt_claims(text) is None


def failing(web: WebServer, path: str, failures: int, status: int, body: Any) -> list[str]:
    seen: list[str] = []

    def route(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.command)
        if len(seen) <= failures:
            reply(handler, body, status)
        else:
            reply(handler, {"id": 9})

    web.routes[path] = route
    return seen


@pytest.mark.parametrize(
    ("status", "detail"), [(502, ""), (503, ""), (429, ""), (500, "database is locked")]
)
def test_passing_failures_are_tried_again(web: WebServer, status: int, detail: str) -> None:
    seen = failing(web, "/api/projects/9/", 2, status, {"detail": detail})
    assert platform(web).update_project(9, title="new")["id"] == 9
    assert seen == ["PATCH"] * 3


def test_four_attempts_are_all(web: WebServer) -> None:
    seen = failing(web, "/api/projects/9/", 9, 503, {"detail": "starting"})
    with pytest.raises(PlatformError, match=r"answered 503: starting") as caught:
        platform(web).project(9)
    assert caught.value.code == 503
    assert len(seen) == 4


def test_post_that_may_have_worked_is_not_repeated(web: WebServer) -> None:
    seen = failing(web, "/api/predictions/", 9, 502, {})
    with pytest.raises(PlatformError, match="502"):
        platform(web).create_prediction({"task": 1})
    assert seen == ["POST"]


def test_errors_name_the_address_the_cause_and_the_fix(web: WebServer) -> None:
    serve_json(web, "/api/projects/9/", {"detail": "No Project matches the given query."}, 404)
    with pytest.raises(PlatformError) as caught:
        platform(web).project(9)
    text = str(caught.value)
    assert f"GET {web.url}/api/projects/9/ answered 404: No Project matches" in text
    assert "Check the id" in text
    assert "that this is the address of Label Studio" in text


def test_other_servers_and_redirects_are_recognised(web: WebServer) -> None:
    web.serve("/api/version", b"<html>", headers={"Content-Type": "text/html"})
    with pytest.raises(PlatformError, match="text/html instead of JSON"):
        platform(web).version()
    web.serve("/api/version", status=301, headers={"Location": "https://ls.example.org/api"})
    with pytest.raises(PlatformError, match=r"redirected to https://ls\.example\.org/api"):
        platform(web).version()
    serve_json(web, "/api/version", ["x"])
    with pytest.raises(PlatformError, match="list instead of an object"):
        platform(web).version()
    with pytest.raises(PlatformError, match="give it as http"):
        LabelStudio("localhost:8080", "token")


def test_server_that_is_down_is_said_shortly() -> None:
    client = LabelStudio("http://127.0.0.1:1", "token-0123")
    client._http._backoff_s = 0.001
    with pytest.raises(PlatformError, match=r"cannot be reached \(connection refused\)") as caught:
        client.whoami()
    assert caught.value.code is None


def test_gone_things_may_be_deleted_again(web: WebServer) -> None:
    client = platform(web)
    client.delete_prediction(5)
    client.delete_task(5)
    client.delete_webhook(5)
    assert [command for command, _, _ in web.asked] == ["DELETE"] * 3


class Tasks:
    """``/api/tasks/`` with the filters that the client uses."""

    def __init__(self, web: WebServer, bodies: list[dict[str, Any]]) -> None:
        self.bodies = bodies
        self.queries: list[dict[str, str]] = []
        web.routes["/api/tasks/"] = self.route

    def route(self, handler: BaseHTTPRequestHandler) -> None:
        params = {k: v[0] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        self.queries.append(params)
        query = json.loads(params["query"])
        found = [b for b in self.bodies if self.matches(b, query)]
        page = found[: int(params["page_size"])]
        if params.get("fields") != "all":
            page = [{k: v for k, v in b.items() if k != "annotations"} for b in page]
        reply(handler, {"tasks": page, "total": len(found)})

    @staticmethod
    def matches(body: dict[str, Any], query: dict[str, Any]) -> bool:
        chosen = query.get("selectedItems", {"all": True})
        if not chosen["all"] and body["id"] not in chosen["included"]:
            return False
        for item in query.get("filters", {}).get("items", []):
            have, want = body[item["filter"].removeprefix("filter:tasks:")], item["value"]
            test = {
                "greater": have > want,
                "greater_or_equal": have >= want,
                "less_or_equal": have <= want,
                "equal": have == want,
            }
            if not test[item["operator"]]:
                return False
        return True


def task(task_id: int, *labels: str | None) -> dict[str, Any]:
    annotations = [
        {
            "id": task_id * 100 + n,
            "task": task_id,
            "result": [] if label is None else [{"value": {"choices": [label]}}],
            "was_cancelled": label is None,
            "completed_by": {"id": 4, "email": "x@example.org"},
            "updated_at": "2026-11-23T20:00:00.000000Z",
            "ground_truth": False,
        }
        for n, label in enumerate(labels)
    ]
    return {
        "id": task_id,
        "data": {"image": f"{task_id}.png"},
        "annotations": annotations,
        "updated_at": f"2026-11-23T20:00:{task_id:02}.000000Z",
        "total_annotations": sum(label is not None for label in labels),
        "cancelled_annotations": sum(label is None for label in labels),
        "total_predictions": 2,
    }


@pytest.fixture
def tasks(web: WebServer) -> Tasks:
    bodies = [
        task(1),
        task(2, "cat"),
        task(3, None),
        task(4),
        task(5, "dog", None),
        task(7),
        task(9),
    ]
    return Tasks(web, bodies)


def test_all_tasks_come_once_with_the_annotations_of_those_that_have_some(
    web: WebServer, tasks: Tasks
) -> None:
    steps: list[tuple[int, int]] = []
    got = list(platform(web).tasks(6, page_size=3, progress=lambda *step: steps.append(step)))
    assert [t.id for t in got] == [1, 2, 3, 4, 5, 7, 9]
    assert {t.id: len(t.annotations) for t in got if t.annotations} == {2: 1, 3: 1, 5: 2}
    assert steps == [(3, 7), (6, 7), (7, 7)]
    assert all(q["resolve_uri"] == "false" for q in tasks.queries)


def test_deleting_tasks_while_reading_skips_none(web: WebServer, tasks: Tasks) -> None:
    reading = platform(web).tasks(6, page_size=2)
    first = [next(reading).id, next(reading).id]
    del tasks.bodies[:2]
    assert first + [t.id for t in reading] == [1, 2, 3, 4, 5, 7, 9]


def test_only_annotated_tasks_include_the_skipped_ones(web: WebServer, tasks: Tasks) -> None:
    got = list(platform(web).tasks(6, only_annotated=True))
    assert sorted(t.id for t in got) == [2, 3, 5]
    skipped = next(t for t in got if t.id == 3).annotations[0]
    assert skipped.was_cancelled
    assert skipped.completed_by == 4
    assert all("all" in q["fields"] for q in tasks.queries)


@pytest.mark.parametrize(
    "since",
    [
        datetime(2026, 11, 23, 20, 0, 5),
        datetime(2026, 11, 23, 20, 0, 5, tzinfo=UTC),
        datetime(2026, 11, 23, 22, 0, 5, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_changed_tasks_are_asked_for_in_utc(web: WebServer, tasks: Tasks, since: datetime) -> None:
    assert [t.id for t in platform(web).tasks(6, updated_since=since)] == [5, 7, 9]
    assert "2026-11-23T20:00:05.000000Z" in tasks.queries[0]["query"]


def test_existing_tasks_are_found_by_counting(web: WebServer, tasks: Tasks) -> None:
    assert platform(web).existing_tasks(6, range(1, 10)) == {1, 2, 3, 4, 5, 7, 9}
    assert platform(web).existing_tasks(6, []) == set()


def test_predictions_for_deleted_tasks_name_the_tasks(web: WebServer, tasks: Tasks) -> None:
    serve_json(web, "/api/projects/6/import/predictions", {"detail": "invalid task field"}, 400)
    with pytest.raises(TasksGoneError) as caught:
        platform(web).import_predictions(6, [{"task": n} for n in (5, 6, 7, 8)])
    assert caught.value.task_ids == (6, 8)
    with pytest.raises(PlatformError, match="invalid task field"):
        platform(web).import_predictions(6, [{"task": 5}])


def test_one_task_with_its_project_never_makes_label_studio_predict(
    web: WebServer, tasks: Tasks
) -> None:
    """GET /api/tasks/ID would call the ML backend when the task has no prediction."""
    assert platform(web).task(2, 6).annotations[0].task_id == 2
    assert [path.partition("?")[0] for _, path, _ in web.asked] == ["/api/tasks/"]
    with pytest.raises(PlatformError, match="has no task 6"):
        platform(web).task(6, 6)


def test_queue_that_is_empty_is_none(web: WebServer) -> None:
    assert platform(web).next_task(6) is None


@pytest.mark.parametrize("body", [{}, {"id": "x", "data": {}}, {"id": 1, "data": None}])
def test_tasks_of_another_shape_are_platform_errors(body: dict[str, Any]) -> None:
    with pytest.raises(PlatformError, match="A task of Label Studio cannot be read"):
        TaskRecord.from_json(body)
    with pytest.raises(PlatformError, match="An annotation of Label Studio cannot be read"):
        AnnotationRecord.from_json(body)


def test_no_request_meets_a_connection_that_the_server_is_closing(web: WebServer) -> None:
    """Label Studio's own server closes after "Connection: close" late, and without saying so."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, {"id": 7})
        handler.wfile.flush()
        time.sleep(0.05)  # what is sent meanwhile on this connection is never read

    web.routes["/api/predictions/"] = route
    client = LabelStudio(web.url, "legacy-token")
    assert [client.create_prediction({"task": 1}) for _ in range(5)] == [7] * 5
    assert {h["Connection"] for h in web.headers_of("/api/predictions/")} == {"close"}
