"""Simulated people draw as badly as they are said to, and are judged by what is there."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from model.annotators.drawings import matches
from model.detection.types import BoxLabels


@pytest.fixture
def bench() -> ModuleType:
    pytest.importorskip("torch", reason="needs doubtless[train]")
    return importlib.import_module("annotators_boxes")


def truth(images: int = 400) -> list[BoxLabels]:
    """Nine boxes an image, the last ones small."""
    corners = [(x / 3 + 0.05, y / 3 + 0.05) for x in range(3) for y in range(3)]
    side = [0.2] * 7 + [0.04] * 2
    boxes = [(x, y, x + s, y + s) for (x, y), s in zip(corners, side, strict=True)]
    return [BoxLabels.of(boxes, [n % 3 for n in range(9)]) for _ in range(images)]


def drawn_by(bench: ModuleType, there: list[BoxLabels], small: float = 0.0, **rates: float):
    rng = np.random.default_rng(0)
    person = bench.Person(**{"overlooks": 0, "mistakes": 0, "misplaces": 0, "adds": 0,
                             "trembles": 0} | rates)  # fmt: skip
    return [bench.draw(one, person, 3, small, rng) for one in there]


@pytest.mark.parametrize(
    ("rates", "count", "same"),
    [
        ({}, 9, 9),
        ({"overlooks": 0.2}, 7.2, 7.2),
        ({"mistakes": 0.2}, 9, 7.2),
        ({"misplaces": 0.2}, 9, 7.2),
        ({"trembles": 0.02}, 9, 9),
        ({"small": 0.01}, 8.2, 8.2),
    ],
)
def test_each_kind_of_error_is_as_frequent_as_it_should_be(bench, rates, count, same) -> None:
    there = truth()
    drawn = drawn_by(bench, there, **rates)
    assert np.mean([len(one) for one in drawn]) == pytest.approx(count, abs=0.15)
    found = np.mean([matches(a, b) for a, b in zip(drawn, there, strict=True)])
    assert found == pytest.approx(same, abs=0.15)


def test_what_somebody_adds_is_none_of_what_is_there(bench) -> None:
    there = truth()
    drawn = drawn_by(bench, there, adds=0.2)
    assert np.mean([len(one) for one in drawn]) == pytest.approx(10.8, abs=0.15)
    assert bench.f1(drawn, there) == pytest.approx(2 * 9 / (9 + 10.8), abs=0.01)


@pytest.mark.parametrize(("shared", "share"), [("all shared", 1.0), ("a fifth shared", 0.2)])
def test_as_many_images_are_shared_as_asked_for(bench, shared, share) -> None:
    there = truth()
    given = bench.ask(there, 3, shared=bench.SHARED[shared], misled=False, seed=1)
    count = np.bincount(given.task, minlength=len(there))
    assert (count > 1).mean() == pytest.approx(share, abs=0.06)
    pairs = given.task * 10 + given.person
    assert len(np.unique(pairs)) == len(pairs)
    good, also, overlooks, adds = given.f1(there)
    assert min(good, also) > adds > overlooks


def test_the_votes_are_what_most_drew(bench) -> None:
    there = truth(1)[0]
    first = BoxLabels.of(there.boxes[1:], there.labels[1:])
    found = bench.vote([there, first, there], ("a", "b", "c"))
    assert matches(found, there) == len(found) == 9
    two = bench.vote([there, first], ("a", "b", "c"))
    assert len(two) == 8
    np.testing.assert_allclose(two.ignored, there.boxes[:1], atol=1e-6)
