"""The description of the API is held to the routes and to their answers."""

from __future__ import annotations

import jsonschema
import pytest
from starlette.testclient import TestClient
from support.looked_at import DISCS, fill_audit, fill_boxes
from support.several import WorldOfSeveral

from backend.dashboard import openapi
from backend.dashboard.access import Level, read_tokens
from backend.edges.labels.answers import decode
from backend.records import Consensus
from backend.web import Web


def described():
    return {
        (method.upper(), path)
        for path, methods in openapi.document()["paths"].items()
        for method in methods
    }


def check(answer, name):
    document = openapi.document()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)


def test_every_route_is_described_and_nothing_else(web):
    routes = {
        (method, route.path)
        for route in web.asgi().routes
        if route.path.startswith("/api/") and route.path != "/api/{rest:path}"
        for method in route.methods - {"HEAD"}
    }
    assert routes == described()
    assert len(routes) == 19


def test_what_needs_no_token_is_described_so(web):
    free = {(e.method, e.path) for e in web.dashboard.endpoints() if e.needs is Level.NOTHING}
    said = {
        (method.upper(), path)
        for path, methods in openapi.document()["paths"].items()
        for method, operation in methods.items()
        if operation.get("security") == []
    }
    assert said == free


def test_every_operation_says_what_it_does_and_names_its_parameters():
    for path, methods in openapi.document()["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


STATES = (
    "new",
    "cold",
    "trained",
    "running",
    "failed",
    "certified",
    "accepted",
    "drifted",
    "annotated",
)


@pytest.mark.parametrize("state", STATES)
def test_answers_are_as_described(world, owner, tokens, state):
    if state != "new":
        world.work()
    if state not in ("new", "cold"):
        tasks = world.label(10)
        for task in tasks if state == "annotated" else []:
            world.submit(task, user=2)
        world.work()
    if state == "annotated":
        votes = [(who, world.truth[tasks[0]]) for who in (1, 2)]
        doubted = Consensus(task_id=tasks[0], label="red", p_right=0.4, votes=votes)
        world.database.put_consensus(world.key, [doubted])
    if state == "running":
        run = world.database.add_run(world.key, "train", reason="test")
        world.database.claim_run(run, "somebody")
        world.database.update_run(run, progress=0.4, started_at=1.0)
    if state == "failed":
        run = world.database.add_run(world.key, "train", reason="test")
        world.database.update_run(run, status="failed", error="broke", finished_at=2e9)
    if state in ("certified", "accepted"):
        fill_audit(world.database, world.key, status=state)
    if state == "drifted":
        alarm = {"at": 1.0, "p_value": 0.001, "tasks": 30, "novelty_before": 0.1,
                 "novelty_now": 0.9, "draws": [max(world.platform.data)]}  # fmt: skip
        world.database.update_project(
            world.key, drift={"before": 1, "until": 2, "tests": 1, "alarm": alarm}
        )
    status = owner.get("/api/status").json()
    check(status, "Status")
    shown = status["projects"][0]
    assert (shown["acceptance"] is not None) == (state in ("certified", "accepted"))
    assert (shown["drift"] is not None) == (state == "drifted")
    if state == "running":
        assert status["projects"][0]["running"][0]["seconds_left"] > 0
    project = owner.get(f"/api/projects/{world.key}").json()
    check(project, "Project")
    people = [(row["id"], row["labels"], row["shared"]) for row in project["annotators"]]
    assert people == ([(1, 10, 10), (2, 10, 10)] if state == "annotated" else [])
    assert [row["ask"] for row in project["ask_again"]] == ([None] if state == "annotated" else [])
    shared = {"Authorization": f"Bearer {tokens.read_only}"}
    seen = owner.get(f"/api/projects/{world.key}", headers=shared).json()
    assert seen == project | {"annotators": [], "ask_again": []}
    check(owner.get(f"/api/projects/{world.key}/events").json(), "Events")
    check(owner.get("/api/session").json(), "Session")
    check(owner.post(f"/api/projects/{world.key}/pause").json(), "Said")
    check(owner.get("/api/projects/nope").json(), "Error")


def test_the_document_is_served_to_everybody(anyone):
    assert anyone.get("/api/openapi.json").json() == openapi.document()


def test_a_wrong_answer_would_be_noticed():
    with pytest.raises(jsonschema.ValidationError):
        check({"said": "x", "more": 1}, "Said")


def client_of(world):
    made = TestClient(Web(world.app, ticking=False).asgi())
    made.headers["Authorization"] = f"Bearer {read_tokens(world.settings.home_path).full}"
    return made


def test_several_answers_an_image_are_counted_class_by_class(tmp_path):
    world = WorldOfSeveral(tmp_path)
    world.work()
    world.label(12)
    world.work()
    found = client_of(world).get(f"/api/projects/{world.key}").json()
    check(found, "Project")
    live = world.project.live_version
    touched = world.database.touched_tasks(world.key)
    said = [decode(s.label) for i, s in world.database.scores(world.key, live).items()
            if i not in touched]  # fmt: skip
    for row in found["classes"]["rows"]:
        assert row["predicted"] == sum(row["name"] in names for names in said)
    assert all(isinstance(t["prediction"], list) for t in found["doubtful"]["tasks"])


def test_boxes_are_named_counted_and_placed(world):
    key = fill_boxes(world.database, world.platform, "http://label-studio.test")
    found = client_of(world).get(f"/api/projects/{key}").json()
    check(found, "Project")
    first = found["doubtful"]["tasks"][0]
    assert first["prediction"] == {"cell": 1, "platelet": 1}
    assert first["regions"][0] == {"label": "cell", "box": list(DISCS[0]), "p_right": 0.9}
    near = first["nearest"]
    assert len(near) == 3
    assert {n["task"] for n in near} <= world.database.touched_tasks(key)
    for item in near:
        assert item["label"] == {"cell": 1, "platelet": 1}
        assert item["regions"][0] == {"label": "cell", "box": list(DISCS[0])}
        assert item["image_url"] == f"/api/projects/{key}/tasks/{item['task']}/image"
    rows = {r["name"]: (r["labels"], r["predicted"], r["ap50"]) for r in found["classes"]["rows"]}
    assert rows == {"cell": (300, None, 0.93), "platelet": (41, None, 0.71)}
