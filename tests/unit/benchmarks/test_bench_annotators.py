"""Simulated people are as good as they are said to be, and err as they are meant to."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def simulated() -> ModuleType:
    return importlib.import_module("_people")


TRUTH = np.arange(4000) % 10


def test_people_are_right_as_often_as_they_should_be(simulated: ModuleType) -> None:
    given = simulated.ask(TRUTH, 10, shared=1.0, misleading=None, seed=0)
    expected = list(simulated.RIGHT)
    expected[simulated.CONFUSED] = 0.8 * expected[simulated.CONFUSED] + 0.2 * simulated.CONFUSION
    np.testing.assert_allclose(given.quality(TRUTH), expected, atol=0.03)
    confused = given.person == simulated.CONFUSED
    of_pair = confused & (TRUTH[given.task] < 2)
    assert set(given.label[of_pair].tolist()) == {0, 1}
    assert set(given.label[given.person == 3].tolist()) == set(range(10))


@pytest.mark.parametrize(("shared", "several"), [(1.0, 4000), (0.2, 800)])
def test_as_many_images_are_shared_as_asked_for(
    simulated: ModuleType, shared: float, several: int
) -> None:
    given = simulated.ask(TRUTH, 10, shared=shared, misleading=None, seed=1)
    count = np.bincount(given.task, minlength=4000)
    assert set(count[count > 1].tolist()) == {2, 3}
    assert count.min() == (2 if shared == 1.0 else 1)
    assert (count > 1).sum() == pytest.approx(several, abs=80)
    table = given.table(4000)
    np.testing.assert_array_equal((~np.isnan(table)).sum(axis=1), count)
    pairs = given.task * 10 + given.person
    assert len(np.unique(pairs)) == len(pairs), "nobody labels an image twice"


def test_hard_images_mislead_everybody_to_the_same_class(simulated: ModuleType) -> None:
    misleading = np.where(np.arange(4000) < 1000, (TRUTH + 1) % 10, -1)
    given = simulated.ask(TRUTH, 10, shared=1.0, misleading=misleading, seed=0)
    hard = given.task < 1000
    is_misled = given.label == (TRUTH[given.task] + 1) % 10
    good = given.person < 3
    assert is_misled[hard & good].mean() == pytest.approx(simulated.MISLED, abs=0.05)
    assert is_misled[~hard & good].mean() < 0.02


def test_the_hard_images_are_those_that_look_like_another_class(simulated: ModuleType) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 100)
    rows = rng.normal(0, 0.1, (300, 8)) + 3 * np.eye(8)[truth]
    rows[:10] += 2.5 * np.eye(8)[1] - 1.0 * np.eye(8)[0]  # of class 0, and look like 1
    found = simulated.misleading(rows.astype(np.float32), truth, 3)
    assert (found >= 0).sum() == round(simulated.HARD * 300)
    assert found[:10].tolist() == [1] * 10
    assert not (found == truth).any()


def test_votes_are_decided_by_weight_then_by_the_newest(simulated: ModuleType) -> None:
    bench = importlib.import_module("annotators")
    task, person = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 2])
    given = simulated.Answers(task, person, np.array([2, 1, 1, 0, 1]))
    assert bench.vote(given, np.array([1.0, 0.4, 0.4]), 3, 2).tolist() == [2, 1]
    assert bench.vote(given, np.array([0.5, 0.5, 0.1]), 3, 2).tolist() == [1, 0]


def test_everybody_answers_as_they_would_be_asked(simulated: ModuleType) -> None:
    table = simulated.everybody(TRUTH, 10, misleading=None, seed=0)
    expected = list(simulated.RIGHT)
    expected[simulated.CONFUSED] = 0.8 * expected[simulated.CONFUSED] + 0.2 * simulated.CONFUSION
    np.testing.assert_allclose((table == TRUTH[:, None]).mean(axis=0), expected, atol=0.03)


def test_who_is_asked_again_has_not_labelled_the_image(simulated: ModuleType) -> None:
    bench = importlib.import_module("annotators_again")
    truth = np.arange(bench.LABELS) % 10
    given = simulated.ask(truth, 10, shared=1.0, misleading=None, seed=0)
    likely = importlib.import_module("model.annotators.likelihood")
    found = likely.weigh(np.eye(10)[truth] * 0.9 + 0.01, given.task, given.person, given.label)
    low = np.array([one.low for one in found.annotators])
    labelled = ~np.isnan(given.table(bench.LABELS))
    rows = np.arange(bench.LABELS)
    best = bench.best(given, found)
    assert not labelled[rows, best].any()
    np.testing.assert_array_equal(low[best], np.where(labelled, -1.0, low).max(axis=1))
    chance = bench.by_chance(given, 5, np.random.default_rng(0))
    assert not labelled[rows, chance].any()
    assert len(np.unique(chance)) == 5
