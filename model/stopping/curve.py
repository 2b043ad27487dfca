"""How accuracy grows with labels: a curve through the versions so far, and what it says of more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError, ShapeError
from model.stopping.base import Estimate, Floats, check_level, check_probabilities, percent

MIN_VERSIONS = 4
MIN_SPAN = 2.0
CORRELATION = 0.5
FLOOR_SE = 0.005
WIDER = 2.0
FAR = 10.0

_DRAWS = 4000
_POWERS = np.linspace(0.1, 1.5, 29)
_LIMITS = 1.0 - 0.6 * np.linspace(0.0, 1.0, 40) ** 2
_LOG_ERRORS = np.linspace(np.log(1e-3), 0.0, 61)


@dataclass(frozen=True)
class LearningCurve:
    """Draws from what the versions so far leave possible; made by `fit_curve`.

    Each draw is a curve ``accuracy(n) = limit - rise * n ** -power``.

    Attributes:
        labels: labels of the last version.
        limit: ``(S,)`` accuracy with labels without end.
        rise: ``(S,)``.
        power: ``(S,)``.
        why_not: the reason when the versions do not suffice, and then there are no draws.
    """

    labels: int
    limit: Floats
    rise: Floats
    power: Floats
    why_not: str = ""

    def at(self, labels: float) -> Floats:
        """``(S,)`` accuracy of every draw at a number of labels, 0 to 1."""
        return np.clip(self.limit - self.rise * float(labels) ** -self.power, 0.0, 1.0)

    def gain(self, more: int = 100, *, level: float = 0.9) -> Estimate:
        """How much accuracy the next labels bring: the median, and what is likely.

        Raises:
            ModelError: `more` is below 1.
        """
        check_level(level)
        if more < 1:
            raise ModelError(f"more is {more}; ask for the gain of at least 1 label")
        if self.why_not:
            return Estimate.unknown(self.why_not)
        low, value, high = _quantiles(self.at(self.labels + more) - self.at(self.labels), level)
        return Estimate(
            value,
            low,
            high,
            f"The next {more} labels are worth about {100 * value:.1f} points of accuracy "
            f"({100 * low:.1f} to {100 * high:.1f}).",
        )

    def labels_needed(
        self, target: float, *, level: float = 0.9, most: int | None = None
    ) -> Estimate:
        """Labels still needed until the accuracy reaches `target`.

        Args:
            target: accuracy wanted, between 0 and 1.
            level: confidence of the interval.
            most: items left to label; without it, 10 times the labels so far: no curve is to be
                believed further.

        Returns:
            The median over the draws. Unknown when in most draws `most` labels do not reach the
            target; `high` is None when in many they do not.

        Raises:
            ModelError: `target` is not an accuracy, or `most` is negative.
        """
        check_level(level)
        if not 0.0 < target < 1.0:
            raise ModelError(f"target is {target}; give an accuracy between 0 and 1, such as 0.95")
        if most is not None and most < 0:
            raise ModelError(f"most is {most}; it counts the items left to label")
        if self.why_not:
            return Estimate.unknown(self.why_not)
        reach = FAR * self.labels if most is None else most
        needed = self._needed(target)
        low, value, high = _quantiles(np.minimum(needed, reach + 1.0), level)
        goal = percent(target)
        if value > reach:
            return Estimate.unknown(
                f"{goal} is probably out of reach with {int(reach)} more labels; the curve so "
                f"far leads to {percent(float(np.median(self.at(self.labels + reach))))} there."
            )
        open_end = high > reach
        end = "no end in sight" if open_end else f"{int(np.ceil(high))}"
        return Estimate(
            float(np.ceil(value)),
            float(np.floor(low)),
            None if open_end else float(np.ceil(high)),
            f"{goal} needs about {int(np.ceil(value))} more labels ({int(low)} to {end})."
            if value > 0.0
            else f"{goal} is probably reached already.",
        )

    def _needed(self, target: float) -> Floats:
        room = self.limit - target
        with np.errstate(over="ignore"):
            total = (self.rise / np.where(room > 0.0, room, np.nan)) ** (1.0 / self.power)
        return np.where(room > 0.0, np.maximum(total - self.labels, 0.0), np.inf)


def fit_curve(
    labels: NDArray[np.int64],
    accuracy: Floats,
    se: Floats,
    *,
    correlation: float = CORRELATION,
    seed: int = 0,
) -> LearningCurve:
    """Fit a saturating power law to the versions so far, with all that they leave possible.

    The posterior over a grid (limit, power, error at the last version), flat in the power, in the
    logarithm of the error and in the root of what the limit leaves; drawn from, not maximised:
    with few versions many curves fit, and they differ most where we extrapolate. Variances count
    twice, since no accuracy is an exact power law: taken as they are, 90 % intervals of the gain
    held the true one in 73 to 98 % of simulated histories, so in 88 to 100 %.

    Args:
        labels: ``(V,)`` labels each version was fitted on, in any order.
        accuracy: ``(V,)`` accuracy on the pool, from `model.stopping` or a test set.
        se: ``(V,)`` its standard error. Values below 0.005 count as that: no curve is exact.
        correlation: of the errors of two versions, judged in part by the same items; the better
            known one's variance times this is their covariance. 0 for independent judgements.
        seed: of the draws.

    Returns:
        A curve that answers with a reason, not with numbers, when there are fewer than 4 versions
        or the largest has not twice the labels of the smallest.

    Raises:
        ShapeError: lengths differ.
        ModelError: values that are no accuracies, labels below 1, a negative or infinite error.

    Source:
        The power law with a limit: Hestness et al. 2017, arXiv:1712.00409; Viering and Loog 2021,
        arXiv:2103.10948.
    """
    _check(labels, accuracy, se, correlation)
    last = int(labels.max()) if len(labels) else 0
    why = _why_not(labels)
    if why:
        nothing = np.zeros(0)
        return LearningCurve(last, nothing, nothing, nothing, why)
    limit, power, log_error = (
        axis.ravel() for axis in np.meshgrid(_LIMITS, _POWERS, _LOG_ERRORS, indexing="ij")
    )
    rise_at_last = np.exp(log_error) - (1.0 - limit)
    possible = rise_at_last >= 0.0
    limit, power, rise_at_last = limit[possible], power[possible], rise_at_last[possible]
    ratio = labels.astype(np.float64) / last
    factor = ratio[:, None] ** -_POWERS
    column = np.searchsorted(_POWERS, power)
    curve = limit[:, None] - rise_at_last[:, None] * factor[:, column].T
    variance = WIDER * np.maximum(se, FLOOR_SE) ** 2
    covariance = correlation * np.minimum.outer(variance, variance)
    np.fill_diagonal(covariance, variance)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (accuracy - curve).T)
    log_likelihood = -0.5 * (whitened**2).sum(axis=0)
    weights = np.exp(log_likelihood - log_likelihood.max())
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(weights), _DRAWS, p=weights / weights.sum())
    return LearningCurve(
        last, limit[drawn], rise_at_last[drawn] * float(last) ** power[drawn], power[drawn]
    )


def _why_not(labels: NDArray[np.int64]) -> str:
    distinct = len(np.unique(labels))
    if distinct < MIN_VERSIONS:
        return (
            f"To see how accuracy grows it must be known at {MIN_VERSIONS} different numbers of "
            f"labels; so far: {distinct}."
        )
    if labels.max() < MIN_SPAN * labels.min():
        return (
            f"Accuracy was measured from {labels.min()} to {labels.max()} labels, too close "
            f"together to see how it grows; go on to {int(np.ceil(MIN_SPAN * labels.min()))}."
        )
    return ""


def _quantiles(values: Floats, level: float) -> tuple[float, float, float]:
    tail = (1.0 - level) / 2.0
    low, middle, high = np.quantile(values, [tail, 0.5, 1.0 - tail], method="nearest")
    return float(low), float(middle), float(high)


def _check(labels: NDArray[np.int64], accuracy: Floats, se: Floats, correlation: float) -> None:
    if labels.ndim != 1:
        raise ShapeError("labels", expected="(V,)", got=labels.shape)
    check_probabilities("accuracy", accuracy, len(labels))
    if se.shape != labels.shape:
        raise ShapeError("se", expected=str(labels.shape), got=se.shape)
    if not np.isfinite(se).all() or (se < 0.0).any():
        raise ModelError("se holds a standard error that is negative or not finite")
    if len(labels) and labels.min() < 1:
        raise ModelError(f"a version has {labels.min()} labels; each must have at least 1")
    if not 0.0 <= correlation < 1.0:
        raise ModelError(f"correlation is {correlation}; it must be at least 0 and below 1")
