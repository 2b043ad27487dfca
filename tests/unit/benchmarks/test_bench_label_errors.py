"""Errors are planted where and as often as asked for, and rankings are judged as they should be."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from model.detection.types import BoxLabels


@pytest.fixture
def planted() -> ModuleType:
    return importlib.import_module("_planted")


def drawn(count: int, seed: int = 0) -> list[BoxLabels]:
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        corners = rng.uniform(0, 0.8, (10, 2))
        boxes = np.hstack([corners, corners + rng.uniform(0.05, 0.2, (10, 2))])
        result.append(BoxLabels.of(boxes.tolist(), rng.integers(3, size=10).tolist()))
    return result


def test_a_share_of_labels_is_flipped_to_all_other_classes(planted: ModuleType) -> None:
    labels = np.arange(4000) % 4
    found, is_wrong = planted.flip(labels, 4, 0.05, seed=0)
    assert is_wrong.sum() == 200
    np.testing.assert_array_equal(found != labels, is_wrong)
    assert set(found[is_wrong & (labels == 0)].tolist()) == {1, 2, 3}
    again, _ = planted.flip(labels, 4, 0.05, seed=0)
    np.testing.assert_array_equal(found, again)
    assert (planted.flip(labels, 4, 0.05, seed=1)[1] != is_wrong).any()


def test_boxes_are_spoilt_in_three_ways_and_the_others_are_left(planted: ModuleType) -> None:
    before = drawn(40)
    after = planted.spoil(before, 3, 0.05, seed=0)
    assert sum(len(one.dropped) for one in after) == 20
    assert sum(int(one.shifted.sum()) for one in after) == 20
    assert sum(int(one.swapped.sum()) for one in after) == 20
    for old, new in zip(before, after, strict=True):
        gone = np.array([(box == new.dropped).all(axis=1).any() for box in old.boxes])
        boxes, labels = old.boxes[~gone], old.labels[~gone]
        assert len(new.drawn) == len(boxes) == len(new.shifted) == len(new.swapped)
        moved = (new.drawn.boxes != boxes).any(axis=1)
        np.testing.assert_array_equal(moved, new.shifted)
        np.testing.assert_array_equal(new.drawn.labels != labels, new.swapped)
        assert (new.drawn.boxes[:, 2:] > new.drawn.boxes[:, :2]).all()
        by = (new.drawn.boxes - boxes)[moved] / np.tile(boxes[moved, 2:] - boxes[moved, :2], 2)
        inside = ((new.drawn.boxes[moved] > 0) & (new.drawn.boxes[moved] < 1)).all(axis=1)
        far = np.linalg.norm(by[inside, :2], axis=1)
        assert ((far > 1 / 3 - 1e-9) & (far < 1 / 2 + 1e-9)).all()


def test_average_precision_of_a_ranking_with_and_without_ties(planted: ModuleType) -> None:
    is_wrong = np.array([False, True, False, True])
    precision = planted.ranking_precision
    assert precision(np.array([0.4, 0.1, 0.3, 0.2]), is_wrong) == 1.0
    assert precision(np.array([0.1, 0.2, 0.3, 0.4]), is_wrong) == (1 / 2 + 2 / 4) / 2
    assert precision(np.full(4, 0.5), is_wrong) == 0.5
    assert precision(np.arange(4), np.zeros(4, bool)) is None


def test_verdict_counts(planted: ModuleType) -> None:
    found = planted.verdict(np.array([True, True, False]), np.array([True, False, True]))
    assert found == {"issues": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    nothing = planted.verdict(np.zeros(2, bool), np.zeros(2, bool))
    assert nothing == {"issues": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_summary_pairs_ours_with_each_method() -> None:
    bench = importlib.import_module("label_errors")
    runs: list[Any] = [
        {"doubtless": {"ap": 0.9, "f": 1.0}, "cleanlab: x": {"ap": 0.7}},
        {"doubtless": {"ap": 0.7, "f": 2.0}, "cleanlab: x": {"ap": 0.3}},
    ]
    found = bench.summarise(runs)
    assert found["doubtless"]["ap"] == {"mean": 0.8, "se": 0.1}
    assert found["doubtless"]["f"]["mean"] == 1.5
    assert found["cleanlab: x"]["ap_ours_less"] == {"mean": 0.3, "se": 0.1}
