"""The most doubtful images beside the labelled ones: by every job that may change them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.several import WorldOfSeveral
from support.world import CONFIG, picture

from backend.doubtful import UNLIKE, most_doubtful, why_doubtful
from backend.edges.labels.boxes import Drawing, Drawn, Region, encode, encode_prediction
from backend.edges.labels.config import parse_config
from backend.jobs import compare
from backend.jobs.base import Job
from backend.jobs.compare import MOST_COMPARED, compare_doubtful
from backend.jobs.rounds import read_pool
from backend.kinds import kind_of
from backend.records import Compared, Score

BOXES = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="cup"/><Label value="key"/><Label value="pan"/></RectangleLabels></View>'
)
SPEC = parse_config(CONFIG).require_spec()
CALM = Score(
    task_id=1, label="red", score=0.5, p_right=0.5, total=0.5, aleatoric=0.4, epistemic=0.1
)


@pytest.fixture
def trained(world):
    world.work()
    world.label(12)
    world.work()
    return world


def shown(world, limit=12):
    project = world.project
    spec = world.app.spec(project)
    return most_doubtful(world.database, project, project.live_version, spec, limit)


def features_of(world, tasks):
    hashes = {t.task_id: t.image_hash for t in world.database.tasks(world.key, state="ready")}
    code = kind_of(world.app.spec(world.project)).code(world.app)
    return world.app.features.load(code, [hashes[i] for i in tasks]).astype(np.float64)


def by_hand(world, task):
    """Novelty and nearest labelled tasks, one pair after another."""
    everything = sorted(world.platform.data)
    centre = features_of(world, everything).mean(axis=0)
    unit = {
        i: row - centre for i, row in zip(everything, features_of(world, everything), strict=True)
    }
    unit = {i: row / np.linalg.norm(row) for i, row in unit.items()}
    labelled = sorted(world.database.labels(world.key))
    alike = {i: float(unit[task] @ unit[i]) for i in labelled}
    best = {i: max(float(unit[i] @ unit[j]) for j in labelled if j != i) for i in labelled}
    near = sorted(alike, key=lambda i: -alike[i])[:3]
    less = sum(best[i] > alike[near[0]] for i in labelled)
    return less / (len(labelled) + 1), [(i, alike[i]) for i in near]


def test_a_training_compares_the_most_doubtful_with_labelled_images(trained):
    told = shown(trained, limit=48)
    assert len(told) == 48
    labels = trained.database.labels(trained.key)
    for row in told[::6]:
        novelty, nearest = by_hand(trained, row["task"])
        assert row["novelty"] == pytest.approx(novelty)
        assert [n["task"] for n in row["nearest"]] == [task for task, _ in nearest]
        for item, (task, similarity) in zip(row["nearest"], nearest, strict=True):
            assert item["similarity"] == pytest.approx(similarity, abs=1e-4)
            assert item["label"] == labels[task]
            assert item["label_studio_url"].endswith(f"/projects/1/data?task={task}")
            assert item["regions"] == []


def test_the_next_training_compares_with_the_labels_there_are_then(trained):
    before = {row["task"]: row["novelty"] for row in shown(trained, limit=48)}
    trained.label(12)
    trained.work()
    after = shown(trained, limit=36)
    assert all(row["novelty"] == pytest.approx(by_hand(trained, row["task"])[0]) for row in after)
    assert any(row["novelty"] != before[row["task"]] for row in after)


def test_a_version_that_is_published_again_is_compared_again(trained):
    trained.database.put_compared(trained.key, [])
    assert all(row["novelty"] is None and row["nearest"] == [] for row in shown(trained))
    trained.database.add_run(
        trained.key, "republish", payload={"version": trained.project.live_version}
    )
    trained.work()
    assert all(row["novelty"] is not None for row in shown(trained))


def test_new_tasks_are_compared_when_they_are_scored(trained):
    name = "/data/odd.png"
    trained.media.files[name] = picture(2, 999)
    task = trained.platform.add_task({"image": name})
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    row = next(row for row in shown(trained, limit=60) if row["task"] == task)
    assert row["novelty"] == pytest.approx(by_hand(trained, task)[0])


def test_what_is_known_is_not_computed_again(trained, monkeypatch):
    run = trained.database.runs(trained.key, status=("done",))[-1]
    job = Job(trained.app, run, "test")
    pool, labels = read_pool(job), trained.app.labels(trained.key, SPEC)
    monkeypatch.setattr(compare, "novelty_of", lambda *a, **k: pytest.fail("computed again"))
    compare_doubtful(job, pool, labels, only_if_new=True)
    compare_doubtful(job, pool, {})
    assert all(row["novelty"] is not None for row in shown(trained))


def test_enough_are_compared_for_a_page_after_a_round_of_labels(trained):
    from backend.dashboard.api import MOST_DOUBTFUL
    from backend.ordering import MOST_TAGGED

    assert MOST_COMPARED >= MOST_DOUBTFUL + MOST_TAGGED


def test_a_neighbour_shows_the_label_it_has_now_or_is_not_shown(trained):
    task, other = (n["task"] for n in shown(trained, 1)[0]["nearest"][:2])
    notes = trained.database.annotation_ids_by_task(trained.key)
    trained.database.put_annotations(
        trained.key,
        [{"annotation_id": notes[task][0], "task_id": task, "label": "blue", "cancelled": False,
          "completed_by": 1, "updated_at": "2099-01-01T00:00:00Z"}],
    )  # fmt: skip
    trained.database.drop_tasks(trained.key, [other])
    nearest = {n["task"]: n["label"] for n in shown(trained, 1)[0]["nearest"]}
    assert nearest[task] == "blue"
    assert other not in nearest


def test_of_several_annotators_one_label_is_shown(trained):
    """Also where none of the neighbours were asked for by name before."""
    task = shown(trained, 1)[0]["nearest"][0]["task"]
    for user in (2, 3):
        trained.database.put_annotations(
            trained.key,
            [{"annotation_id": 9000 + user, "task_id": task, "label": "blue", "cancelled": False,
              "completed_by": user, "updated_at": "2099-01-01T00:00:00Z"}],
        )  # fmt: skip
    assert shown(trained, 1)[0]["nearest"][0]["label"] == "blue"
    assert trained.app.labels(trained.key, SPEC)[task] == "blue"


def test_sets_of_labels_are_shown_as_lists(tmp_path):
    world = WorldOfSeveral(tmp_path)
    world.work()
    world.label(12)
    world.work()
    item = shown(world, 1)[0]["nearest"][0]
    assert item["label"] == [c for c in ("red", "green", "blue")
                             if c in json.loads(world.truth[item["task"]])]  # fmt: skip


@pytest.mark.parametrize(
    ("novelty", "labels", "said"),
    [
        (UNLIKE, {2: "red", 3: "blue"}, "Nothing like it is labelled."),
        (0.5, {2: "red", 3: "blue"}, "The labelled images most like it have different labels."),
        (0.5, {2: "red", 3: "red"}, "The labelled images most like it have this label."),
        (0.5, {2: "blue", 3: "blue"}, "The labelled images most like it all have another label."),
        (0.5, {2: "blue"}, ""),
    ],
)
def test_labels_near_by_explain_the_doubt(novelty, labels, said):
    compared = Compared(task_id=1, novelty=novelty, nearest=[(2, 0.9), (3, 0.8)])
    first = "Mostly aleatoric: the passes agree that more than one answer fits."
    told = why_doubtful(CALM, SPEC, compared, labels)
    assert told == f"{first} {said}".strip()


@pytest.mark.parametrize(
    ("novelty", "names", "said"),
    [
        (UNLIKE, ("cup", "cup"), " Nothing like it is labelled."),
        (0.5, ("cup", "key"), ""),
        (0.5, ("cup", "cup"), " The labelled images most like it have no key."),
        (0.5, ("pan", "pan"), " The labelled images most like it have no cup and no key."),
    ],
)
def test_of_boxes_it_is_told_what_was_predicted_and_never_drawn(novelty, names, said):
    """No two drawings are the same, so that differing ones say nothing."""
    compared = Compared(task_id=1, novelty=novelty, nearest=[(2, 0.9), (3, 0.8)])
    spec = parse_config(BOXES).require_spec()
    place = (0.1, 0.1, 0.2, 0.3)
    drawn = {
        i: encode(Drawing((Drawn(name, place),))) for i, name in zip((2, 3), names, strict=True)
    }
    regions = [Region(name, place, 0.9, (1.0, 1.0, 1.0, 1.0), 0.2) for name in ("cup", "key")]
    row = replace(CALM, label=encode_prediction(regions, (16, 16)))
    assert why_doubtful(row, spec, compared, drawn).endswith(f"answer fits.{said}")
