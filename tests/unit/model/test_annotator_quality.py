"""Several people who label the same tasks, against hand-made cases and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from model.annotators.base import ALONE, APART, LEAST_WEIGHT, vote_weight
from model.annotators.crowdlab import crowdlab
from model.annotators.likelihood import (
    MODEL_LOST,
    USUAL_LABELS,
    USUAL_QUALITY,
    weigh,
)
from model.errors import ModelError, ShapeError

METHODS = pytest.mark.parametrize("method", [crowdlab, weigh], ids=["crowdlab", "likelihood"])

# Two people; they differ on task 2, and one of them labelled task 4 alone.
PROBS = np.array(
    [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.3, 0.4, 0.3]]
)
TASK = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
WHO = np.array([7, 9, 7, 9, 7, 9, 7, 9, 7])
LABEL = np.array([0, 0, 1, 1, 0, 1, 2, 2, 1])


def drawn(seed, *, tasks=150, classes=4, quality=(0.95, 0.85, 0.6), least=2, certain=0.5):
    """Calibrated probabilities, truth drawn from them, and people who are right as often."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, certain), tasks)
    truth = np.array([rng.choice(classes, p=row) for row in probs])
    rows = []
    for task in range(tasks):
        n = rng.integers(least, len(quality) + 1)
        for person in rng.choice(len(quality), n, replace=False):
            is_right = rng.random() < quality[person]
            other = (truth[task] + rng.integers(1, classes)) % classes
            rows.append((task, person, truth[task] if is_right else other))
    task, person, label = np.array(rows).T
    return probs, truth, task, person, label


def test_crowdlab_is_what_its_formulas_give_by_hand():
    found = crowdlab(PROBS, TASK, WHO, LABEL)
    # Majority 0, 1, 0 (the model decides), 2, 1; of four shared tasks two are 0: E = 1/2.
    agreed, wide = 7 / 8, 1 / 16  # P = (1 + 1 + 1/2 + 1) / 4, and what it leaves each other class
    w = 1 - (1 / 4) / (1 / 2)  # each agrees on 3 of 4
    m = (1 - (1 / 4) / (1 / 2)) * np.sqrt(9 / 5)  # the model errs on task 3
    both = m + 2 * w
    by_hand = (
        np.array(
            [
                [0.8 * m + 2 * w * agreed, 0.1 * m + 2 * w * wide, 0.1 * m + 2 * w * wide],
                [0.2 * m + 2 * w * wide, 0.7 * m + 2 * w * agreed, 0.1 * m + 2 * w * wide],
                [
                    0.6 * m + w * (agreed + wide),
                    0.3 * m + w * (agreed + wide),
                    0.1 * m + 2 * w * wide,
                ],
                [0.1 * m + 2 * w * wide, 0.5 * m + 2 * w * wide, 0.4 * m + 2 * w * agreed],
                [0.3 * m + w * wide, 0.4 * m + w * agreed, 0.3 * m + w * wide],
            ]
        )
        / np.array([both, both, both, both, m + w])[:, None]
    )
    np.testing.assert_allclose(found.probs, by_hand, rtol=1e-12)
    assert found.consensus.tolist() == [0, 1, 0, 2, 1]
    np.testing.assert_allclose(found.p_right, by_hand[range(5), [0, 1, 0, 2, 1]])
    part = m / (m + (4 * 2 * w + w) / 5)
    believed = by_hand[range(5), [0, 1, 0, 2, 1]].mean()
    first, second = found.annotators
    assert first.quality == pytest.approx(part * believed + (1 - part) * 1.0)
    believed = by_hand[range(4), [0, 1, 1, 2]].mean()
    assert second.quality == pytest.approx(part * believed + (1 - part) * 0.75)


@METHODS
def test_agreement_and_overlap_are_counted(method):
    first, second = method(PROBS, TASK, WHO, LABEL).annotators
    assert (first.id, first.labels, first.shared) == (7, 5, 4)
    assert (second.id, second.labels, second.shared) == (9, 4, 4)
    assert first.agreement == second.agreement == 0.75
    # Cohen: they say (2, 1, 1) and (1, 2, 1) of 4, so 5/16 are equal by chance.
    assert first.kappa == pytest.approx((0.75 - 5 / 16) / (1 - 5 / 16))
    assert second.kappa == pytest.approx(first.kappa)


