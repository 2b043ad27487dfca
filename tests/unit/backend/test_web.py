"""The HTTP contract, over the real ASGI application, on in-memory twins."""

from __future__ import annotations

import base64

import pytest
from starlette.testclient import TestClient

from backend.edges.database import Database
from backend.web import Web

UID = "1.1767225600"


@pytest.fixture
def web(world):
    made = Web(world.app, ticking=False)
    yield made
    made.predicting.shutdown()
    made.recording.shutdown()


@pytest.fixture
def client(web):
    with TestClient(web.asgi()) as made:
        yield made


@pytest.fixture
def trained(world):
    world.work()
    world.label(10)
    world.work()
    return world


def headers(world):
    return {"X-Doubtless-Key": world.key, "X-Doubtless-Secret": world.project.secret}


def basic(world, secret=None):
    text = f"{world.key}:{secret or world.project.secret}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def project_body(world):
    return {
        "id": 1, "title": "fake", "created_at": "2026-01-01T00:00:00Z",
        "label_config": world.platform.label_config,
    }  # fmt: skip


def task_body(world, task_id):
    return {"id": task_id, "data": world.platform.data[task_id], "annotations": []}


def event(world, action, **more):
    return {"action": action, "project": project_body(world), **more}


def annotation_event(world, task, label="red", action="ANNOTATION_CREATED", number=900, **more):
    annotation = {
        "id": number, "task": task, "result": world.choice(label), "was_cancelled": False,
        "completed_by": 1, "updated_at": "2026-02-01T00:00:00Z", "ground_truth": False, **more,
    }  # fmt: skip
    return event(world, action, annotation=annotation, task={"id": task})


def test_health_is_up_and_names_what_is_down(client):
    body = client.get("/health").json()
    assert body["status"] == "UP"
    assert body["redis"] == "ok"


@pytest.mark.parametrize("state", ["nothing", "cold", "trained"])
def test_setup_and_predict_report_the_same_version(world, client, state):
    if state != "nothing":
        world.work()
    if state == "trained":
        world.label(10)
        world.work()
    task = next(iter(world.platform.data))
    setup = client.post("/setup", json={"project": UID, "schema": world.platform.label_config})
    answer = client.post(
        "/predict", json={"project": UID, "tasks": [task_body(world, task)], "label_config": ""}
    ).json()
    version = setup.json()["model_version"]
    assert version == {"nothing": "v0", "cold": "cold-1", "trained": "v2"}[state]
    assert answer["results"][0]["model_version"] == version


def test_predictions_are_those_that_were_published(trained, client):
    tasks = list(trained.platform.data)
    answer = client.post(
        "/predict", json={"project": UID, "tasks": [task_body(trained, i) for i in tasks]}
    ).json()
    live = trained.platform.live()
    for task, said in zip(tasks, answer["results"], strict=True):
        assert said["score"] == live[task]["score"]
        assert said["result"][0]["value"] == live[task]["result"][0]["value"]


def test_a_task_never_seen_is_predicted_and_a_broken_one_harms_nobody(trained, client):
    fresh = trained.import_image(0, 777)
    bad = trained.platform.add_task({"image": "/data/absent.png"})
    odd = [
        None, 7, "task", {}, {"id": "x"}, {"id": 5_000, "data": None},
        {"id": 5_001, "data": {"image": 7}}, {"id": True, "data": {}},
    ]  # fmt: skip
    tasks = [task_body(trained, fresh), *odd, task_body(trained, bad)]
    answer = client.post("/predict", json={"project": UID, "tasks": tasks})
    results = answer.json()["results"]
    assert len(results) == len(tasks)
    assert results[0]["result"][0]["value"]["choices"] == ["red"]
    assert 0 < results[0]["score"] < 1
    assert all(r["result"] == [] and r["score"] == 1.0 for r in results[1:])


def test_ten_thousand_tasks_get_ten_thousand_answers(trained, client):
    known = task_body(trained, next(iter(trained.platform.data)))
    tasks = [known] * 5_000 + [{"id": 10**6 + i, "data": {}} for i in range(5_000)]
    answer = client.post("/predict", json={"project": UID, "tasks": tasks}).json()
    assert len(answer["results"]) == 10_000
    assert answer["results"][0]["result"]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[1]", 400, "expected an object"),
        (b"{}", 400, "no list 'tasks'"),
        (b'{"tasks": 7}', 400, "no list 'tasks'"),
        (b'{"tasks": [], "project": "9.9"}', 404, "doubtless connect"),
        (b'{"tasks": []}', 404, "is not connected"),
        (b"[" * 100_000, 400, "not JSON"),
    ],
)
def test_rubbish_gets_one_clear_sentence(client, content, status, said):
    answer = client.post("/predict", content=content)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_huge_body_is_refused_while_it_is_read(make_world):
    world = make_world(3, max_body_mb=1)
    web = Web(world.app, ticking=False)
    with TestClient(web.asgi()) as client:
        answer = client.post("/predict", content=b"x" * 1_500_000)
    assert answer.status_code == 413
    assert "DOUBTLESS_MAX_BODY_MB" in answer.json()["error"]


