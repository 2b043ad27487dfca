"""Labels that the model contradicts: told, ordered by in Label Studio, forgotten when mended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.several import WorldOfSeveral
from support.world import CONFIG

from backend.edges.labels.config import parse_config
from backend.kinds.choices import Choices
from backend.triage import DOUBTED, doubted_labels
from model.engine import fit
from model.label_errors.choices import find_choice_errors
from model.types import Labelled


def mislabel(world, task, colour):
    world.truth[task] = colour
    world.submit(task)


@pytest.fixture
def wrong(make_world):
    """Ninety labels, five of them wrong; the tasks that are."""
    world = make_world(150, retrain_after=90)
    world.work()
    tasks = sorted(world.truth)
    wrong = tuple(tasks[10:60:10])
    for task in wrong:
        mislabel(world, task, "red" if world.truth[task] != "red" else "blue")
    for task in [t for t in tasks if t not in wrong][:85]:
        world.submit(task)
    world.work()
    return world, wrong


def found(world):
    return doubted_labels(world.database, world.project, 20)


def test_wrong_labels_are_told_with_what_they_probably_are(wrong):
    world, tasks = wrong
    told = found(world)
    assert {row["task"] for row in told[:5]} == set(tasks)
    for row in told[:5]:
        assert row["label"] == world.truth[row["task"]]
        assert row["p_right"] < DOUBTED
        assert row["why"].startswith("probably ")
        assert row["label"] not in row["why"]
    assert [row["p_right"] for row in told] == sorted(row["p_right"] for row in told)


def test_the_score_of_a_labelled_task_is_that_of_its_label(wrong):
    world, tasks = wrong
    rows = world.database.label_errors(world.key, below=1.1, limit=100)
    assert len(rows) == 90
    live = world.platform.live()
    for row in rows:
        assert live[row.task_id]["score"] == pytest.approx(min(max(row.p_right, 1e-3), 0.999))
    ours = {row.task_id for row in rows if live[row.task_id]["score"] < DOUBTED}
    assert set(tasks) <= ours


def test_a_label_that_was_mended_is_told_no_more(wrong):
    world, tasks = wrong
    rows = [
        {"annotation_id": n, "task_id": task, "label": "green", "cancelled": False,
         "completed_by": 1, "updated_at": "2999-01-01T00:00:00Z"}
        for n, task in ((a.id, a.task_id) for a in world.platform.annotations.values())
        if task == tasks[0]
    ]  # fmt: skip
    world.database.put_annotations(world.key, rows)
    assert tasks[0] not in {row["task"] for row in found(world)}


def test_right_labels_are_contradicted_by_few(wrong):
    world, tasks = wrong
    assert len({row["task"] for row in found(world)} - set(tasks)) <= 2


def test_a_deleted_task_is_forgotten(wrong):
    world, tasks = wrong
    world.database.drop_tasks(world.key, [tasks[0]])
    assert tasks[0] not in {row["task"] for row in found(world)}


def test_sets_of_classes_are_contradicted_as_a_whole(tmp_path):
    world = WorldOfSeveral(tmp_path)
    world.work()
    world.label(12)
    world.work()
    rows = world.database.label_errors(world.key, below=1.1, limit=100)
    assert len(rows) == 12
    assert all(0 <= row.p_right <= 1 and row.why for row in rows)
    assert all(isinstance(row["label"], list) for row in found(world))


def test_labels_are_checked_by_the_regressions_and_people_by_the_version():
    """What finds wrong labels best says too much where people are weighed (docs/annotators.md)."""
    spec = parse_config(CONFIG).require_spec()
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] + rng.normal(0, 0.4, (60, 3))).astype(np.float32)
    bundle = fit(Labelled(features, labels, np.ones(60, bool)), spec.classes)
    texts = [spec.classes[n] for n in labels]
    kind = Choices()
    found = [p for p, _ in kind.contradictions(bundle, spec, texts)]
    np.testing.assert_array_equal(found, find_choice_errors(bundle.out_of_fold_plain, labels).score)
    np.testing.assert_array_equal(kind.class_probs(bundle, spec), bundle.out_of_fold_probs)
    assert not np.array_equal(bundle.out_of_fold_plain, bundle.out_of_fold_probs)
    without = replace(bundle, out_of_fold_plain=None)
    found = [p for p, _ in kind.contradictions(without, spec, texts)]
    np.testing.assert_array_equal(found, find_choice_errors(bundle.out_of_fold_probs, labels).score)