def test_the_model_decides_between_as_many_votes():
    """Also for a class that is not the first, and in the first guess that all weights come from."""
    probs, label = PROBS[:, ::-1], 2 - LABEL
    found, mirrored = crowdlab(PROBS, TASK, WHO, LABEL), crowdlab(probs, TASK, WHO, label)
    assert mirrored.consensus.tolist() == [2, 1, 2, 0, 1]
    np.testing.assert_allclose(mirrored.probs[:, ::-1], found.probs)


def test_three_people_are_compared_pair_by_pair():
    task = np.array([0, 0, 0, 1, 1])
    found = weigh(np.full((2, 2), 0.5), task, np.array([1, 2, 3, 1, 2]), np.array([0, 0, 1, 1, 1]))
    assert [one.agreement for one in found.annotators] == [2 / 3, 2 / 3, 0.0]


def test_qualities_are_the_most_likely_ones():
    """Expectation maximisation ends where a general optimiser of the same function does."""
    probs, _, task, person, label = drawn(3, tasks=60)
    prior = (1 - MODEL_LOST) * probs + MODEL_LOST / 4

    def unlikely(logits):
        q = 1 / (1 + np.exp(-logits))
        given = np.ones_like(prior)
        for t, p, c in zip(task, person, label, strict=True):
            of_class = np.full(4, (1 - q[p]) / 3)
            of_class[c] = q[p]
            given[t] *= of_class
        before = USUAL_LABELS * (USUAL_QUALITY * np.log(q) + (1 - USUAL_QUALITY) * np.log(1 - q))
        return -np.log((prior * given).sum(axis=1)).sum() - before.sum()

    best = minimize(unlikely, np.ones(3), method="Nelder-Mead", options={"xatol": 1e-7})
    found = [one.quality for one in weigh(probs, task, person, label).annotators]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-best.x)), atol=2e-4)


def test_intervals_hold_the_quality_as_often_as_they_say():
    quality = (0.95, 0.85, 0.6)
    held = []
    for seed in range(60):
        probs, _, task, person, label = drawn(seed, tasks=80, quality=quality)
        people = weigh(probs, task, person, label).annotators
        held += [one.low <= q <= one.high for one, q in zip(people, quality, strict=True)]
    assert 0.91 <= np.mean(held) <= 0.995


def test_an_interval_is_wider_where_the_truth_is_not_known():
    width = []
    for certain in (0.05, 5.0):
        probs, _, task, person, label = drawn(1, certain=certain)
        one = weigh(probs, task, person, label).annotators[1]
        width.append(one.high - one.low)
    assert width[0] < width[1]


def test_probabilities_are_as_high_as_they_are_right():
    expected, found = [], []
    for seed in range(30):
        probs, truth, task, person, label = drawn(seed, certain=1.0)
        crowd = weigh(probs, task, person, label)
        expected.append(crowd.p_right.mean())
        found.append((crowd.consensus == truth).mean())
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.02)
    assert np.mean(found) > 0.85


@METHODS
def test_the_careless_one_is_last_and_the_consensus_better_than_each(method):
    for seed in range(5):
        probs, truth, task, person, label = drawn(seed, quality=(0.9, 0.9, 0.9, 0.5))
        crowd = method(probs, task, person, label)
        assert np.argmin([one.quality for one in crowd.annotators]) == 3
        best = max((label == truth[task])[person == n].mean() for n in range(4))
        assert (crowd.consensus == truth).mean() > best


@METHODS
def test_neither_the_order_of_labels_nor_the_names_of_people_matter(method):
    probs, _, task, person, label = drawn(0)
    first = method(probs, task, person, label)
    order = np.random.default_rng(1).permutation(len(task))
    renamed = np.array([30, 20, 10])[person]
    second = method(probs, task[order], renamed[order], label[order])
    np.testing.assert_array_equal(first.consensus, second.consensus)
    np.testing.assert_allclose(first.probs, second.probs, atol=1e-6)
    for one, other in zip(first.annotators, reversed(second.annotators), strict=True):
        assert other.id == 30 - 10 * one.id
        assert (one.labels, one.shared, one.agreement) == (
            other.labels, other.shared, other.agreement,
        )  # fmt: skip
        assert one.quality == pytest.approx(other.quality, abs=1e-6)
        assert one.kappa == pytest.approx(other.kappa)


@METHODS
def test_of_one_person_no_quality_can_be_told(method):
    crowd = method(PROBS, np.arange(5), np.full(5, 7), np.array([0, 1, 1, 2, 0]))
    assert crowd.why == ALONE
    assert crowd.consensus.tolist() == [0, 1, 1, 2, 0]
    (one,) = crowd.annotators
    assert (one.labels, one.shared) == (5, 0)
    assert one.quality is one.low is one.high is one.agreement is one.kappa is None


