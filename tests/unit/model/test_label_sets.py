"""Sets of labels: the most probable one, its probability, margin, calibration and metrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from model.calibration.choose import MIN_DRAWN
from model.calibration.families import CALIBRATORS
from model.calibration.metrics import brier, ece, macro_f1, nll
from model.calibration.sets import PublishedSets, answer_weights, calibrate_sets, fit_empty
from model.errors import ModelError, ShapeError
from model.uncertainty.measures import decompose, decompose_multi_label, margin
from model.uncertainty.sets import (
    joint_outcomes,
    log_p_none,
    log_p_set,
    most_probable_set,
    set_margin,
)

ROWS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5)


def every_set(probs: list[float], empty: float = 1.0) -> list[tuple[float, list[bool]]]:
    """Probability of each set, most probable first."""
    found = []
    for answers in itertools.product([False, True], repeat=len(probs)):
        chances = [p if yes else 1 - p for p, yes in zip(probs, answers, strict=True)]
        found.append((float(np.prod(chances)) * (1 if any(answers) else empty), list(answers)))
    total = max(sum(p for p, _ in found), 1e-12)
    return sorted([(p / total, answers) for p, answers in found], key=lambda one: -one[0])


@given(ROWS, st.sampled_from([0.0, 0.01, 0.3, 1.0, 5.0, 1000.0]))
def test_the_set_and_its_probability_and_margin_are_those_of_brute_force(
    row: list[float], weight: float
) -> None:
    probs = np.array([row])
    empty = float(np.log(weight)) if weight else -np.inf
    (best, _), (second, _) = every_set(row, weight)[:2]
    chosen = most_probable_set(probs, empty=empty)
    assert chosen.any() or weight
    if weight or max(row) > 1e-6:  # where no label is possible and none is no answer, all is equal
        assert np.exp(log_p_set(probs, chosen, empty=empty))[0] == pytest.approx(best, abs=1e-6)
        assert set_margin(probs, empty=empty)[0] == pytest.approx(best - second, abs=1e-6)
    assert 0 <= set_margin(probs, empty=empty)[0] <= 1


@given(ROWS)
def test_independent_answers_make_the_set_of_labels_more_probable_than_not(
    row: list[float],
) -> None:
    assert most_probable_set(np.array([row])).tolist() == [[p > 0.5 for p in row]]


def test_one_label_has_the_margin_of_two_classes() -> None:
    yes = np.random.default_rng(0).random((50, 1))
    both = np.concatenate([yes, 1 - yes], axis=1)
    np.testing.assert_allclose(set_margin(yes), margin(both), atol=1e-12)
    with pytest.raises(ShapeError, match="probs"):
        set_margin(np.zeros((3, 0)))


def test_joint_outcomes_hold_the_information_of_all_sets() -> None:
    passes = np.random.default_rng(0).random((20, 6, 3))
    brute = np.array(
        [
            [[p for p, _ in sorted(every_set(row), key=lambda one: one[1])] for row in item]
            for item in passes.tolist()
        ]
    )
    found = joint_outcomes(passes)
    assert found.shape == (20, 6, 8)
    for ours, theirs in zip(decompose(found), decompose(brute), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    # Aleatoric parts add up; what labels say about each other makes the total smaller.
    apart = decompose_multi_label(passes)
    np.testing.assert_allclose(decompose(found)[1], apart[1], atol=1e-9)
    assert (decompose(found)[0] <= apart[0] + 1e-9).all()


def test_of_many_labels_the_most_telling_are_looked_at() -> None:
    rng = np.random.default_rng(0)
    passes = np.tile(rng.random((10, 1, 9)), (1, 5, 1))
    passes[:, :, [2, 5, 6, 8]] = rng.random((10, 5, 4))  # only these tell passes apart
    few = joint_outcomes(passes[:, :, [2, 5, 6, 8]])
    np.testing.assert_allclose(decompose(joint_outcomes(passes))[2], decompose(few)[2], atol=1e-9)
    same = np.tile(rng.random((10, 1, 9)), (1, 5, 1))
    np.testing.assert_allclose(decompose(joint_outcomes(same))[2], 0, atol=1e-9)


def world(count: int, *, sharp: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of four labels, their log odds `sharp` times too large, and the truth."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, (count, 4)) - 0.5
    labels = rng.random((count, 4)) < expit(odds)
    return expit(sharp * odds), labels


def fitted(probs: np.ndarray, labels: np.ndarray, **more: object) -> PublishedSets:
    return calibrate_sets(probs, labels, np.ones(len(probs), bool), **more)


def test_a_bold_head_is_brought_back_to_the_truth() -> None:
    bold, labels = world(4000, sharp=2.5)
    published = fitted(bold, labels)
    np.testing.assert_allclose(published.sharpness, 1 / 2.5, rtol=0.1)
    test, truth = world(20_000, sharp=2.5, seed=1)
    p_right = published.p_right(test)
    right = (published.decide(published.probs(test)) == truth).all(axis=1)
    assert ece(p_right, right) < 0.02
    raw = np.exp(log_p_set(test, most_probable_set(test)))
    assert ece(raw, right) > 0.15
    honest = world(20_000, seed=1)[0]
    np.testing.assert_allclose(published.probs(test), honest, atol=0.05)


def test_labels_that_come_together_are_allowed_for() -> None:
    """Ten copies of one question: the product of independent answers is far too small."""
    one, labels = world(4000)
    copies = np.repeat(one[:, :1], 10, axis=1), np.repeat(labels[:, :1], 10, axis=1)
    published = fitted(*copies)
    test, truth = world(20_000, seed=1)
    test, truth = np.repeat(test[:, :1], 10, axis=1), np.repeat(truth[:, :1], 10, axis=1)
    right = (published.decide(published.probs(test)) == truth).all(axis=1)
    product = np.exp(log_p_set(test, most_probable_set(test)))
    assert right.mean() - product.mean() > 0.2
    assert abs(published.p_right(test).mean() - right.mean()) < 0.05


def test_where_no_image_is_without_a_label_none_is_not_published() -> None:
    """Every image has one label of four, and where the head cannot tell, it says no to each."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        of_class = rng.integers(0, 4, count)
        labels = np.eye(4, dtype=bool)[of_class]
        clear = rng.random(count) < 0.5
        probs = np.where(clear[:, None], np.where(labels, 0.95, 0.02), 0.25)
        return probs + 0.01 * rng.random((count, 4)), labels

    published = fitted(*draw(400))
    test, truth = draw(4000)
    unsure = ~most_probable_set(test).any(axis=1)
    assert unsure.mean() > 0.4
    chosen = published.decide(published.probs(test))
    assert chosen.any(axis=1).all()
    right = (chosen == truth).all(axis=1)
    assert right[unsure].mean() > 0.2  # independent answers would never be right there
    for part in (unsure, ~unsure):
        assert abs(published.p_right(test)[part].mean() - right[part].mean()) < 0.08


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_as_many_images_without_a_label_are_expected_as_there_are(share: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=bool)[rng.integers(0, 4, 3000)] & (rng.random((3000, 1)) > share)
    probs = np.clip(0.25 + 0.1 * rng.normal(size=(3000, 4)), 0.01, 0.99)
    drawn = np.zeros(3000, bool)
    slope, shift = fit_empty(probs, labels, np.ones(3000), drawn)
    log_p = log_p_none(probs)
    stated = expit(slope * (log_p - np.log(-np.expm1(log_p))) + shift)
    assert stated.mean() == pytest.approx(1 - labels.any(axis=1).mean(), abs=0.01)
    nothing = fit_empty(probs[:0], labels[:0], np.ones(0), drawn[:0])
    assert nothing.tolist() == [1.0, 0.0]
    # Without an image that has none it is held back, more with more labels, less with chosen ones.
    some = labels.any(axis=1)
    few, many, chosen = (
        fit_empty(probs[some][:n], labels[some][:n], np.ones(n), np.full(n, is_chosen))[1]
        for n, is_chosen in ((10, False), (500, False), (500, True))
    )
    assert many < few < -0.3
    assert many < chosen < -0.3