def test_unknown_routes_and_methods_answer_json(client):
    assert client.get("/nowhere").json() == {"error": "Not Found"}
    assert client.get("/predict").status_code == 405


def test_a_submit_is_recorded_at_once_and_a_repeat_is_not(world, client):
    world.work()
    task = next(iter(world.platform.data))
    body = annotation_event(world, task)
    assert client.post("/webhook", json=body, headers=headers(world)).json() == {
        "status": "recorded"
    }
    assert client.post("/webhook", json=body, headers=headers(world)).json() == {
        "status": "duplicate"
    }
    assert world.database.labels(world.key) == {task: "red"}
    assert world.project.changes == 1


def test_skips_updates_and_deletions_are_followed(world, client):
    world.work()
    task, other = list(world.platform.data)[:2]
    post = lambda body: client.post("/webhook", json=body, headers=headers(world)).json()  # noqa: E731
    post(annotation_event(world, task))
    post(
        annotation_event(
            world, task, "green", "ANNOTATION_UPDATED", updated_at="2026-02-02T00:00:00Z"
        )
    )
    skip = annotation_event(world, other, number=901, was_cancelled=True)
    skip["annotation"]["result"] = []
    post(skip)
    assert world.database.labels(world.key) == {task: "green"}
    assert world.database.touched_tasks(world.key) == {task, other}
    post(event(world, "ANNOTATIONS_DELETED", annotations=[{"id": 900}]))
    assert world.database.labels(world.key) == {}


def test_many_annotations_at_once_are_recorded(world, client):
    tasks = list(world.platform.data)[:3]
    annotations = [
        annotation_event(world, t, number=900 + n)["annotation"] for n, t in enumerate(tasks)
    ]
    body = event(
        world, "ANNOTATIONS_CREATED", annotation=annotations, task=[{"id": t} for t in tasks]
    )
    client.post("/webhook", json=body, headers=headers(world))
    assert len(world.database.labels(world.key)) == 3


def test_tasks_that_come_and_go_are_followed(world, client):
    world.work()
    fresh = world.import_image(0, 500)
    body = event(world, "TASKS_CREATED", tasks=[{"id": fresh}])
    client.post("/webhook", json=body, headers=headers(world))
    world.work()
    assert fresh in world.platform.live()
    world.platform.delete_task(fresh)
    body = event(world, "TASKS_DELETED", tasks=[{"id": fresh}])
    client.post("/webhook", json=body, headers=headers(world))
    assert fresh not in {t.task_id for t in world.database.tasks(world.key)}


def test_start_training_trains_whatever_the_policy_says(trained, client):
    before = len(trained.versions())
    body = event(trained, "START_TRAINING")
    assert client.post("/webhook", json=body, headers=basic(trained)).status_code == 200
    trained.work()
    assert len(trained.versions()) == before + 1


def test_our_own_project_update_starts_nothing(trained, client):
    body = event(trained, "PROJECT_UPDATED")
    assert client.post("/webhook", json=body, headers=headers(trained)).json()["status"]
    assert trained.work() == []


def test_a_renamed_class_arrives_with_the_event(trained, client):
    trained.platform.label_config = trained.platform.label_config.replace("blue", "violet")
    client.post("/webhook", json=event(trained, "PROJECT_UPDATED"), headers=headers(trained))
    task = next(i for i, label in trained.truth.items() if label == "blue")
    body = {"project": UID, "tasks": [task_body(trained, task)]}
    result = client.post("/predict", json=body).json()["results"][0]["result"]
    assert all(r["value"]["choices"] != ["blue"] for r in result)


@pytest.mark.parametrize(
    "given",
    [{}, {"X-Doubtless-Key": "p1", "X-Doubtless-Secret": "x"}, {"Authorization": "Basic %%%"}],
)
def test_events_without_the_secret_change_nothing(world, client, given):
    task = next(iter(world.platform.data))
    answer = client.post("/webhook", json=annotation_event(world, task), headers=given)
    assert answer.status_code == 401
    assert "doubtless connect" in answer.json()["error"] or "basic auth" in answer.json()["error"]
    assert world.database.labels(world.key) == {}


def test_a_wrong_secret_is_refused(world, client):
    wrong = headers(world) | {"X-Doubtless-Secret": "wrong"}
    answer = client.post("/webhook", json=event(world, "PROJECT_UPDATED"), headers=wrong)
    assert answer.status_code == 401
    body = {"project": UID, "tasks": []}
    assert client.post("/predict", json=body, headers=basic(world, "wrong")).status_code == 401