@METHODS
def test_of_people_who_share_no_task_neither(method):
    crowd = method(PROBS, np.arange(5), np.array([1, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0]))
    assert crowd.why == APART
    assert [one.labels for one in crowd.annotators] == [2, 3]
    np.testing.assert_array_equal(crowd.probs, PROBS)


@METHODS
def test_one_who_shares_nothing_beside_others_who_do(method):
    task, who = np.append(TASK, 4), np.append(WHO, 9)
    probs = np.vstack([PROBS, [[0.2, 0.2, 0.6]]])
    crowd = method(probs, np.append(task, 5), np.append(who, 1), np.append(LABEL, [1, 2]))
    assert crowd.why is None
    alone = crowd.annotators[0]
    assert (alone.id, alone.labels, alone.shared, alone.quality) == (1, 1, 0, None)
    assert crowd.consensus[5] == 2
    assert crowd.p_right[5] > 0.6, "their label counts as the others' do"


@METHODS
@pytest.mark.parametrize("labels", [[0, 0], [0, 1]], ids=["equal", "different"])
def test_two_labels_alone_are_enough_and_say_little(method, labels):
    crowd = method(np.array([[0.3, 0.7]]), np.zeros(2, int), np.array([1, 2]), np.array(labels))
    assert np.isfinite(crowd.probs).all()
    np.testing.assert_allclose(crowd.probs.sum(axis=1), 1.0)
    for one in crowd.annotators:
        assert 0.0 <= one.low <= one.quality <= one.high <= 1.0
        assert one.high - one.low > 0.5


@METHODS
def test_everybody_always_says_the_same(method):
    task, who = np.repeat(np.arange(4), 2), np.tile([1, 2], 4)
    crowd = method(np.tile([0.9, 0.1], (4, 1)), task, who, np.zeros(8, int))
    assert crowd.consensus.tolist() == [0] * 4
    assert [one.kappa for one in crowd.annotators] == [None, None]
    assert all(one.agreement == 1.0 and one.high == pytest.approx(1.0, abs=0.05)
               for one in crowd.annotators)  # fmt: skip


@METHODS
def test_a_single_class_is_always_right(method):
    crowd = method(np.ones((2, 1)), np.array([0, 0, 1]), np.array([1, 2, 1]), np.zeros(3, int))
    np.testing.assert_allclose(crowd.p_right, 1.0)


def test_two_good_people_outvote_a_model_that_is_sure():
    """A model that says 0 may be wrong; an image it knows nothing of is not decided by it."""
    probs, _, task, person, label = drawn(0, quality=(0.95, 0.95, 0.95))
    probs = np.vstack([probs, [[1.0, 0.0, 0.0, 0.0]]])
    task, person = np.append(task, [150, 150]), np.append(person, [0, 1])
    crowd = weigh(probs, task, person, np.append(label, [2, 2]))
    assert crowd.consensus[-1] == 2
    assert crowd.p_right[-1] > 0.5


def test_a_vote_is_worth_what_it_is_better_than_chance():
    assert vote_weight(1.0, 10) == 1.0
    assert vote_weight(0.1, 10) == pytest.approx(LEAST_WEIGHT)
    assert vote_weight(0.55, 10) == pytest.approx(0.5)
    assert vote_weight(0.0, 1) == LEAST_WEIGHT


@METHODS
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"probs": PROBS[0]}, ShapeError, "probs"),
        ({"label": LABEL[:-1]}, ShapeError, "label"),
        ({"probs": PROBS * 0.5}, ModelError, "sum of 1"),
        ({"probs": PROBS * np.nan}, ModelError, "sum of 1"),
        ({"label": np.full(9, 3)}, ModelError, "label 3 is out of range; there are 3"),
        ({"task": np.where(TASK == 4, 5, TASK)}, ModelError, "task 5 is out of range"),
        ({"task": np.where(TASK == 4, 3, TASK), "annotator": np.arange(9)}, ModelError, "task 4 h"),
        ({"annotator": np.full(9, 7)}, ModelError, "annotator 7 labelled task 0 twice"),
    ],
)
def test_what_does_not_belong_together_is_refused(method, change, error, says):
    given = {"probs": PROBS, "task": TASK, "annotator": WHO, "label": LABEL} | change
    with pytest.raises(error, match=says):
        method(**given)
