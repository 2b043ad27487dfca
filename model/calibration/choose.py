"""The rule that picks the calibrator for the labels at hand (docs/adr/calibration-rule.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.agreement import agreement_lift
from model.calibration.base import Calibrator, CalibratorFamily, OutOfFold
from model.calibration.doubt import Doubt, fit_doubt, unseen_lift
from model.calibration.families import CALIBRATORS
from model.uncertainty.measures import margin

F64 = NDArray[np.float64]

AUTO = "auto"
SIMPLEST = "temperature"
USUAL = "selection"
CHALLENGERS = ("vector", "isotonic")
MIN_DRAWN = 5.0
MIN_JUDGED = 200
JUDGED_AT_MOST = 5000
FOLDS = 5
SURE_ERRORS = 2.0


@dataclass(frozen=True)
class Published:
    """What turns a head's probabilities into what is published.

    Attributes:
        name: of `CALIBRATORS`.
        calibrator: fitted.
        doubt: how much of its P(right) is believed.
        facts: JSON-able: how the choice was made.
    """

    name: str
    calibrator: Calibrator
    doubt: Doubt
    facts: Mapping[str, Any] = field(default_factory=dict)

    multi_label = False

    def probs(self, raw: F64) -> F64:
        """``(N, C)`` calibrated, summing to 1."""
        return self.calibrator.probs(raw)

    def decide(self, probs: F64) -> NDArray[np.int64]:
        """``(N,)`` the class to publish for calibrated probabilities."""
        found: NDArray[np.int64] = probs.argmax(axis=1).astype(np.int64)
        return found

    def margin(self, probs: F64) -> F64:
        """``(N,)`` largest minus second largest probability."""
        return margin(probs)

    def p_right(self, raw: F64) -> F64:
        """``(N,)`` in (0, 1): that the most probable class of `probs` is right."""
        return self.doubt.apply(self.calibrator.p_right(raw))

    def arrays(self) -> dict[str, F64]:
        """Everything but the name as plain arrays; see `restore`."""
        doubt = np.array([self.doubt.trust, self.doubt.base, self.doubt.lift])
        return {**self.calibrator.arrays(), "doubt": doubt}

    @classmethod
    def restore(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> Published:
        """Rebuild from `name` and `arrays`.

        Raises:
            UnknownNameError: no calibrator has that name.
        """
        doubt = Doubt(*(float(value) for value in arrays["doubt"]))
        return cls(name, CALIBRATORS[name].restore(arrays), doubt)


def choose_calibrator(data: OutOfFold, *, name: str = AUTO, seed: int = 0) -> Published:
    """Fit the calibrator that the labels at hand allow, and say which.

    1. ``temperature`` while the random share counts for fewer than 5 labels (by `fold_weights`),
       and where there is none: nothing tells how labels that acquisition chose differ from the
       pool, so one number, held near 1, is all that they bear.
    2. ``selection`` from then on: its priors make it the temperature while labels are few, and
       the random share moves it as far as that is sure.
    3. From 200 random labels on, ``vector`` and ``isotonic`` may take its place. They are judged on
       the random labels, each by a calibrator that has not seen it (5 folds), by Brier score over
       all classes; the better of them must win by two standard errors of the difference.

    Whatever is chosen, P(right) is then lowered for classes without a label (`unseen_lift`) and
    narrowed (`fit_doubt`), and its level heeds how often the head and label propagation agree
    (`agreement_lift`).

    Args:
        data: of `OutOfFold.of`; from no label at all on.
        name: "auto" for the rule, or one of `CALIBRATORS`.
        seed: of the folds in which they are compared.

    Raises:
        UnknownNameError: no calibrator has that name.
    """
    scores: dict[str, float] = {}
    if name == AUTO:
        name, scores = _choose(data, seed)
    calibrator = CALIBRATORS[name].fit(data)
    right = (
        calibrator.probs(data.probs).argmax(axis=1) == data.labels
        if len(data)
        else np.zeros(0, bool)
    )
    pool = calibrator.p_right(data.rest.probs if len(data.rest.probs) else data.probs)
    doubt = fit_doubt(right, data.weights, data.probs.shape[1])
    doubt = replace(doubt, lift=unseen_lift(data, pool))
    agreed = agreement_lift(pool, doubt, data.rest.agreement, len(data))
    doubt = replace(doubt, lift=doubt.lift + agreed)
    facts = {
        "calibrator": name,
        "calibrator_scores": scores,
        "agreement": data.rest.agreement and data.rest.agreement.share,
    }
    return Published(name, calibrator, doubt, facts)


def cross_fitted(data: OutOfFold, family: CalibratorFamily, *, seed: int = 0) -> F64:
    """``(N, C)`` probabilities of each label by a calibrator that has not seen it, in 5 folds.

    What metrics of the calibrated probabilities should be measured on: a calibrator judged by the
    labels it was fitted on looks better than it is.
    """
    result = data.probs.copy()
    folds = min(FOLDS, len(data))
    fold = np.random.default_rng(seed).permutation(len(data)) % max(folds, 1)
    for number in range(folds):
        held = fold == number
        result[held] = family.fit(data.take(~held)).probs(data.probs[held])
    return result


def _choose(data: OutOfFold, seed: int) -> tuple[str, dict[str, float]]:
    drawn = float(data.weights[data.random].sum())
    if drawn < MIN_DRAWN:
        return SIMPLEST, {}
    judged = np.flatnonzero(data.random & (data.weights > 0.0))
    if len(judged) < MIN_JUDGED:
        return USUAL, {}
    if len(data) > JUDGED_AT_MOST:  # enough to tell, and the price stays what it is
        kept = np.random.default_rng(seed).permutation(len(data))[:JUDGED_AT_MOST]
        data = data.take(kept)
        judged = np.flatnonzero(data.random & (data.weights > 0.0))
    losses = {
        name: _losses(cross_fitted(data, CALIBRATORS[name], seed=seed), data.labels)[judged]
        for name in (USUAL, *CHALLENGERS)
    }
    weights = data.weights[judged] / data.weights[judged].sum()
    scores = {name: float(weights @ loss) for name, loss in losses.items()}
    best = min(CHALLENGERS, key=lambda name: scores[name])
    gain = losses[USUAL] - losses[best]
    mean = float(weights @ gain)
    error = float(np.sqrt((weights**2) @ (gain - mean) ** 2))
    return (best if mean > SURE_ERRORS * error else USUAL), scores


def _losses(probs: F64, labels: NDArray[np.int64]) -> F64:
    """``(N,)`` Brier score of each."""
    result: F64 = (probs**2).sum(axis=1) - 2.0 * probs[np.arange(len(labels)), labels] + 1.0
    return result