def test_the_secret_of_one_project_opens_no_other(world, client):
    other = world.database.connect_project(
        host="http://other", platform_id=1, uid="1.5", title="o", token="t", label_config="",
        config_hash="", problems=[],
    )  # fmt: skip
    given = {"X-Doubtless-Key": other.key, "X-Doubtless-Secret": other.secret}
    answer = client.post("/webhook", json=event(world, "PROJECT_UPDATED"), headers=given)
    assert answer.status_code == 400


def test_passwords_tell_two_label_studios_with_equal_ids_apart(world, client):
    other = world.database.connect_project(
        host="http://other", platform_id=1, uid=UID, title="o", token="t", label_config="",
        config_hash="", problems=[],
    )  # fmt: skip
    assert client.post("/setup", json={"project": UID}).status_code == 400
    assert client.post("/setup", json={"project": UID}, headers=basic(world)).status_code == 200
    assert other.key != world.key


def test_auth_can_be_required(make_world):
    world = make_world(3, require_auth=True)
    with TestClient(Web(world.app, ticking=False).asgi()) as client:
        assert client.post("/setup", json={"project": UID}).status_code == 401
        assert client.post("/setup", json={"project": UID}, headers=basic(world)).is_success


def test_versions_are_listed_for_the_project_that_asks(trained, client):
    assert client.get("/versions").status_code == 401
    assert client.get("/versions", headers=basic(trained)).json() == {"versions": ["cold-1", "v2"]}


def test_metrics_count_requests_labels_and_versions(trained, client):
    client.get("/health")
    text = client.get("/metrics").text
    assert f'doubtless_labels{{project="{trained.key}"}} 10.0' in text
    assert f'doubtless_live_version{{project="{trained.key}"}} 2.0' in text
    assert 'doubtless_request_seconds_count{route="/health",status="200"}' in text


def test_a_client_never_gets_a_traceback(world, client, monkeypatch):
    monkeypatch.setattr(Database, "projects", lambda self: 1 / 0)
    answer = client.post("/webhook", json=event(world, "PROJECT_UPDATED"), headers=headers(world))
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text


def test_a_ping_is_counted_and_what_it_told_of_is_read_by_the_training(world, client):
    """Label Studio is asked to send events without payload: annotators wait for payloads."""
    world.work()
    for _ in range(10):
        world.submit(world.platform.next_task(), tell=False)
        answer = client.post(
            "/webhook", json={"action": "ANNOTATION_CREATED"}, headers=headers(world)
        )
        assert answer.json() == {"status": "recorded"}
    assert world.project.pings == 10
    assert world.database.labels(world.key) == {}
    world.work()
    assert world.versions()[-1] == "v2 live"
    assert world.database.versions(world.key)[-1].labels == 10
    assert world.project.pings == 0


def test_a_label_announced_is_read_when_it_is_quiet(make_world):
    world = make_world(quiet_s=1000.0)
    web = Web(world.app, ticking=False)
    world.work()
    with TestClient(web.asgi()) as client:
        world.submit(world.platform.next_task(), tell=False)
        client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=headers(world))
    assert world.work() == []
    world.database.update_project(world.key, changed_at=1.0)
    world.scheduler.tick()
    assert "sync" in {r.kind for r in world.database.runs(world.key)}


def test_labels_that_are_being_read_are_counted_once(make_world, monkeypatch):
    """They are stored before their pings are settled; twice six would start a training of ten."""
    world = make_world(quiet_s=1000.0, retrain_after=10)
    web = Web(world.app, ticking=False)
    world.work()
    with TestClient(web.asgi()) as client:
        for _ in range(6):
            world.submit(world.platform.next_task(), tell=False)
            client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=headers(world))
    seen = []
    settle = Database.settle_pings

    def look(self, key, count):
        seen.append((world.project.changes, world.project.pings, decision()))
        settle(self, key, count)

    def decision():
        return world.scheduler.decision(world.project, world.database.versions(world.key)).reason

    assert decision() == "6 of 10 new labels"
    monkeypatch.setattr(Database, "settle_pings", look)
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.scheduler.tick()
    world.work()
    assert seen == [(6, 6, "6 of 10 new labels")]
    assert decision() == "6 of 10 new labels"
    assert world.versions() == ["cold-1 live"]


def test_a_ping_of_deleted_tasks_makes_us_look(world, client):
    world.work()
    victim = next(iter(world.platform.data))
    world.platform.delete_task(victim)
    client.post("/webhook", json={"action": "TASKS_DELETED"}, headers=headers(world))
    world.work()
    assert victim not in {t.task_id for t in world.database.tasks(world.key)}


def test_a_ping_without_the_secret_counts_nothing(world, client):
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 401
    assert world.project.pings == 0
