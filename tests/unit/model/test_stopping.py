from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta

from model.errors import ModelError, ShapeError
from model.stopping import (
    Estimate,
    accuracy_assisted,
    accuracy_from_share,
    accuracy_lure,
    fit_curve,
)
from model.stopping.accuracy import lure_weights


def pool_of(accuracy_shift: float, count: int = 2000) -> np.ndarray:
    """True P(right) of every item of a pool, some easy, some hard."""
    return expit(2.0 * np.random.default_rng(0).normal(size=count) + accuracy_shift)


def covers(found: Estimate, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


def width(found: Estimate) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_the_share_alone_gives_clopper_pearson() -> None:
    found = accuracy_from_share(np.array([True] * 17 + [False] * 3))
    assert found.value == pytest.approx(0.85)
    assert found.low == pytest.approx(beta.ppf(0.025, 17, 4))
    assert found.high == pytest.approx(beta.ppf(0.975, 18, 3))
    assert "85.0 %" in found.sentence


def test_without_a_share_there_is_a_reason_and_no_number() -> None:
    found = accuracy_from_share(np.zeros(0, bool))
    assert found.value is None
    assert found.low is None
    assert "random share" in found.sentence


@pytest.mark.parametrize("count", [12, 40])
@pytest.mark.parametrize("shift", [0.5, 3.0, 6.0])
@pytest.mark.parametrize("stated", ["true", "bold", "modest", "noise"])
def test_assisted_interval_covers_whatever_is_stated(count: int, shift: float, stated: str) -> None:
    """95 % of intervals hold the pool's accuracy: 400 draws, so 2.5 points are three errors."""
    rng = np.random.default_rng(1)
    true = pool_of(shift)
    p = {
        "true": true,
        "bold": expit(2.0 * np.log(true / (1.0 - true))),
        "modest": expit(np.log(true / (1.0 - true)) - 1.5),
        "noise": rng.random(len(true)),
    }[stated]
    hits = 0
    for _ in range(400):
        right = rng.random(len(true)) < true
        drawn = rng.choice(len(true), count, replace=False)
        hits += covers(accuracy_assisted(right[drawn], p[drawn], p), right.mean())
    assert hits / 400 >= 0.925


def test_assisted_is_nearer_and_narrower_where_p_right_is_informative() -> None:
    rng = np.random.default_rng(2)
    true = pool_of(0.5)
    errors, widths = [], []
    for _ in range(300):
        right = rng.random(len(true)) < true
        drawn = rng.choice(len(true), 60, replace=False)
        pair = (
            accuracy_assisted(right[drawn], true[drawn], true),
            accuracy_from_share(right[drawn]),
        )
        errors.append([(found.value or 0.0) - right.mean() for found in pair])
        widths.append([width(found) for found in pair])
    rms = np.sqrt(np.mean(np.square(errors), axis=0))
    assert rms[0] < 0.9 * rms[1]
    assert np.mean(widths, axis=0)[0] < 0.9 * np.mean(widths, axis=0)[1]
    assert abs(np.mean(errors, axis=0)[0]) < 0.01


def test_assisted_falls_back_to_the_share() -> None:
    right = np.array([True] * 5 + [False] * 4)
    half = np.full(9, 0.5)
    plain = accuracy_from_share(right)
    assert accuracy_assisted(right, half, np.full(50, 0.5)) == plain
    assert accuracy_assisted(np.tile(right, 2), np.tile(half, 2), np.zeros(0)).value == plain.value
    constant = accuracy_assisted(np.tile(right, 2), np.full(18, 0.9), np.full(50, 0.3))
    assert constant.value == pytest.approx(5 / 9)


def test_lure_equals_the_formula_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    q, n, pool = rng.uniform(0.01, 0.3, 12), 12, 40
    expected = [
        1 + (pool - n) / (pool - m) * (1 / ((pool - m + 1) * q[m - 1]) - 1) for m in range(1, n + 1)
    ]
    np.testing.assert_allclose(lure_weights(q, pool), expected)


def test_lure_is_unbiased_and_covers_when_hard_items_are_asked_for() -> None:
    """Items are drawn one by one, wrong ones three times as often; the plain mean is far off."""
    rng = np.random.default_rng(3)
    right = rng.random(300) < 0.7
    pull = np.where(right, 1.0, 3.0)
    values, plain, hits = [], [], 0
    for _ in range(600):
        # Exponential races draw without replacement in proportion to `pull`, one after another.
        order = np.argsort(rng.exponential(size=300) / pull)[:60]
        before = np.concatenate([[0.0], np.cumsum(pull[order])[:-1]])
        found = accuracy_lure(right[order], pull[order] / (pull.sum() - before), 300)
        values.append(found.value)
        plain.append(right[order].mean())
        hits += covers(found, right.mean())
    assert abs(np.mean(plain) - right.mean()) > 0.15
    assert np.mean(values) == pytest.approx(right.mean(), abs=4 * np.std(values) / np.sqrt(600))
    assert hits / 600 >= 0.92


def test_lure_of_uniform_draws_is_the_mean_and_of_the_whole_pool_exact() -> None:
    right = np.random.default_rng(0).random(30) < 0.6
    uniform = 1.0 / np.arange(30, 0, -1)
    assert accuracy_lure(right[:12], uniform[:12], 30).value == pytest.approx(right[:12].mean())
    every = accuracy_lure(right, uniform, 30)
    assert every.low == every.high == pytest.approx(right.mean())
    assert accuracy_lure(right[:5], uniform[:5], 30).value is None


def curve_points(
    limit: float, rise: float, power: float, rng: np.random.Generator | None, se: float = 0.02
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.array([40, 80, 120, 160, 240, 320])
    accuracy = limit - rise * labels**-power
    if rng is not None:
        common = rng.normal() * np.sqrt(0.5)
        accuracy += se * (common + rng.normal(size=len(labels)) * np.sqrt(0.5))
    return labels, np.clip(accuracy, 0.0, 1.0), np.full(len(labels), se)


def test_gain_and_labels_needed_of_a_known_curve() -> None:
    curve = fit_curve(*curve_points(0.98, 2.0, 0.5, None, se=0.005))
    gain, needed = curve.gain(100), curve.labels_needed(0.9)
    true_gain = 2.0 * (320**-0.5 - 420**-0.5)
    true_needed = (2.0 / 0.08) ** 2 - 320
    assert covers(gain, true_gain)
    assert gain.value == pytest.approx(true_gain, abs=0.005)
    assert covers(needed, true_needed)
    assert needed.value == pytest.approx(true_needed, rel=0.35)
    assert str(int(needed.value or 0)) in needed.sentence


@pytest.mark.parametrize(
    ("limit", "rise", "power"), [(0.98, 2.0, 0.5), (1.0, 1.5, 0.35), (0.85, 8.0, 0.9)]
)
def test_intervals_of_gain_and_need_cover(limit: float, rise: float, power: float) -> None:
    """90 % intervals, noise as the versions have it: 60 curves, so 10 points are 2.5 errors."""
    rng = np.random.default_rng(4)
    true_gain = rise * (320**-power - 420**-power)
    target = limit - rise * 600.0**-power
    gains = needs = 0
    for _ in range(60):
        curve = fit_curve(*curve_points(limit, rise, power, rng))
        gains += covers(curve.gain(100), true_gain)
        needed = curve.labels_needed(target)
        low = 0.0 if needed.low is None else needed.low
        needs += low <= 280 and (needed.high is None or needed.high >= 280)
    assert gains / 60 >= 0.8
    assert needs / 60 >= 0.8


def test_no_guess_without_enough_versions() -> None:
    labels, accuracy, se = curve_points(0.98, 2.0, 0.5, None)
    few = fit_curve(labels[:3], accuracy[:3], se[:3])
    close = fit_curve(np.array([100, 110, 120, 130]), accuracy[:4], se[:4])
    none = fit_curve(labels[:0], accuracy[:0], se[:0])
    for curve in (few, close, none):
        assert curve.gain(100).value is None
        assert curve.labels_needed(0.9).value is None
        assert curve.gain(100).sentence
    assert "200" in close.gain(100).sentence


def test_targets_reached_and_out_of_reach() -> None:
    curve = fit_curve(*curve_points(0.85, 8.0, 0.9, None, se=0.005))
    reached = curve.labels_needed(0.5)
    assert reached.value == 0.0
    assert "reached" in reached.sentence
    assert curve.labels_needed(0.99).value is None
    assert curve.labels_needed(0.84, most=1).value is None
    assert "out of reach" in curve.labels_needed(0.99).sentence


def test_order_of_versions_and_ties_do_not_matter() -> None:
    labels, accuracy, se = curve_points(0.98, 2.0, 0.5, np.random.default_rng(0))
    back = fit_curve(labels[::-1], accuracy[::-1], se[::-1])
    there = fit_curve(labels, accuracy, se)
    assert back.gain(50).value == pytest.approx(there.gain(50).value or 0.0, abs=1e-6)
    twice = fit_curve(np.tile(labels, 2), np.tile(accuracy, 2), np.tile(se, 2))
    assert np.isfinite(twice.limit).all()


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_flat_curves_are_defined(accuracy: float) -> None:
    labels = np.array([10, 20, 40, 80])
    curve = fit_curve(labels, np.full(4, accuracy), np.zeros(4))
    gain = curve.gain(100)
    assert gain.value is not None
    assert np.isfinite([gain.value, gain.low, gain.high]).all()


def test_bad_input_is_refused() -> None:
    right, p = np.ones(12, bool), np.full(12, 0.5)
    with pytest.raises(ShapeError):
        accuracy_from_share(np.ones(3))  # not bool
    with pytest.raises(ShapeError):
        accuracy_assisted(right, p[:3], p)
    with pytest.raises(ModelError, match="probabilities"):
        accuracy_assisted(right, p * np.nan, p)
    with pytest.raises(ModelError, match="level"):
        accuracy_from_share(right, level=95.0)
    with pytest.raises(ModelError, match="pool of 5"):
        accuracy_lure(right, p, 5)
    with pytest.raises(ModelError, match="probability of 0"):
        accuracy_lure(right, p * 0.0, 50)
    labels, accuracy, se = curve_points(0.98, 2.0, 0.5, None)
    with pytest.raises(ShapeError):
        fit_curve(labels, accuracy[:2], se)
    with pytest.raises(ModelError):
        fit_curve(labels, accuracy, -se)
    with pytest.raises(ModelError):
        fit_curve(labels * 0, accuracy, se)
    with pytest.raises(ModelError):
        fit_curve(labels, accuracy, se, correlation=1.0)
    curve = fit_curve(labels, accuracy, se)
    with pytest.raises(ModelError):
        curve.gain(0)
    with pytest.raises(ModelError):
        curve.labels_needed(1.5)
    with pytest.raises(ModelError):
        curve.labels_needed(0.9, most=-1)
