"""What `labelstudio_api`, `connect`, `doctor` and `media` build on, run on a real Label Studio."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from PIL import Image

from backend.connect import connect
from backend.doctor import examine
from backend.edges.labels.config import parse_config
from backend.edges.labels.results import check_prediction, to_result
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.labelstudio_records import TasksGoneError
from backend.edges.media import Fetcher
from backend.errors import MediaError
from backend.settings import Settings

pytestmark = pytest.mark.acceptance

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="choice" toName="image">'
    '<Choice value="cat"/><Choice value="dog" alias="hund"/></Choices></View>'
)
SPEC = parse_config(CONFIG).require_spec()
KEY, SECRET = "key-1", "secret-1"


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


class Backend:
    """The least that Label Studio takes for an ML backend; remembers what it is sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.predictions = 0
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = json.loads(
                    self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"
                )
                if self.path == "/webhook":
                    backend.events.append(body)
                    backend.headers.append(dict(self.headers))
                backend.predictions += self.path == "/predict"
                results = [{"result": [], "score": 0.5} for _ in body.get("tasks", [])]
                data = json.dumps({"model_version": "v1", "results": results}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def platform(label_studio: Any) -> LabelStudio:
    return LabelStudio(label_studio.url, label_studio.token)


@pytest.fixture
def project(platform: LabelStudio) -> Iterator[int]:
    made = int(platform.create_project("Platform", CONFIG)["id"])
    yield made
    platform.delete_project(made)


@pytest.fixture
def personal_token(label_studio: Any) -> Iterator[str]:
    """A personal access token as the account page makes it; one a user, so it is revoked after."""
    session = requests.Session()
    address = f"{label_studio.url}/user/login/"
    session.get(address, timeout=30)
    csrf = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": address}
    form = {"email": label_studio.user, "password": label_studio.password}
    form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
    session.post(address, data=form, headers=csrf, timeout=30)
    csrf["X-CSRFToken"] = session.cookies["csrftoken"]

    def revoke() -> None:
        url = f"{label_studio.url}/api/token/"
        for found in session.get(url, timeout=30).json():
            old = {"refresh": found["token"]}
            session.post(f"{url}blacklist/", json=old, headers=csrf, timeout=30)

    revoke()
    answer = session.post(f"{label_studio.url}/api/token/", headers=csrf, timeout=30)
    assert answer.status_code == 201, answer.text
    yield str(answer.json()["token"])
    revoke()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_both_kinds_of_token_read_the_project_and_its_uploads(
    label_studio: Any, personal_token: str, platform: LabelStudio, project: int
) -> None:
    platform.upload_files(project, [("a ü.png", png(1)), ("b.png", png(2))])
    personal = LabelStudio(label_studio.url, personal_token)
    assert (platform.token_kind, personal.token_kind) == ("legacy", "refresh")
    for client in (platform, personal):
        tasks = list(client.tasks(project))
        items = [(task.id, SPEC.reference(task.data, task.id)) for task in tasks]
        got = dict(Fetcher(client, Settings()).fetch_many(items))
        assert sorted(map(bytes, got.values())) == sorted([png(1), png(2)])  # type: ignore[arg-type]


def test_missing_upload_and_uncovered_storage_are_final(
    platform: LabelStudio, project: int
) -> None:
    platform.import_tasks(project, [{"data": {"image": "s3://bucket/a.png"}}])
    task = next(platform.tasks(project))
    fetcher = Fetcher(platform, Settings())
    assert task.data == {"image": "s3://bucket/a.png"}
    for reference in (task.data["image"], f"/data/upload/{project}/none.png"):
        with pytest.raises(MediaError) as caught:
            fetcher.fetch(reference, task.id)
        assert not caught.value.transient


def test_every_change_of_an_annotation_shows_by_time_and_bulk_predictions_do_not(
    platform: LabelStudio, project: int
) -> None:
    platform.import_tasks(project, [{"data": {"image": f"{n}.png"}} for n in range(3)])
    first, second, third = (task.id for task in platform.tasks(project))
    seen = moment(platform.counters(project).latest_change)

    def changed() -> list[int]:
        nonlocal seen
        since, seen = seen, moment(platform.counters(project).latest_change)
        found = platform.tasks(project, updated_since=since + timedelta(microseconds=1))
        return [task.id for task in found]

    row = {"task": first, "score": 0.5, "model_version": "v1"}
    made = platform.import_predictions(project, [{**row, "result": to_result(SPEC, "cat", 0.9)}])
    assert (made, changed()) == (1, [])
    annotation = platform.submit(first, to_result(SPEC, "cat", None))["id"]
    assert changed() == [first]
    platform.update_annotation(annotation, to_result(SPEC, "hund", None))
    assert changed() == [first]
    platform.skip(second)
    assert changed() == [second]
    platform.delete_annotation(annotation)
    assert changed() == [first]
    assert [t.annotations for t in platform.tasks(project) if t.id == first] == [()]
    prediction = platform.create_prediction({**row, "task": third, "result": [], "cluster": 9})
    assert changed() == [third]
    assert platform.predictions_of(third)[0]["cluster"] == 9
    platform.delete_prediction(prediction)
    assert changed() == [third]
    platform.delete_task(third)
    assert changed() == []
    assert platform.counters(project).tasks == 2


def test_silently_dropped_and_refused_predictions_are_noticed(
    platform: LabelStudio, project: int
) -> None:
    platform.import_tasks(project, [{"data": {"image": f"{n}.png"}} for n in range(4)])
    ids = [task.id for task in platform.tasks(project)]
    good = {"task": ids[0], "score": 0.5, "model_version": "v1", "result": []}
    zebra = to_result(SPEC, "cat", None)
    zebra[0]["value"] = {"choices": ["zebra"]}
    bad = [{**good, "task": ids[1], "result": zebra}, {**good, "task": ids[2], "score": 1.5}]
    assert all(check_prediction(SPEC, item) for item in bad)
    assert platform.import_predictions(project, [good, *bad]) == 1
    platform.delete_task(ids[3])
    with pytest.raises(TasksGoneError) as caught:
        platform.import_predictions(project, [{**good, "task": task_id} for task_id in ids])
    assert caught.value.task_ids == (ids[3],)
    assert platform.model_versions(project) == {"v1": 1}


def test_connect_is_idempotent_heals_and_delivers_signed_events(
    platform: LabelStudio, project: int, backend: Backend
) -> None:
    def run() -> bool:
        return connect(platform, project, public_url=backend.url, key=KEY, secret=SECRET).changed

    def faults(live: str | None = None) -> set[str]:
        found = examine(platform, project, public_url=backend.url, key=KEY, live_version=live)
        return {finding.code for finding in found if not finding.ok}

    assert {"backend", "webhook", "sampling"} <= faults()
    assert (
        connect(platform, project, public_url=backend.url, key=KEY, secret=SECRET).view_id is None
    )
    platform.import_tasks(project, [{"data": {"image": "first.png"}}])
    assert faults() == {"tab"}
    assert run()
    assert faults() == set()
    assert not run()

    platform.delete_webhook(int(platform.webhooks(project)[0]["id"]))
    assert faults() == {"webhook"}
    assert run()
    platform.delete_ml_backend(int(platform.ml_backends(project)[0]["id"]))
    assert faults() == {"backend"}
    assert run()
    assert faults() == set()
    assert (len(platform.ml_backends(project)), len(platform.webhooks(project))) == (1, 1)

    backend.events.clear()
    backend.headers.clear()
    platform.import_tasks(project, [{"data": {"image": "a.png"}}])
    task = next(t for t in platform.tasks(project) if t.data == {"image": "a.png"})
    assert backend.predictions == 0
    platform.submit(task.id, to_result(SPEC, "hund", None))
    # Without payload: the annotator would wait until it is put together.
    assert backend.events == [{"action": "TASKS_CREATED"}, {"action": "ANNOTATION_CREATED"}]
    for headers in backend.headers:
        assert headers["X-Doubtless-Key"] == KEY
        assert headers["X-Doubtless-Secret"] == SECRET


def test_doctor_sees_the_version_mismatch_that_makes_the_queue_random(
    platform: LabelStudio, project: int, backend: Backend
) -> None:
    platform.import_tasks(project, [{"data": {"image": f"{n}.png"}} for n in range(2)])
    connect(platform, project, public_url=backend.url, key=KEY, secret=SECRET)
    first, second = (task.id for task in platform.tasks(project))

    def faults() -> set[str]:
        found = examine(platform, project, public_url=backend.url, key=KEY, live_version="v1")
        return {finding.code for finding in found if not finding.ok}

    assert faults() == {"model-version", "predictions"}
    row = {"score": 0.5, "model_version": "v1", "result": []}
    platform.import_predictions(project, [{**row, "task": first}])
    platform.update_project(project, model_version="v1")
    assert faults() == {"unscored-tasks"}
    platform.import_predictions(project, [{**row, "task": second}])
    assert faults() == set()
