"""Calibration of several labels an image: of each label, and of the set they make together.

What is done for one class an image that has no meaning here is left out by rule, see
docs/adr/several-labels-an-image.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from model.calibration.choose import AUTO, MIN_DRAWN, SIMPLEST, USUAL
from model.calibration.doubt import DOUBT_LABELS_SETS, Doubt, fit_doubt
from model.calibration.families import CALIBRATORS
from model.calibration.temperature import Loss, fit_temperature
from model.calibration.top import SETS, fit_line
from model.errors import ModelError, ShapeError
from model.uncertainty.sets import TINY, log_p_none, log_p_set, most_probable_set, set_margin

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# What stands for a calibrator that scales classes against each other, or asks for one top class.
INSTEAD = {"vector": "temperature", "isotonic": "selection"}
SURE_LOG_ODDS = 14.0
EMPTY_MEAN, EMPTY_SD = np.array([1.0, 0.0, 0.0]), np.array([1.0, 2.0, 2.0])


@dataclass(frozen=True)
class PublishedSets:
    """What turns yes-or-no probabilities into what is published; see `choose.Published`.

    A head that doubts which of several labels it sees says no to each of them. So the probability
    of the empty set is that of independent answers with slope and shift of its log odds, and all
    other sets share the rest as independent answers have it. Then
    ``logit P(set right) = slope * logit(P of the set) + shift``, which allows for labels that come
    together or exclude each other.

    Attributes:
        name: of `CALIBRATORS`.
        sharpness: ``(C,)`` what the log odds of each label are multiplied by.
        line: ``(2,)`` slope and shift.
        doubt: how much of its P(right) is believed.
        empty: ``(2,)`` slope and shift of the empty set; a shift of minus infinity where it is no
            answer.
        facts: JSON-able: how the choice was made.
    """

    name: str
    sharpness: F64
    line: F64
    doubt: Doubt
    empty: F64
    facts: Mapping[str, Any] = field(default_factory=dict)

    multi_label = True

    def probs(self, raw: F64) -> F64:
        """``(N, C)`` calibrated probability of each label."""
        odds = np.log(np.maximum(raw, TINY)) - np.log(np.maximum(1.0 - raw, TINY))
        result: F64 = expit(self.sharpness * odds)
        return result

    def decide(self, probs: F64) -> Bools:
        """``(N, C)`` the set to publish for calibrated probabilities."""
        return most_probable_set(probs, empty=self._weight(probs))

    def margin(self, probs: F64) -> F64:
        """``(N,)`` probability of the set to publish less that of the next."""
        return set_margin(probs, empty=self._weight(probs))

    def p_right(self, raw: F64) -> F64:
        """``(N,)`` in (0, 1): that the whole set is right."""
        slope, shift = self.line
        return self.doubt.apply(expit(slope * self.odds(self.probs(raw)) + shift))

    def odds(self, probs: F64) -> F64:
        """``(N,)`` log odds that the set to publish is right, before `line`."""
        log_p = log_p_set(probs, self.decide(probs), empty=self._weight(probs))
        return np.clip(_log_odds(log_p), -SURE_LOG_ODDS, SURE_LOG_ODDS)

    def _weight(self, probs: F64) -> F64:
        """``(N,)`` logarithm of what the probability of the empty set is multiplied by."""
        slope, shift = self.empty
        weight: F64 = (slope - 1.0) * _log_odds(log_p_none(probs)) + shift
        return weight

    def arrays(self) -> dict[str, F64]:
        """Everything but the name as plain arrays; see `restore`."""
        return {
            "sharpness": self.sharpness,
            "line": self.line,
            "empty": self.empty,
            "doubt": np.array([self.doubt.trust, self.doubt.base]),
        }

    @classmethod
    def restore(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> PublishedSets:
        """Rebuild from `name` and `arrays`.

        Raises:
            UnknownNameError: no calibrator has that name.
        """
        CALIBRATORS[name]
        trust, base = (float(value) for value in arrays["doubt"])
        doubt = Doubt(trust, base)
        return cls(name, arrays["sharpness"], arrays["line"], doubt, arrays["empty"])


def calibrate_sets(
    probs: F64,
    labels: Bools,
    random: Bools,
    *,
    name: str = AUTO,
    at_least_one: bool = False,
) -> PublishedSets:
    """Fit what the labels at hand allow.

    1. One temperature for all answers to questions that have a yes and a no, by `fit_temperature`.
       A label that is in no image, or in all, keeps the probability that the head's rule gives it.
    2. Slope and shift of the empty set, see `fit_empty`.
    3. With ``selection``, the rule's choice once the random share counts for 5 labels or more, and
       ``platt`` the log odds of the whole set get a slope and a shift, see `top.fit_line`.
    4. `fit_doubt` narrows the result while labels are few.

    Args:
        probs: ``(N, C)`` probabilities by a head not fitted on each image; N may be 0.
        labels: ``(N, C)`` the truth.
        random: ``(N,)`` whether the image was drawn uniformly from the pool.
        name: "auto" for the rule, or one of `CALIBRATORS`; for ``vector`` and ``isotonic`` see
            `INSTEAD`.
        at_least_one: the empty set is no answer.

    Raises:
        ShapeError: arrays that do not belong together, or no label.
        ModelError: probabilities that are none.
        UnknownNameError: no calibrator has that name.
    """
    _check(probs, labels, random)
    count, classes = probs.shape
    believed = answer_weights(labels)
    weights = believed.min(axis=1, initial=1.0)
    drawn = float(weights[random].sum())
    if name == AUTO:
        name = USUAL if drawn >= MIN_DRAWN else SIMPLEST
    CALIBRATORS[name]
    name = INSTEAD.get(name, name)
    varied = labels.any(axis=0) & ~labels.all(axis=0) if count else np.zeros(classes, bool)
    sharpness = np.ones(classes)
    if name != "none":
        answers = np.stack([1.0 - probs[:, varied], probs[:, varied]], axis=2).reshape(-1, 2)
        truth = labels[:, varied].ravel().astype(np.int64)
        loss: Loss = "likelihood" if name == "temperature-likelihood" else "brier"
        temperature = fit_temperature(answers, truth, believed[:, varied].ravel(), loss=loss)
        sharpness[varied] = 1.0 / temperature
    line = empty = np.array([1.0, 0.0])
    simple = PublishedSets(name, sharpness, line, Doubt(1.0, 0.0), empty)
    calibrated = simple.probs(probs)
    if at_least_one:
        empty = np.array([1.0, -np.inf])
    elif name != "none":
        empty = fit_empty(calibrated, labels, weights, ~random)
    simple = replace(simple, empty=empty)
    right = (simple.decide(calibrated) == labels).all(axis=1)
    if name in ("platt", "selection") and weights.sum() > 0.0:
        chosen = ~random if name == "selection" and random.any() else np.zeros(count, bool)
        slope, shift, _ = fit_line(simple.odds(calibrated), right, chosen, weights, SETS)
        line = np.array([slope, shift])
    doubt = fit_doubt(right, weights, classes, guess=0.5**classes, labels_a_class=DOUBT_LABELS_SETS)
    facts = {"calibrator": name, "calibrator_scores": {}}
    return PublishedSets(name, sharpness, line, doubt, empty, facts)


def fit_empty(probs: F64, labels: Bools, weights: F64, chosen: Bools) -> F64:
    """``(2,)`` slope and shift of the log odds that an image has no label, by likelihood.

    With priors N(1, 1) and N(0, 2), which are wide: in most projects images without a label are
    either common or ruled out, and few labels tell which. Acquisition may avoid such images or
    seek them, so what it chose gets a handicap N(0, 2): only the random share tells the height for
    certain.

    Args:
        probs: ``(N, C)`` calibrated, by a head not fitted on each image.
        labels: ``(N, C)``.
        weights: ``(N,)``.
        chosen: ``(N,)`` by acquisition, not drawn.

    Returns:
        1 and 0 without labels: independent answers.
    """
    odds = np.clip(_log_odds(log_p_none(probs)), -SURE_LOG_ODDS, SURE_LOG_ODDS)
    design = np.column_stack([odds, np.ones(len(odds)), -chosen.astype(np.float64)])
    is_empty = 1.0 - labels.any(axis=1)

    def loss(theta: F64) -> tuple[float, F64]:
        z, pull = design @ theta, (theta - EMPTY_MEAN) / EMPTY_SD
        value = weights @ (np.logaddexp(0.0, z) - is_empty * z) + 0.5 * pull @ pull
        return float(value), design.T @ (weights * (expit(z) - is_empty)) + pull / EMPTY_SD

    rising = [(0.0, None), (None, None), (None, None)]
    found: F64 = minimize(loss, EMPTY_MEAN, jac=True, method="L-BFGS-B", bounds=rising).x
    return found[:2]


def answer_weights(labels: Bools) -> F64:
    """``(N, C)`` how much each out-of-fold answer says, as `temperature.fold_weights`.

    Example:
        >>> answer_weights(np.array([[True], [False], [False]])).round(4).ravel().tolist()
        [0.0, 0.0625, 0.0625]
    """
    yes = labels.sum(axis=0)
    counts = np.where(labels, yes, len(labels) - yes).astype(np.float64)
    weights: F64 = ((counts - 1.0) / np.maximum(counts, 1.0)) ** 4
    return weights


def _log_odds(log_p: F64) -> F64:
    odds: F64 = log_p - np.log(np.maximum(-np.expm1(log_p), TINY))
    return odds


def _check(probs: F64, labels: Bools, random: Bools) -> None:
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs.shape)
    if labels.shape != probs.shape:
        raise ShapeError("labels", expected=str(probs.shape), got=labels.shape)
    if random.shape != probs.shape[:1]:
        raise ShapeError("random", expected=f"({len(probs)},)", got=random.shape)
    if not np.isfinite(probs).all() or (probs < 0.0).any() or (probs > 1.0).any():
        raise ModelError("probs holds values that are no probabilities; all must be in [0, 1]")
