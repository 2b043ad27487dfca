"""The whole loop where an image may have several labels, or none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.several import WorldOfAtLeastOne, WorldOfSeveral

from backend import commands
from backend.edges.labels.answers import decode, encode
from backend.edges.labels.results import check_prediction
from backend.predictor import Predictor
from backend.status import project_status
from backend.web import Web
from model.acquisition import ACQUISITIONS
from model.bundle import Bundle
from model.uncertainty import ESTIMATORS


def choices_of(prediction: dict) -> list[str]:
    return [c for region in prediction["result"] for c in region["value"]["choices"]]


def labelled(world: WorldOfSeveral, n: int = 24) -> WorldOfSeveral:
    world.work()
    world.label(n)
    world.work()
    return world


def test_labels_make_a_version_that_publishes_sets(tmp_path) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 96), 40)
    assert world.versions() == ["cold-1 superseded", "v2 live"]
    live = world.platform.live()
    rows = world.database.scores(world.key, 2)
    right = []
    for task, prediction in live.items():
        item = {k: v for k, v in prediction.items() if k in ("task", "score", "model_version")}
        assert check_prediction(world.spec, {**item, "result": prediction["result"]}) == []
        assert encode(choices_of(prediction)) == rows[task].label
        assert 0 < rows[task].p_right < 1
        likely = {name for name, p in rows[task].probs.items() if p > 0.5}
        best = max(rows[task].probs, key=rows[task].probs.get, default=None)
        assert set(decode(rows[task].label)) in (likely, {best}, set())
        right.append(rows[task].label == world.truth[task])
    assert np.mean(right) > 0.8
    assert any(not p["result"] for p in live.values())  # none of the colours is an answer
    assert any(len(choices_of(p)) > 1 for p in live.values())


def test_metrics_are_about_whole_sets_and_say_so(tmp_path) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 96), 40)
    metrics = world.database.version(world.key, 2).metrics
    assert metrics["metric"] == "subset accuracy"
    status = project_status(world.settings, world.database, world.project)
    assert status["metric"] == "subset accuracy"
    assert 0 < metrics["macro_f1"] <= 1
    texts = [decode(text) for text in world.app.labels(world.key, world.spec).values()]
    for name, count in metrics["class_counts"].items():
        assert count == sum(name in chosen for chosen in texts)
    assert metrics["pool_accuracy"]["value"] is not None


def test_the_region_shows_the_probability_of_each_label(tmp_path) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 96), 40)
    rows = world.database.scores(world.key, 2)
    task, prediction = next((t, p) for t, p in world.platform.live().items() if p["result"])
    (region,) = prediction["result"]
    name, p = region["meta"]["text"][0].rsplit(" ", 1)
    assert float(p) == pytest.approx(rows[task].probs[name], abs=0.006)
    assert region["score"] == rows[task].p_right


def test_predict_answers_new_images_as_the_workers_would(tmp_path) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 96), 40)
    task = world.import_image(0, 5)
    said = Predictor(world.app).predict(
        world.project, [{"id": task, "data": world.platform.data[task]}]
    )
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    published = world.platform.live()[task]
    assert said[0]["result"] == published["result"]
    assert said[0]["score"] == pytest.approx(published["score"])


def test_where_an_answer_is_required_nothing_empty_is_published_or_read(tmp_path) -> None:
    world = labelled(WorldOfAtLeastOne(tmp_path, 70), 30)
    assert all(choices_of(p) for p in world.platform.live().values())
    bundle = Bundle.load(world.app.versions_folder(world.key) / "v2")
    far = bundle.predict(np.zeros((3, 12), np.float32))
    assert far.label.any(axis=1).all()
    assert np.isfinite(far.p_right).all()


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_any_estimator_serves_the_loop(tmp_path, estimator: str) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 40, estimator=estimator), 16)
    assert world.versions()[-1] == "v2 live"


@pytest.mark.parametrize("acquisition", sorted(ACQUISITIONS))
def test_any_rule_chooses_the_front(tmp_path, acquisition: str) -> None:
    options = {"acquisition": acquisition, "estimator": "mc-dropout"}  # its passes feed any rule
    world = labelled(WorldOfSeveral(tmp_path, 40, **options), 16)
    assert world.versions()[-1] == "v2 live"
    assert {rule for _, rule, _ in world.database.acquired(world.key, 2)} == {acquisition}


def test_labels_that_are_all_the_same_do_no_harm(tmp_path) -> None:
    """No image has any of the labels so far: nothing is known, and nothing is NaN."""
    world = WorldOfSeveral(tmp_path, 30)
    world.truth = dict.fromkeys(world.truth, "[]")
    labelled(world, 12)
    assert world.versions()[-1] == "v2 live"
    assert all(p["result"] == [] for p in world.platform.live().values())
    scores = [p["score"] for p in world.platform.live().values()]
    assert all(0 < score < 1 for score in scores)


def test_webhooks_bring_several_choices_none_and_skips(tmp_path) -> None:
    world = WorldOfSeveral(tmp_path, 12)
    world.work()
    several, none, skipped = list(world.platform.data)[:3]
    headers = {"X-Doubtless-Key": world.key, "X-Doubtless-Secret": world.project.secret}
    web = Web(world.app, ticking=False)
    with TestClient(web.asgi()) as client:
        for number, (task, chosen) in enumerate(
            [(several, ["red", "blue"]), (none, []), (skipped, None)]
        ):
            annotation = {
                "id": 900 + number, "task": task, "was_cancelled": chosen is None,
                "completed_by": 1, "updated_at": "2026-02-01T00:00:00Z", "ground_truth": False,
                "result": world.choice(encode(chosen or [])),
            }  # fmt: skip
            body = {
                "action": "ANNOTATION_CREATED", "annotation": annotation, "task": {"id": task},
                "project": {"id": 1, "title": "fake", "created_at": "2026-01-01T00:00:00Z",
                            "label_config": world.config},
            }  # fmt: skip
            assert client.post("/webhook", json=body, headers=headers).status_code == 200
    web.predicting.shutdown()
    web.recording.shutdown()
    assert world.app.labels(world.key, world.spec) == {several: '["blue", "red"]', none: "[]"}


def test_annotators_are_merged_label_by_label(tmp_path) -> None:
    world = WorldOfSeveral(tmp_path, 12)
    world.work()
    task = next(iter(world.platform.data))
    for user, said in enumerate((["red"], ["red", "blue"], ["green", "blue"]), start=1):
        world.platform.annotate(task, world.choice(encode(said)), user=user)
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    assert world.app.labels(world.key, world.spec) == {task: '["blue", "red"]'}


def test_turning_to_several_answers_reads_everything_again(tmp_path) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 40), 16)
    world.platform.label_config = world.config.replace(' choice="multiple"', "")
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    spec = world.app.spec(world.project)
    assert not spec.multiple
    assert set(world.app.labels(world.key, spec).values()) <= set(spec.classes)
    newest = world.database.versions(world.key)[-1]
    assert newest.status == "live"
    for prediction in world.platform.live().values():
        assert len(choices_of(prediction)) == 1


def test_score_lists_sets_and_probabilities(tmp_path, monkeypatch) -> None:
    world = labelled(WorldOfSeveral(tmp_path, 40), 16)
    monkeypatch.setattr(commands, "Database", lambda url: world.database)
    rows = commands.scores(world.settings, world.project)
    assert len(rows) == 40
    for row in rows:
        assert row["prediction"] == [n for n in world.spec.classes if n in row["prediction"]]
        assert set(row["prediction"]) <= set(row["probabilities"]) <= set(world.spec.classes)
        assert all(0.01 <= p <= 1 for p in row["probabilities"].values())
        json.dumps(row, allow_nan=False)