def test_the_slope_tells_images_that_are_empty_from_those_in_doubt() -> None:
    """Half of the images are empty and look it; the others have one label, often in doubt."""
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=bool)[rng.integers(0, 4, 2000)]
    labels[:1000] = False
    probs = 0.2 + 0.05 * rng.random((2000, 4))
    probs[:1000] = 0.03 + 0.03 * rng.random((1000, 4))
    published = fitted(probs, labels)
    chosen = published.decide(published.probs(probs)).any(axis=1)
    assert not chosen[:1000].any()
    assert chosen[1000:].all()


def test_labels_that_acquisition_chose_get_a_handicap() -> None:
    """They are the doubtful ones, and wrong more often than their probability says."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, (3000, 2))
    random = rng.random(3000) < 0.4
    truth_odds = np.where(random[:, None], odds, 0.3 * odds)
    labels = rng.random((3000, 2)) < expit(truth_odds)
    with_handicap = calibrate_sets(expit(odds), labels, random, name="selection")
    without = calibrate_sets(expit(odds), labels, random, name="platt")
    assert with_handicap.p_right(expit(odds)).mean() > without.p_right(expit(odds)).mean() + 0.05


def test_the_rule_that_picks_is_that_of_the_random_share() -> None:
    probs, labels = world(100)
    for drawn, name in ((0, "temperature"), (3, "temperature"), (40, "selection")):
        found = calibrate_sets(probs, labels, np.arange(100) < drawn)
        assert found.name == name == found.facts["calibrator"]
    assert MIN_DRAWN == 5.0
    assert fitted(probs, labels, name="vector").name == "temperature"
    assert fitted(probs, labels, name="isotonic").name == "selection"


@pytest.mark.parametrize("name", ["auto", *sorted(CALIBRATORS)])
@pytest.mark.parametrize("count", [0, 1, 2, 10])
@pytest.mark.parametrize("at_least_one", [False, True])
def test_any_number_of_labels_gives_something_finite(
    name: str, count: int, at_least_one: bool
) -> None:
    probs, labels = world(count)
    probs[: count // 2] = np.round(probs[: count // 2])  # certain ones too
    published = fitted(probs, labels, name=name, at_least_one=at_least_one)
    test = np.concatenate([world(50, seed=1)[0], np.eye(4), np.zeros((1, 4)), np.ones((1, 4))])
    again = PublishedSets.restore(published.name, published.arrays())
    for one in (published, again):
        assert np.isfinite(one.probs(test)).all()
        p_right = one.p_right(test)
        assert ((p_right > 0) & (p_right < 1)).all()
    np.testing.assert_array_equal(published.p_right(test), again.p_right(test))
    chosen = again.decide(again.probs(test))
    assert chosen.any(axis=1).all() or not at_least_one


def test_a_label_without_two_answers_keeps_what_the_head_gives_it() -> None:
    probs, labels = world(300, sharp=2.5)
    probs[:, 3], labels[:, 3] = 0.02, False
    published = fitted(probs, labels)
    np.testing.assert_allclose(published.probs(probs)[:, 3], 0.02)
    assert published.sharpness[3] == 1.0
    assert published.sharpness[0] < 0.7


def test_a_single_yes_says_nothing_out_of_fold() -> None:
    labels = np.array([[True, True], [False, True], [False, False], [False, False]])
    expected = [[0, 1 / 16], [16 / 81, 1 / 16], [16 / 81, 1 / 16], [16 / 81, 1 / 16]]
    np.testing.assert_allclose(answer_weights(labels), expected)


def test_what_does_not_belong_together_is_refused() -> None:
    probs, labels = world(5)
    random = np.ones(5, bool)
    with pytest.raises(ShapeError, match="labels"):
        calibrate_sets(probs, labels[:4], random)
    with pytest.raises(ShapeError, match="random"):
        calibrate_sets(probs, labels, random[:4])
    with pytest.raises(ShapeError, match="probs"):
        calibrate_sets(probs[:, :0], labels[:, :0], random)
    with pytest.raises(ModelError, match="no probabilities"):
        calibrate_sets(probs * np.nan, labels, random)


def test_metrics_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    probs, labels = world(200)
    said = most_probable_set(probs)
    expected = metrics.f1_score(labels, said, average="macro")
    assert macro_f1(said, labels) == pytest.approx(expected)
    each = [metrics.brier_score_loss(labels[:, c], probs[:, c]) for c in range(4)]
    assert brier(probs, labels) == pytest.approx(sum(each))
    losses = [metrics.log_loss(labels[:, c], probs[:, c]) for c in range(4)]
    assert nll(probs, labels) == pytest.approx(sum(losses))


def test_f1_is_over_the_labels_that_occur() -> None:
    yes, no = np.ones((3, 1), bool), np.zeros((3, 1), bool)
    assert macro_f1(no, no) is None
    assert macro_f1(np.hstack([yes, no]), np.hstack([yes, no])) == 1.0
    assert macro_f1(np.hstack([yes, yes]), np.hstack([yes, no])) == 0.5
    with pytest.raises(ShapeError, match="said"):
        macro_f1(yes, yes[:2])
