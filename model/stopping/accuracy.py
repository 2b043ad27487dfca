"""How right is the version today, on the whole pool? Three estimators, each with an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from model.calibration.metrics import proportion_interval
from model.errors import ModelError, ShapeError
from model.stopping.base import Estimate, Floats, check_level, check_probabilities, percent

Bools = NDArray[np.bool_]

MIN_ASSISTED = 10
MIN_LURE = 10
PRIOR_SPREAD = 1.0


def accuracy_from_share(right: Bools, *, level: float = 0.95) -> Estimate:
    """Accuracy on the pool from items drawn uniformly from it: their share that was right.

    Args:
        right: ``(n,)`` whether each was predicted right by a head not fitted on it.
        level: confidence of the interval (Clopper-Pearson: never too narrow).

    Returns:
        Unknown without an item.

    Example:
        >>> accuracy_from_share(np.array([True] * 9 + [False])).value
        0.9
    """
    check_level(level)
    _check_right(right)
    if not len(right):
        return Estimate.unknown(
            "No label was drawn at random, so the accuracy on the whole pool cannot be told; "
            "turn the random share on."
        )
    low, high = proportion_interval(int(right.sum()), len(right), level=level)
    return _estimate(float(right.mean()), low, high, level, f"{len(right)} labels drawn at random")


def accuracy_assisted(
    right: Bools, p_share: Floats, p_pool: Floats, *, level: float = 0.95
) -> Estimate:
    """The same, with the model's own P(right) over the whole pool taking out what it explains.

    Starts from the mean P(right) of the pool and corrects it by what the random share says about
    its error: ``mean(right) + slope * (mean(p_pool) - mean(p_share))``. The slope is the one with
    the least variance, so that a P(right) that explains nothing costs nothing, and one that is
    wrong throughout does not mislead: the share corrects it.

    The interval is Clopper-Pearson's, as if the share were larger by what P(right) explains: a
    normal one from the residuals covers 82 % instead of 95 % with one error in 40. What is
    explained is itself uncertain, so it is held near nothing while errors are few.

    Args:
        right: ``(n,)`` of the random share, as for `accuracy_from_share`.
        p_share: ``(n,)`` P(right) stated for the same items by the same out-of-fold head.
        p_pool: ``(N,)`` P(right) stated for every item of the pool (labelled ones may be left out
            while they are few).
        level: confidence.

    Returns:
        `accuracy_from_share` with fewer than 10 items or an empty pool.

    Source:
        Cassel, Sarndal and Wretman 1976 (difference estimator); Angelopoulos et al. 2023,
        arXiv:2311.01453 (the slope with least variance, PPI++).
    """
    check_level(level)
    _check_right(right)
    check_probabilities("p_share", p_share, len(right))
    check_probabilities("p_pool", p_pool)
    count, pool = len(right), len(p_pool)
    if count < MIN_ASSISTED or not pool:
        return accuracy_from_share(right, level=level)
    hits = right.astype(np.float64)
    slope = _slope(hits, p_share, count / pool)
    value = float(np.clip(hits.mean() + slope * (p_pool.mean() - p_share.mean()), 0.0, 1.0))
    residuals = hits - slope * p_share
    explained = (PRIOR_SPREAD + count * residuals.var()) / (PRIOR_SPREAD + count * hits.var())
    worth = count / float(np.clip(explained, 0.25, 1.0))
    low, high = _interval(value, worth, level)
    return _estimate(
        value,
        low,
        high,
        level,
        f"{count} labels drawn at random and the P(right) of {pool} images",
    )


def _interval(value: float, worth: float, level: float) -> tuple[float, float]:
    """Clopper-Pearson for a number of items that need not be whole."""
    hits, tail = value * worth, (1.0 - level) / 2.0
    low = betaincinv(hits, worth - hits + 1.0, tail) if hits > 0.0 else 0.0
    high = betaincinv(hits + 1.0, worth - hits, 1.0 - tail) if hits < worth else 1.0
    return float(low), float(high)


def _slope(hits: Floats, p_share: Floats, ratio: float) -> float:
    variance = p_share.var(ddof=1)
    if variance < 1e-12:
        return 0.0
    covariance = float(((hits - hits.mean()) * (p_share - p_share.mean())).sum() / (len(hits) - 1))
    return float(np.clip(covariance / variance / (1.0 + ratio), 0.0, 1.0))


def accuracy_lure(
    right: Bools, selection: Floats, pool_size: int, *, level: float = 0.95
) -> Estimate:
    """Accuracy on the pool from items that were sampled with known probabilities.

    Undoes the bias of choosing: an item that was likely to be asked for counts less. Unbiased for
    any probabilities above 0, however wrong the model; the interval (normal, from the spread of
    the weighted items) is wide where some were tiny.

    Args:
        right: ``(M,)`` in the order of drawing, whether each was predicted right by a model that
            does not depend on these labels (out of fold nearly so).
        selection: ``(M,)`` probability with which each was drawn among the items that were left;
            ``1 / items left`` for a uniform draw.
        pool_size: N, items before the first draw.
        level: confidence.

    Returns:
        Unknown with fewer than 10 items: weights and spread would be guesses.

    Raises:
        ModelError: a probability outside (0, 1], or more items than the pool has.

    Source:
        Farquhar, Gal and Rainforth 2021, arXiv:2101.11665 (R_LURE, eq. 5).
    """
    check_level(level)
    _check_right(right)
    check_probabilities("selection", selection, len(right))
    drawn = len(right)
    if drawn > pool_size:
        raise ModelError(f"{drawn} items were drawn from a pool of {pool_size}; give its old size")
    if (selection <= 0.0).any():
        raise ModelError("selection holds a probability of 0; such an item cannot be drawn")
    if drawn < MIN_LURE:
        return Estimate.unknown(
            f"{drawn} items have logged selection probabilities; {MIN_LURE} are needed for an "
            "estimate from them."
        )
    terms = lure_weights(selection, pool_size) * right
    value = float(terms.mean())
    left = 1.0 - drawn / pool_size
    reach = float(stdtrit(drawn - 1, 0.5 + level / 2.0)) * float(
        np.sqrt(terms.var(ddof=1) * left / drawn)
    )
    value = float(np.clip(value, 0.0, 1.0))
    return _estimate(
        value,
        max(value - reach, 0.0),
        min(value + reach, 1.0),
        level,
        f"{drawn} labels drawn with known probabilities",
    )


def lure_weights(selection: Floats, pool_size: int) -> Floats:
    """``(M,)`` weights of LURE: 1 for uniform draws, less for items that were likely, mean near 1.

    Example:
        >>> lure_weights(np.array([1 / 4, 1 / 3]), 4).round(6).tolist()
        [1.0, 1.0]
    """
    drawn = len(selection)
    step = np.arange(1, drawn + 1)
    left = pool_size - step
    factor = np.divide(
        pool_size - drawn, left, out=np.zeros(drawn), where=left > 0
    )  # when the whole pool is drawn nothing is left to correct
    weights: Floats = 1.0 + factor * (1.0 / ((left + 1) * selection) - 1.0)
    return weights


def _check_right(right: Bools) -> None:
    if right.ndim != 1 or right.dtype != np.bool_:
        raise ShapeError("right", expected="(n,) of bool", got=right.shape)


def _estimate(value: float, low: float, high: float, level: float, basis: str) -> Estimate:
    return Estimate(
        value,
        low,
        high,
        f"On the whole pool {percent(value)} are right ({percent(low)} to {percent(high)} with "
        f"{100 * level:.0f} % confidence), judged by {basis}.",
    )
