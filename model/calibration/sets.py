"""Calibration of several labels an image: of each label, and of the set they make together.

What is done for one class an image that has no meaning here is left out by rule, see
docs/adr/several-labels-an-image.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model.calibration.choose import AUTO, MIN_DRAWN, SIMPLEST, USUAL
from model.calibration.doubt import Doubt, fit_doubt
from model.calibration.families import CALIBRATORS
from model.calibration.temperature import Loss, fit_temperature
from model.calibration.top import fit_line
from model.errors import ModelError, ShapeError
from model.uncertainty.sets import TINY, log_p_set, most_probable_set

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# What stands for a calibrator that scales classes against each other, or asks for one top class.
INSTEAD = {"vector": "temperature", "isotonic": "selection"}
SURE_LOG_ODDS = 14.0


@dataclass(frozen=True)
class PublishedSets:
    """What turns yes-or-no probabilities into what is published; see `choose.Published`.

    ``logit P(set right) = slope * logit(product of the calibrated answers) + shift``, so that
    labels that come together or exclude each other are allowed for, with a further shift where no
    label is published: a head that doubts which of several it sees says no to each of them.

    Attributes:
        name: of `CALIBRATORS`.
        sharpness: ``(C,)`` what the log odds of each label are multiplied by.
        line: ``(3,)`` slope, shift, and what is added to it for the empty set.
        doubt: how much of its P(right) is believed.
        at_least_one: the empty set is no answer.
        facts: JSON-able: how the choice was made.
    """

    name: str
    sharpness: F64
    line: F64
    doubt: Doubt
    at_least_one: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    multi_label = True

    def probs(self, raw: F64) -> F64:
        """``(N, C)`` calibrated probability of each label."""
        odds = np.log(np.maximum(raw, TINY)) - np.log(np.maximum(1.0 - raw, TINY))
        result: F64 = expit(self.sharpness * odds)
        return result

    def decide(self, probs: F64) -> Bools:
        """``(N, C)`` the set to publish for calibrated probabilities."""
        return most_probable_set(probs, at_least_one=self.at_least_one)

    def p_right(self, raw: F64) -> F64:
        """``(N,)`` in (0, 1): that the whole set is right."""
        probs = self.probs(raw)
        odds = _set_odds(probs, at_least_one=self.at_least_one)
        slope, shift, when_empty = self.line
        shifts = shift + np.where(self.decide(probs).any(axis=1), 0.0, when_empty)
        return self.doubt.apply(expit(slope * odds + shifts))

    def arrays(self) -> dict[str, F64]:
        """Everything but the name as plain arrays; see `restore`."""
        return {
            "sharpness": self.sharpness,
            "line": self.line,
            "at_least_one": np.array([float(self.at_least_one)]),
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
        at_least_one = bool(arrays["at_least_one"][0] > 0.5)
        doubt = Doubt(trust, base)
        return cls(name, arrays["sharpness"], arrays["line"], doubt, at_least_one)


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
    2. With ``selection``, the rule's choice once the random share counts for 5 labels or more, and
       ``platt`` the log odds of the whole set get a slope and shifts, see `top.fit_line`.
    3. `fit_doubt` narrows the result while labels are few.

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
    line = np.array([1.0, 0.0, 0.0])
    simple = PublishedSets(name, sharpness, line, Doubt(1.0, 0.0), at_least_one)
    calibrated = simple.probs(probs)
    said = simple.decide(calibrated)
    right = (said == labels).all(axis=1)
    if name in ("platt", "selection") and weights.sum() > 0.0:
        odds = _set_odds(calibrated, at_least_one=at_least_one)
        chosen = ~random if name == "selection" and random.any() else np.zeros(count, bool)
        empty: Bools = np.logical_not(said.any(axis=1))
        line = np.array([*fit_line(odds, right, chosen, weights, empty)])
    doubt = fit_doubt(right, weights, classes, guess=0.5**classes)
    facts = {"calibrator": name, "calibrator_scores": {}}
    return PublishedSets(name, sharpness, line, doubt, at_least_one, facts)


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


def _set_odds(probs: F64, *, at_least_one: bool) -> F64:
    """``(N,)`` log odds that the most probable set is right, were the answers independent."""
    chosen = most_probable_set(probs, at_least_one=at_least_one)
    log_p = log_p_set(probs, chosen, at_least_one=at_least_one)
    rest = np.maximum(-np.expm1(log_p), TINY)
    odds: F64 = np.clip(log_p - np.log(rest), -SURE_LOG_ODDS, SURE_LOG_ODDS)
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
