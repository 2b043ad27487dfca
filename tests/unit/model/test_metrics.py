from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from model.calibration import metrics
from model.errors import ShapeError


def scores(seed: int, count: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.random(count)
    if ties:
        p = np.round(p, 1)
    return p, rng.random(count) < p


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_error_auroc_equals_the_count_over_pairs(seed: int, ties: bool) -> None:
    p, right = scores(seed, 60, ties=ties)
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(p[right], p[~right])]
    assert metrics.error_auroc(p, right) == pytest.approx(np.mean(pairs))


def test_error_auroc_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    p, right = scores(3, 200, ties=True)
    assert metrics.error_auroc(p, right) == pytest.approx(sklearn.roc_auc_score(right, p))


@pytest.mark.parametrize("right", [True, False])
def test_error_auroc_without_both_kinds_is_none(right: bool) -> None:
    assert metrics.error_auroc(np.array([0.1, 0.9]), np.array([right, right])) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [1, 4, 15, 500])
def test_ece_equals_a_loop_over_bins(seed: int, bins: int) -> None:
    p, right = scores(seed, 97, ties=False)
    order = np.argsort(p)
    expected = sum(
        len(part) / 97 * abs(p[part].mean() - right[part].mean())
        for part in np.array_split(order, min(bins, 97))
    )
    assert metrics.ece(p, right, bins=bins) == pytest.approx(expected)
    assert metrics.ece(p, right, bins=1) == pytest.approx(abs(p.mean() - right.mean()))
    assert metrics.ece(p, right, bins=97) == pytest.approx(np.abs(p - right).mean())


def test_brier_and_nll_equal_the_definitions() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 50)
    labels = rng.integers(0, 4, 50)
    one_hot = np.eye(4)[labels]
    assert metrics.brier(probs, labels) == pytest.approx(((probs - one_hot) ** 2).sum(1).mean())
    sklearn = pytest.importorskip("sklearn.metrics")
    assert metrics.nll(probs, labels) == pytest.approx(
        sklearn.log_loss(labels, probs, labels=range(4))
    )
    assert math.isfinite(metrics.nll(np.array([[1.0, 0.0]]), np.array([1])))


@pytest.mark.parametrize("seed", range(5))
def test_aurc_and_augrc_equal_the_definitions(seed: int) -> None:
    p, right = scores(seed, 40, ties=False)
    wrong = (~right)[np.argsort(-p)]
    risks = [wrong[: k + 1].mean() for k in range(40)]
    joint = [wrong[: k + 1].sum() / 40 for k in range(40)]
    assert metrics.aurc(p, right) == pytest.approx(np.mean(risks))
    assert metrics.augrc(p, right) == pytest.approx(np.mean(joint))


def test_augrc_follows_from_auroc_and_accuracy() -> None:
    """Closed form of Traub et al.: (1 - AUROC) * acc * (1 - acc) + (1 - acc)^2 / 2, as N grows."""
    p, right = scores(1, 20_000, ties=False)
    accuracy, auroc = right.mean(), metrics.error_auroc(p, right)
    assert auroc is not None
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert metrics.augrc(p, right) == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 1000))
def test_ties_make_the_order_of_rows_irrelevant(seed: int) -> None:
    p, right = scores(seed, 30, ties=True)
    shuffled = np.random.default_rng(seed).permutation(30)
    for measure in (metrics.aurc, metrics.augrc):
        assert measure(p, right) == pytest.approx(measure(p[shuffled], right[shuffled]))


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (59, 60), (1, 1)])
def test_interval_bounds_are_where_the_tails_are_2_5_percent(successes: int, trials: int) -> None:
    low, high = metrics.proportion_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    if successes > 0:
        assert binom.sf(successes - 1, trials, low) == pytest.approx(0.025)
    if successes < trials:
        assert binom.cdf(successes, trials, high) == pytest.approx(0.025)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError):
        metrics.ece(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ShapeError):
        metrics.aurc(np.zeros(3), np.zeros(2, bool))
    with pytest.raises(ShapeError):
        metrics.brier(np.zeros((2, 2)), np.zeros(3, np.int64))
