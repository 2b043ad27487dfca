"""Calibrators of the largest probability alone: Platt scaling, with selection or not; isotonic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from model.calibration.base import Calibrator, OutOfFold, logit, with_top
from model.calibration.doubt import lift_to
from model.calibration.temperature import fit_temperature, refit_temperature, soften

F64 = NDArray[np.float64]

PRIOR_LABELS = 1.0
TILT = 1e-3


@dataclass(frozen=True)
class LinePrior:
    """What is expected of slope, shift and handicap before anybody has looked at who was right.

    Attributes:
        slope_sd: standard deviation about 1.
        shift_sd: about 0.
        handicap_sd: about ``share`` of the distance between the mean log odds of drawn and chosen
            labels, times ``n / (n + labels)`` where the drawn ones count for n; at most `most`.
            Both times the temperature, for labels that have one: see `Platt`.
        share: see there.
        labels: see there.
        most: see there.
    """

    slope_sd: float
    shift_sd: float
    handicap_sd: float
    share: float
    labels: float
    most: float


ONE_CLASS = LinePrior(slope_sd=0.3, shift_sd=0.1, handicap_sd=0.3, share=1.2, labels=30.0, most=1.0)
SETS = LinePrior(slope_sd=0.2, shift_sd=0.7, handicap_sd=0.5, share=0.5, labels=20.0, most=1.0)


@dataclass(frozen=True)
class Logistic:
    """``logit P(right) = slope * logit(largest softened probability) + shift``."""

    temperature: float
    slope: float
    shift: float

    def probs(self, raw: F64) -> F64:
        """See `Calibrator.probs`; the order of the classes stays."""
        softened = soften(raw, self.temperature)
        return with_top(softened, self._p(softened))

    def p_right(self, raw: F64) -> F64:
        """See `Calibrator.p_right`."""
        return self._p(soften(raw, self.temperature))

    def arrays(self) -> dict[str, F64]:
        """See `Calibrator.arrays`."""
        return {"logistic": np.array([self.temperature, self.slope, self.shift])}

    def _p(self, softened: F64) -> F64:
        if softened.shape[1] == 1:
            return np.ones(len(softened))
        result: F64 = expit(self.slope * logit(softened.max(axis=1)) + self.shift)
        return result


@dataclass(frozen=True)
class Platt:
    """Slope and shift of the log odds of the largest probability, after temperature.

    With `selection`, labels that acquisition chose get a handicap of their own: ``slope * x + shift
    - handicap`` for them, ``slope * x + shift`` for the random share and for the pool. Asked for
    because an earlier version was in doubt, they are wrong more often than pool items of the same
    probability (out of fold 0.46 right where the pool has 0.70), and reweighting them by their
    probability does not mend that. So they say how P(right) rises with the probability, and the
    random share says at which height, as far as it is large enough. The handicap starts from the
    distance between the mean log odds of the two groups as the head states them, that is times the
    temperature: 1.2 of it times n / (n + 30) for n drawn labels, since acquisition asks for typical
    images first, and for ever more doubtful ones later. So a head that is too sure is expected to
    owe more of its errors to the choice. The priors, `ONE_CLASS`, are narrow: 20 labels drawn by
    chance leave the height open by 0.7, while over data sets and numbers of labels it varies by 0.2
    to 0.3 about what is expected. The temperature is fitted again with the handicap that was found,
    times n / (n + 15), since the first makes up for errors that only chosen labels have: most of
    all with an overfitted head, which it leaves too modest.

    What is drawn stands for the whole pool, what is published is about the rest that nobody has
    labelled, and the doubtful ones are no longer in it: see `lift_of_rest`.

    Without a random share, or with nothing but one, there is no handicap to tell.

    Source:
        Platt 1999, Probabilistic outputs for support vector machines. The handicap is ours.
    """

    selection: bool = False

    def fit(self, data: OutOfFold) -> Calibrator:
        """See `CalibratorFamily.fit`."""
        temperature = fit_temperature(data.probs, data.labels, data.weights)
        if data.probs.shape[1] == 1 or data.weights.sum() <= 0.0:
            return Logistic(temperature, 1.0, 0.0)
        prior = replace(
            ONE_CLASS, share=ONE_CLASS.share * temperature, most=ONE_CLASS.most * temperature
        )
        right = data.probs.argmax(axis=1) == data.labels
        chosen = ~data.random & (self.selection and data.random.any())
        x = _log_odds(data.probs, temperature)
        slope, shift, handicap = fit_line(x, right, chosen, data.weights, prior)
        if not chosen.any():
            return Logistic(temperature, slope, shift)
        known = max(handicap, 0.0) * _known(data.weights[~chosen], ONE_CLASS.labels / 2.0)
        temperature = refit_temperature(
            data.probs,
            data.labels,
            data.weights,
            lowered=np.where(chosen, known, 0.0),
            near=temperature,
        )
        x = _log_odds(data.probs, temperature)
        slope, shift, handicap = fit_line(x, right, chosen, data.weights, prior)
        if len(data.rest.probs):
            rest = _log_odds(data.rest.probs, temperature)
            shift += lift_of_rest(
                slope * x[chosen] + shift, slope * rest + shift, data.rest.count, handicap
            )
        return Logistic(temperature, slope, shift)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """See `CalibratorFamily.restore`."""
        return Logistic(*(float(value) for value in arrays["logistic"]))


def fit_line(
    x: F64,
    right: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    weights: F64,
    prior: LinePrior,
) -> tuple[float, float, float]:
    """Slope and shift of the log odds of being right, and the handicap of what was chosen.

    Args:
        x: ``(N,)`` log odds.
        right: ``(N,)``.
        chosen: ``(N,)`` what gets a handicap.
        weights: ``(N,)``, not all 0.
        prior: of the three.
    """
    hits = right.astype(np.float64)
    design = np.column_stack([x, np.ones(len(x)), -chosen.astype(np.float64)])
    mean = np.array([1.0, 0.0, _handicap(x, chosen, weights, prior)])
    sd = np.array([prior.slope_sd, prior.shift_sd, prior.handicap_sd])

    def loss(theta: F64) -> tuple[float, F64]:
        z, pull = design @ theta, (theta - mean) / sd
        value = weights @ (np.logaddexp(0.0, z) - hits * z) + 0.5 * pull @ pull
        return float(value), design.T @ (weights * (expit(z) - hits)) + pull / sd

    slope, shift, handicap = minimize(loss, mean, jac=True, method="L-BFGS-B").x
    return max(float(slope), 0.0), float(shift), float(handicap)


def _handicap(x: F64, chosen: NDArray[np.bool_], weights: F64, prior: LinePrior) -> float:
    """What to expect of the handicap before looking at who was right."""
    drawn_mass, chosen_mass = float(weights[~chosen].sum()), float(weights[chosen].sum())
    if drawn_mass <= 0.0 or chosen_mass <= 0.0:
        return 0.0
    distance = np.average(x[~chosen], weights=weights[~chosen]) - np.average(
        x[chosen], weights=weights[chosen]
    )
    known = _known(weights[~chosen], prior.labels)
    return min(prior.share * known * max(float(distance), 0.0), prior.most)


def _log_odds(probs: F64, temperature: float) -> F64:
    """``(N,)`` of the largest softened probability."""
    return logit(soften(probs, temperature).max(axis=1))


def _known(drawn_weights: F64, labels: float) -> float:
    """How far drawn labels that count for n can be believed: ``n / (n + labels)``."""
    count = float(drawn_weights.sum())
    return count / (count + labels)


def lift_of_rest(chosen: F64, rest: F64, count: float, handicap: float) -> float:
    """By how much the rest of a pool is easier than the pool was, in log odds.

    The chosen and the rest are the whole, so
    ``sum P(whole) = sum P(chosen, with their handicap) + sum P(rest, lifted)``. Of a large pool
    next to nothing is chosen and the lift is 0; of 1,400 images without 320 it is about 0.2.

    Args:
        chosen: ``(N,)`` log odds of being right of what was chosen, were it like the whole.
        rest: ``(M,)`` the same of a sample of the rest.
        count: how many images the sample stands for.
        handicap: of what was chosen, in log odds.

    Returns:
        -3 to 3.

    Example:
        >>> round(lift_of_rest(np.zeros(100), np.zeros(10), 100.0, 0.5), 3)
        0.5
        >>> round(lift_of_rest(np.zeros(100), np.zeros(10), 100_000.0, 0.5), 3)
        0.0
    """
    owed = float((expit(chosen) - expit(chosen - handicap)).sum()) / count
    goal = float(expit(rest).mean()) + owed
    return lift_to(rest, goal)


@dataclass(frozen=True)
class Steps:
    """P(right) by straight lines between points of the largest probability."""

    at: F64
    value: F64

    def probs(self, raw: F64) -> F64:
        """See `Calibrator.probs`; the order of the classes stays."""
        return with_top(raw, self.p_right(raw))

    def p_right(self, raw: F64) -> F64:
        """See `Calibrator.p_right`."""
        return np.interp(raw.max(axis=1), self.at, self.value) if len(raw) else np.zeros(0)

    def arrays(self) -> dict[str, F64]:
        """See `Calibrator.arrays`."""
        return {"at": self.at, "value": self.value}


class Isotonic:
    """Any rising map of the largest probability: for many labels, and curves that no line fits.

    Each step is drawn towards its own mean probability as if one label spoke for that, so that a
    step without an error does not promise certainty; steps are tilted by a thousandth, so that
    items which the head tells apart do not tie. Actively chosen labels are left
    out where 200 random ones or more count, since the map has no way to allow for the choice.

    Source:
        Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass
        probability estimates.
    """

    def fit(self, data: OutOfFold) -> Calibrator:
        """See `CalibratorFamily.fit`."""
        weights = np.where(data.random, data.weights, 0.0)
        if weights.sum() < 200.0:
            weights = data.weights
        kept = np.flatnonzero(weights > 0.0)
        if not len(kept):
            return Steps(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
        x = data.probs[kept].max(axis=1)
        right = (data.probs[kept].argmax(axis=1) == data.labels[kept]).astype(np.float64)
        weights = weights[kept]
        x, group = np.unique(x, return_inverse=True)  # ties are one point, whatever their order
        hits = np.bincount(group, weights=weights * right)
        weights = np.bincount(group, weights=weights)
        right = hits / weights
        blocks = isotonic_regression(right, weights=weights).blocks
        starts, ends = blocks[:-1], blocks[1:] - 1
        mass = np.add.reduceat(weights, starts)
        centre = np.add.reduceat(weights * x, starts) / mass
        hits = np.add.reduceat(weights * right, starts)
        value = (hits + PRIOR_LABELS * centre) / (mass + PRIOR_LABELS)
        at = np.column_stack([x[starts], x[ends]])
        tilted = value[:, None] + TILT * (at - centre[:, None])
        at, first = np.unique(at.ravel(), return_index=True)
        rising = np.maximum.accumulate(np.clip(tilted.ravel()[first], 0.0, 1.0))
        return Steps(at, rising)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """See `CalibratorFamily.restore`."""
        return Steps(arrays["at"], arrays["value"])
