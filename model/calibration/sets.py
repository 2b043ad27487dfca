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
from scipy.optimize import minimize_scalar
from scipy.special import expit

from model.calibration.choose import AUTO, MIN_DRAWN, SIMPLEST, USUAL
from model.calibration.doubt import Doubt, fit_doubt
from model.calibration.families import CALIBRATORS
from model.calibration.temperature import Loss, fit_temperature
from model.calibration.top import fit_line
from model.errors import ModelError, ShapeError
from model.uncertainty.sets import TINY, log_p_set, most_probable_set, set_margin

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# What stands for a calibrator that scales classes against each other, or asks for one top class.
INSTEAD = {"vector": "temperature", "isotonic": "selection"}
SURE_LOG_ODDS = 14.0
EMPTY_SD = 2.0
EMPTY_MOST = 12.0


@dataclass(frozen=True)
class PublishedSets:
    """What turns yes-or-no probabilities into what is published; see `choose.Published`.

    A head that doubts which of several labels it sees says no to each of them. So the empty set
    counts as much more or less than independent answers make it as images without any label are
    more or less frequent; all other sets as independent answers have it. Then
    ``logit P(set right) = slope * logit(P of the set) + shift``, which allows for labels that come
    together or exclude each other.

    Attributes:
        name: of `CALIBRATORS`.
        sharpness: ``(C,)`` what the log odds of each label are multiplied by.
        line: ``(2,)`` slope and shift.
        doubt: how much of its P(right) is believed.
        empty: logarithm of what the probability of the empty set is multiplied by; minus infinity
            where it is no answer.
        facts: JSON-able: how the choice was made.
    """

    name: str
    sharpness: F64
    line: F64
    doubt: Doubt
    empty: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    multi_label = True

    def probs(self, raw: F64) -> F64:
        """``(N, C)`` calibrated probability of each label."""
        odds = np.log(np.maximum(raw, TINY)) - np.log(np.maximum(1.0 - raw, TINY))
        result: F64 = expit(self.sharpness * odds)
        return result

    def decide(self, probs: F64) -> Bools:
        """``(N, C)`` the set to publish for calibrated probabilities."""
        return most_probable_set(probs, empty=self.empty)

    def margin(self, probs: F64) -> F64:
        """``(N,)`` probability of the set to publish less that of the next."""
        return set_margin(probs, empty=self.empty)

    def p_right(self, raw: F64) -> F64:
        """``(N,)`` in (0, 1): that the whole set is right."""
        slope, shift = self.line
        return self.doubt.apply(expit(slope * self.odds(self.probs(raw)) + shift))

    def odds(self, probs: F64) -> F64:
        """``(N,)`` log odds that the set to publish is right, before `line`."""
        log_p = log_p_set(probs, self.decide(probs), empty=self.empty)
        return np.clip(_log_odds(log_p), -SURE_LOG_ODDS, SURE_LOG_ODDS)

    def arrays(self) -> dict[str, F64]:
        """Everything but the name as plain arrays; see `restore`."""
        return {
            "sharpness": self.sharpness,
            "line": self.line,
            "empty": np.array([self.empty]),
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
        doubt, empty = Doubt(trust, base), float(arrays["empty"][0])
        return cls(name, arrays["sharpness"], arrays["line"], doubt, empty)


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
    2. The weight of the empty set, see `fit_empty`.
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
    line = np.array([1.0, 0.0])
    simple = PublishedSets(name, sharpness, line, Doubt(1.0, 0.0))
    calibrated = simple.probs(probs)
    empty = -np.inf if at_least_one else fit_empty(calibrated, labels, weights)
    simple = replace(simple, empty=empty)
    right = (simple.decide(calibrated) == labels).all(axis=1)
    if name in ("platt", "selection") and weights.sum() > 0.0:
        chosen = ~random if name == "selection" and random.any() else np.zeros(count, bool)
        line = np.array([*fit_line(simple.odds(calibrated), right, chosen, weights)])
    doubt = fit_doubt(right, weights, classes, guess=0.5**classes)
    facts = {"calibrator": name, "calibrator_scores": {}, "empty_weight": float(np.exp(empty))}
    return PublishedSets(name, sharpness, line, doubt, empty, facts)


def fit_empty(probs: F64, labels: Bools, weights: F64) -> float:
    """Logarithm of the weight of the empty set with which as many images have no label as do.

    The greatest likelihood of which images have none, with a prior N(0, 2): most projects either
    have images without a label or rule them out, and few labels tell which.

    Args:
        probs: ``(N, C)`` calibrated, by a head not fitted on each image.
        labels: ``(N, C)``.
        weights: ``(N,)``.

    Returns:
        0 without labels: independent answers.
    """
    none = np.log(np.maximum(1.0 - probs, TINY)).sum(axis=1)
    odds = _log_odds(none)
    is_empty = 1.0 - labels.any(axis=1)

    def loss(empty: float) -> float:
        z = odds + empty
        return float(
            weights @ (np.logaddexp(0.0, z) - is_empty * z) + 0.5 * (empty / EMPTY_SD) ** 2
        )

    if weights.sum() <= 0.0:
        return 0.0
    found = minimize_scalar(loss, bounds=(-EMPTY_MOST, EMPTY_MOST), method="bounded")
    return float(found.x)


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
