"""The JSON endpoints, over the real ASGI application, on in-memory twins."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image
from support.world import World
from test_openapi import check

from backend import audits, commands
from backend.dashboard import api
from backend.doubtful import why_doubtful
from backend.edges.database import Database
from backend.jobs import KINDS
from backend.records import Score


def project_of(client, world, **query):
    return client.get(f"/api/projects/{world.key}", params=query).json()


def without_clock(state):
    """Seconds go on between two looks."""
    text = json.loads(json.dumps(state, default=str))
    for project in text["projects"]:
        for run in project["running"]:
            run["seconds"] = run["seconds_left"] = None
    return text


def test_status_is_what_the_command_prints(trained, owner, monkeypatch):
    """One run waits, so that the list of what runs is compared too."""
    trained.database.update_project(trained.key, requested_at=1.0, request_reason="pressed")
    trained.scheduler.tick()
    monkeypatch.setattr(commands, "Database", lambda url: trained.database)
    monkeypatch.setattr(commands, "RqQueue", lambda url: trained.queue)
    printed = commands.status(replace(trained.settings, redis_url="redis://x"))
    shown = owner.get("/api/status").json()
    assert shown["projects"][0]["running"][0]["kind"] == "train"
    assert shown["queue"]["waiting"] == {"train": 1}
    assert without_clock(shown) == without_clock(printed)


def test_versions_are_the_learning_curve(trained, owner):
    trained.label(10)
    trained.work()
    rows = project_of(owner, trained)["versions"]
    stored = trained.database.versions(trained.key)
    assert [(r["name"], r["labels"], r["status"]) for r in rows] == [
        (v.name, v.labels, v.status) for v in stored
    ]
    assert rows[-1]["accuracy"] == stored[-1].metrics["random_accuracy"]
    assert rows[-1]["pool_accuracy"] == stored[-1].metrics["pool_accuracy"]["value"]
    assert rows[0]["can_be_published"] is False
    assert rows[-1]["can_be_published"] is True


def test_histogram_counts_each_open_task_once(trained, owner):
    live = trained.project.live_version
    open_tasks = {
        task: score.p_right
        for task, score in trained.database.scores(trained.key, live).items()
        if task not in trained.database.touched_tasks(trained.key)
    }
    shown = project_of(owner, trained)["histogram"]
    assert shown["open_tasks"] == len(open_tasks) == 50
    for part in shown["bins"]:
        is_last = part["high"] == 1.0
        inside = [p for p in open_tasks.values()
                  if part["low"] <= p < part["high"] or (is_last and p == 1.0)]  # fmt: skip
        assert part["count"] == len(inside)


def test_a_certain_and_an_impossible_answer_have_their_place(trained, owner):
    live = trained.project.live_version
    trained.database.drop_scores(trained.key, live)
    rows = [Score(task_id=i, label="red", score=p, p_right=p)
            for i, p in ((901, 0.0), (902, 0.05), (903, 0.999), (904, 1.0))]  # fmt: skip
    trained.database.put_scores(trained.key, live, rows)
    counts = [b["count"] for b in project_of(owner, trained)["histogram"]["bins"]]
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (1, 1, 2, 4)


def test_most_doubtful_come_in_the_order_of_their_doubt(trained, owner):
    live = trained.project.live_version
    touched = trained.database.touched_tasks(trained.key)
    scores = [s for s in trained.database.scores(trained.key, live).values()
              if s.task_id not in touched]  # fmt: skip
    wanted = sorted(scores, key=lambda s: (s.p_right, s.task_id))[:7]
    shown = project_of(owner, trained, doubtful=7)["doubtful"]["tasks"]
    assert [t["task"] for t in shown] == [s.task_id for s in wanted]
    first = shown[0]
    assert first["prediction"] == wanted[0].label
    assert first["total"] == pytest.approx(first["aleatoric"] + first["epistemic"], abs=1e-6)
    assert first["label_studio_url"] == (
        f"http://label-studio.test/projects/1/data?task={first['task']}"
    )
    drawn = trained.database.draws(trained.key)
    assert [t["drawn_by_chance"] for t in shown] == [t["task"] in drawn for t in shown]


@pytest.mark.parametrize(
    ("aleatoric", "epistemic", "said"),
    [(0.3, 0.1, "Mostly aleatoric"), (0.1, 0.3, "Mostly epistemic"), (None, None, "not said")],
)
def test_the_larger_part_of_the_doubt_is_named(aleatoric, epistemic, said):
    row = Score(task_id=1, label="red", score=0.5, p_right=0.5, total=0.4, aleatoric=aleatoric,
                epistemic=epistemic)  # fmt: skip
    assert said in why_doubtful(row)


def test_the_nearest_labelled_images_have_small_pictures(trained, anyone, tokens):
    """A shared link shows them, and nobody else sees them."""
    path = f"/api/projects/{trained.key}"
    headers = {"Authorization": f"Bearer {tokens.read_only}"}
    tasks = anyone.get(path, headers=headers).json()["doubtful"]["tasks"]
    labelled = trained.database.labels(trained.key)
    for task in tasks:
        assert 0.0 <= task["novelty"] <= 1.0
        assert len(task["nearest"]) == 3
        alike = [item["similarity"] for item in task["nearest"]]
        assert alike == sorted(alike, reverse=True)
        assert all(item["label"] == labelled[item["task"]] for item in task["nearest"])
    address = tasks[0]["nearest"][0]["image_url"]
    assert anyone.get(address).status_code == 401
    found = anyone.get(address, headers=headers)
    assert Image.open(io.BytesIO(found.content)).format == "JPEG"


def test_a_submitted_task_is_no_longer_among_the_doubtful(trained, owner):
    before = project_of(owner, trained)["doubtful"]["tasks"][0]["task"]
    trained.submit(before)
    assert before not in [t["task"] for t in project_of(owner, trained)["doubtful"]["tasks"]]


def test_classes_have_their_labels_and_predictions(trained, owner):
    live = trained.database.version(trained.key, trained.project.live_version)
    shown = project_of(owner, trained)["classes"]
    assert {r["name"]: r["labels"] for r in shown["rows"]} == live.metrics["class_counts"]
    assert sum(r["predicted"] for r in shown["rows"]) == 50
    touched = trained.database.touched_tasks(trained.key)
    red = [s.p_right for s in trained.database.scores(trained.key, live.number).values()
           if s.label == "red" and s.task_id not in touched]  # fmt: skip
    row = next(r for r in shown["rows"] if r["name"] == "red")
    assert row["predicted"] == len(red)
    assert row["mean_p_right"] == pytest.approx(sum(red) / len(red))


def test_reliability_is_of_all_labels_and_fits_the_stated_error(trained, owner):
    shown = project_of(owner, trained)["calibration"]
    assert sum(b["count"] for b in shown["bins"]) == 10
    assert all(b["low"] <= b["observed"] <= b["high"] for b in shown["bins"])
    live = trained.database.version(trained.key, trained.project.live_version)
    right = sum(b["observed"] * b["count"] for b in shown["bins"])
    assert right / 10 == pytest.approx(live.metrics["oof_accuracy"])


def test_a_version_of_an_earlier_release_says_why_there_is_no_diagram(trained, owner):
    live = trained.database.version(trained.key, trained.project.live_version)
    metrics = {k: v for k, v in live.metrics.items() if k != "reliability"}
    trained.database.update_version(trained.key, live.number, metrics=metrics)
    shown = project_of(owner, trained)["calibration"]
    assert shown["bins"] == []
    assert "next training" in shown["why"]


def test_before_anything_is_published_every_part_says_why_it_is_empty(world, owner):
    shown = project_of(owner, world)
    assert shown["live_version"] is None
    for part in ("classes", "calibration", "histogram", "doubtful"):
        assert "Nothing is published yet" in shown[part]["why"]


def test_a_cold_order_says_that_it_has_no_model(world, owner):
    world.work()
    shown = project_of(owner, world)
    assert shown["live_version"] == "cold-1"
    for part in ("classes", "calibration", "histogram", "doubtful"):
        assert "cold-1 is an order without a model" in shown[part]["why"]


def test_events_are_the_newest_of_webhooks_runs_and_versions(trained, owner):
    trained.database.record_event(trained.key, "k1", "ANNOTATION_CREATED")
    path = f"/api/projects/{trained.key}/events"
    found = owner.get(path).json()["events"]
    times = [e["at"] for e in found]
    assert times == sorted(times, reverse=True)
    assert found[0]["what"] == "ANNOTATION_CREATED"
    assert {e["kind"] for e in found} == {"webhook", "run", "version"}
    assert all(e["what"] != "sync" for e in found)
    assert owner.get(path, params={"limit": 2}).json()["events"] == found[:2]


def test_labels_one_after_another_are_one_event(trained, owner):
    path = f"/api/projects/{trained.key}/events"
    before = owner.get(path).json()["events"]
    for n in range(600):
        trained.database.record_event(trained.key, f"k{n}", "ANNOTATION_CREATED")
    trained.database.record_event(trained.key, "gone", "TASKS_DELETED")
    trained.database.record_event(trained.key, "one more", "ANNOTATION_CREATED")
    found = owner.get(path).json()["events"]
    assert [(e["what"], e["times"]) for e in found[:3]] == [
        ("ANNOTATION_CREATED", 1), ("TASKS_DELETED", 1), ("ANNOTATION_CREATED", 600),
    ]  # fmt: skip
    assert found[0]["since"] == found[0]["at"]
    assert found[2]["since"] < found[2]["at"] <= found[1]["at"]
    assert found[3:] == before


def test_the_doctor_says_what_is_wrong_and_the_fix(trained, owner):
    trained.database.update_project(trained.key, host="http://127.0.0.1:1")
    shown = owner.get(f"/api/projects/{trained.key}/doctor").json()
    assert shown["ok"] is False
    assert shown["findings"][0]["code"] == "token"
    assert shown["findings"][0]["fix"]


def test_train_now_starts_a_training(trained, owner):
    before = len(trained.versions())
    answer = owner.post(f"/api/projects/{trained.key}/train")
    assert answer.status_code == 202
    trained.work()
    assert len(trained.versions()) == before + 1


def test_train_without_labels_is_refused_with_what_to_do(world, owner):
    answer = owner.post(f"/api/projects/{world.key}/train")
    assert answer.status_code == 409
    assert "submit at least one" in answer.json()["error"]


def test_a_pause_holds_trainings_back_until_it_ends(trained, owner):
    owner.post(f"/api/projects/{trained.key}/pause")
    before = trained.versions()
    trained.label(20)
    trained.work()
    assert trained.versions() == before
    owner.post(f"/api/projects/{trained.key}/resume")
    trained.work()
    assert len(trained.versions()) == len(before) + 1


def test_train_now_ends_a_pause_and_says_so(trained, owner):
    owner.post(f"/api/projects/{trained.key}/pause")
    said = owner.post(f"/api/projects/{trained.key}/train").json()["said"]
    assert "pause is over" in said
    assert not trained.project.paused


def test_rollback_publishes_an_earlier_version_again(trained, owner):
    trained.label(10)
    trained.work()
    answer = owner.post(f"/api/projects/{trained.key}/rollback", json={"version": "v2"})
    assert "v2 is being published again" in answer.json()["said"]
    trained.work()
    live = trained.database.version(trained.key, trained.project.live_version)
    assert (live.kind, live.bundle) == ("rollback", "v2")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"version": "v99"}, 404, "it has: cold-1, v2"),
        ({"version": "cold-1"}, 409, "no model to publish"),
        ({"version": 2}, 400, "no text 'version'"),
        ({}, 400, "no text 'version'"),
        ([], 400, "expected an object"),
    ],
)
def test_a_rollback_that_cannot_be_says_why(trained, owner, body, status, said):
    answer = owner.post(f"/api/projects/{trained.key}/rollback", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert trained.database.runs(trained.key) == []


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/projects/nope", 404, "no project 'nope'"),
        ("/api/projects/nope/events", 404, "no project 'nope'"),
        ("/api/projects/nope/doctor", 404, "no project 'nope'"),
        ("/api/projects/{key}?doubtful=many", 400, "doubtful='many'"),
        ("/api/projects/{key}?doubtful=0", 400, "1 to 100"),
        ("/api/projects/{key}?doubtful=101", 400, "1 to 100"),
        ("/api/projects/{key}/events?limit=-1", 400, "limit='-1'"),
        ("/api/projects/{key}/tasks/x/image", 400, "'x' is no task id"),
        ("/api/projects/{key}/tasks/99999/image", 404, "no task 99999"),
    ],
)
def test_rubbish_gets_one_sentence_with_the_value(trained, owner, path, status, said):
    answer = owner.get(path.format(key=trained.key))
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/nowhere"), ("DELETE", "/api/status"), ("GET", "/api/")]
)
def test_what_is_not_there_is_named(owner, method, path):
    answer = owner.request(method, path)
    assert answer.status_code == 404
    assert f"there is no {method} {path}" in answer.json()["error"]


def test_a_client_never_gets_a_traceback(trained, owner, monkeypatch):
    monkeypatch.setattr(Database, "projects", lambda self: 1 / 0)
    answer = owner.get("/api/status")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "log" in answer.json()["error"]


def test_images_are_small_upright_jpegs(trained, owner):
    wide = Image.new("RGBA", (900, 300), (0, 0, 255, 128))
    exif = wide.getexif()
    exif[0x0112] = 6  # the camera was turned
    data = io.BytesIO()
    wide.save(data, "PNG", exif=exif)
    task = next(iter(trained.platform.data))
    trained.media.files[trained.platform.data[task]["image"]] = data.getvalue()
    answer = owner.get(f"/api/projects/{trained.key}/tasks/{task}/image")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (107, 320)


@pytest.mark.parametrize("data", [b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_broken_image_gets_its_reason(trained, owner, data):
    task = next(iter(trained.platform.data))
    trained.media.files[trained.platform.data[task]["image"]] = data
    answer = owner.get(f"/api/projects/{trained.key}/tasks/{task}/image")
    assert answer.status_code == 422
    assert "cannot be read" in answer.json()["error"]


def test_the_files_need_no_token_and_allow_no_foreign_or_inline_code(anyone):
    page = anyone.get("/dashboard")
    assert page.headers["content-type"].startswith("text/html")
    for name in ["", *sorted(p.name for p in api.STATIC.iterdir())]:
        answer = anyone.get(f"/dashboard/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        again = anyone.get(f"/dashboard/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_a_large_pool_is_aggregated_by_the_database(make_world, monkeypatch):
    """No endpoint reads the scores of all tasks; of a few that are named it may."""
    from starlette.testclient import TestClient

    from backend.dashboard.access import read_tokens
    from backend.web import Web

    world: World = make_world(9)
    world.work()
    world.label(6)
    world.work()
    named = Database.scores

    def of_all(self, key, number, task_ids=None):
        assert task_ids is not None, "all scores were read"
        return named(self, key, number, task_ids)

    monkeypatch.setattr(Database, "scores", of_all)
    token = read_tokens(world.settings.home_path).full
    with TestClient(Web(world.app, ticking=False).asgi()) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/api/status").status_code == 200
        assert project_of(client, world)["histogram"]["open_tasks"] == 3


def test_every_file_of_the_page_is_in_the_package():
    """An image or wheel without them would serve nothing."""
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[4]
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = table["tool"]["setuptools"]["package-data"]["backend"]
    packed = {path for pattern in patterns for path in (root / "backend").glob(pattern)}
    assert set(api.STATIC.iterdir()) <= packed


def certified(trained, owner):
    """An audit that was asked for, labelled as predicted, and judged."""
    asked = owner.post(
        f"/api/projects/{trained.key}/audit",
        json={"max_error": 0.2, "confidence": 0.9, "of": "all"},
    )
    assert asked.status_code == 202, asked.json()
    trained.work()
    audit = audits.current(trained.database, trained.project)
    for item in trained.database.audit_items(audit.id, state=audits.DRAWN):
        trained.truth[item.task_id] = item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    return audit


def found_of(owner):
    state = owner.get("/api/status").json()["projects"][0]
    check(owner.get("/api/status").json(), "Status")
    return state["acceptance"], state["piles"]


def test_an_audit_is_asked_for_accepted_and_taken_back(trained, owner):
    certified(trained, owner)
    found, piles = found_of(owner)
    assert found["status"] == "certified"
    assert piles["accept"] > 0
    owner.post(f"/api/projects/{trained.key}/accept")
    trained.work()
    found, piles = found_of(owner)
    assert found["status"] == "accepted"
    assert piles["accept"] == 0
    owner.post(f"/api/projects/{trained.key}/accept/undo")
    trained.work()
    assert found_of(owner)[0] is None


def test_an_audit_is_given_up(trained, owner):
    certified(trained, owner)
    said = owner.post(f"/api/projects/{trained.key}/audit/cancel").json()["said"]
    assert "given up" in said
    assert found_of(owner)[0] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("audit", {"max_error": 5, "confidence": 0.95}, 400, "max_error is 5"),
        ("audit", {"max_error": "5 %", "confidence": 0.95}, 400, 'max_error is "5 %"'),
        ("audit", {"max_error": 0.05}, 400, "confidence is null"),
        ("audit", {"max_error": 0.05, "confidence": 0.95, "of": "most"}, 400, "most"),
        ("audit", {"max_error": 0.0001, "confidence": 0.95}, 409, "no audit would pay"),
        ("audit/cancel", None, 409, "no audit is under way"),
        ("accept", None, 409, "no audit has proved anything"),
        ("accept/undo", None, 409, "nothing was accepted unseen"),
    ],
)
def test_what_cannot_be_accepted_says_why(trained, owner, path, body, status, said):
    answer = owner.post(f"/api/projects/{trained.key}/{path}", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_the_page_has_words_for_every_kind_of_run():
    script = (api.STATIC / "project.js").read_text(encoding="utf-8")
    words = re.search(r"const WORK = \{(.*?)\};", script, re.DOTALL)
    assert words is not None
    assert set(re.findall(r"(\w+): \"", words.group(1))) == KINDS.keys()
