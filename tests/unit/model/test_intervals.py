from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from model.calibration import metrics
from model.calibration.intervals import with_interval
from model.calibration.metrics import ReliabilityBin, error_falls, reliability
from model.errors import ModelError, ShapeError


def stated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated by construction."""
    rng = np.random.default_rng(seed)
    p = rng.beta(4, 1.5, count)
    return p, rng.random(count) < p


def test_adaptive_ece_equals_a_loop_over_classes_and_bins() -> None:
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(3), 80), rng.integers(0, 3, 80)
    gaps = []
    for c in range(3):
        order = np.argsort(probs[:, c])
        gaps.append(
            sum(
                len(part) / 80 * abs(probs[part, c].mean() - (labels[part] == c).mean())
                for part in np.array_split(order, 7)
            )
        )
    assert metrics.adaptive_ece(probs, labels, bins=7) == pytest.approx(np.mean(gaps))
    exact = np.eye(3)[labels]
    assert metrics.adaptive_ece(exact, labels) == 0.0


def test_reliability_bins_hold_every_item_once_with_exact_intervals() -> None:
    p, right = stated(205, 0)
    bins = reliability(p, right, bins=10)
    assert sum(one.count for one in bins) == 205
    assert sum(one.count * one.observed for one in bins) == pytest.approx(right.sum())
    assert [one.stated for one in bins] == sorted(one.stated for one in bins)
    one = bins[3]
    hits = round(one.observed * one.count)
    assert one.low == pytest.approx(beta.ppf(0.025, hits, one.count - hits + 1))
    assert one.high == pytest.approx(beta.ppf(0.975, hits + 1, one.count - hits))
    gap = sum(one.count * abs(one.stated - one.observed) for one in bins) / 205
    assert metrics.ece(p, right, bins=10) == pytest.approx(gap)
    assert len(reliability(p[:3], right[:3])) == 3


def test_error_falls_unless_a_surer_bin_is_surely_worse() -> None:
    def at(low: float, high: float) -> ReliabilityBin:
        return ReliabilityBin(10, 0.5, (low + high) / 2, low, high)

    assert error_falls((at(0.1, 0.3), at(0.2, 0.5), at(0.15, 0.6)))
    assert not error_falls((at(0.5, 0.6), at(0.4, 0.55), at(0.1, 0.45)))
    assert error_falls(reliability(*stated(3000, 1)))
    p, right = stated(3000, 1)
    assert not error_falls(reliability(1.0 - p, right))


@pytest.mark.parametrize("name", ["accuracy", "brier", "auroc"])
def test_intervals_hold_the_true_value(name: str) -> None:
    """95 % intervals of 120 samples: 7 points are 3.5 errors."""

    def accuracy(p: np.ndarray, right: np.ndarray) -> float:
        return float(right.mean())

    def squared(p: np.ndarray, right: np.ndarray) -> float:
        return float(((p - right) ** 2).mean())

    metric = {"accuracy": accuracy, "brier": squared, "auroc": metrics.error_auroc}[name]
    truth = metric(*stated(200_000, 99))
    assert truth is not None
    hits = 0
    for seed in range(120):
        found = with_interval(metric, *stated(150, seed), resamples=200, seed=seed)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert hits / 120 >= 0.88


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).exponential(size=400) + 5.0
    found = with_interval(lambda v: float(v.mean()), values, resamples=4000)
    assert found is not None
    reach = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - reach, abs=0.01)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.01)


def test_the_interval_of_a_calibrated_ece_reaches_towards_zero() -> None:
    p, right = stated(1000, 5)
    found = with_interval(metrics.ece, p, right, resamples=300)
    assert found is not None
    assert found.low < 0.5 * found.value
    assert found.low <= found.value <= found.high


def test_the_same_seed_gives_the_same_interval_and_blocks_do_not_matter() -> None:
    p, right = stated(300, 2)
    first = with_interval(metrics.aurc, p, right, resamples=50, seed=3)
    assert first == with_interval(metrics.aurc, p, right, resamples=50, seed=3)
    assert first != with_interval(metrics.aurc, p, right, resamples=50, seed=4)


def test_a_metric_that_is_not_defined_has_no_interval() -> None:
    p = np.linspace(0.1, 0.9, 9)
    assert with_interval(metrics.error_auroc, p, np.ones(9, bool)) is None
    almost = np.ones(9, bool)
    almost[4] = False
    found = with_interval(metrics.error_auroc, p, almost, resamples=50, bounds=(0.0, 1.0))
    assert found is not None
    assert 0.0 <= found.low <= found.high <= 1.0


def test_bad_input_is_refused() -> None:
    p, right = stated(10, 0)
    with pytest.raises(ShapeError):
        with_interval(metrics.ece)
    with pytest.raises(ShapeError):
        with_interval(metrics.ece, p, right[:4])
    with pytest.raises(ShapeError):
        with_interval(metrics.ece, p[:0], right[:0])
    with pytest.raises(ModelError, match="level"):
        with_interval(metrics.ece, p, right, level=95)
    with pytest.raises(ModelError, match="resamples"):
        with_interval(metrics.ece, p, right, resamples=0)
    with pytest.raises(ShapeError):
        reliability(p[:0], right[:0])
    with pytest.raises(ShapeError):
        metrics.adaptive_ece(p[:, None], right[:2].astype(np.int64))
