"""Belief in what is stated, while labels are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from model.calibration.base import SURE, OutOfFold, logit

F64 = NDArray[np.float64]

DOUBT_LABELS = 0.05  # a class
DOUBT_LABELS_SETS = 0.1
WELL_FOUNDED = 3.0
MOST_LIFT = 3.0


@dataclass(frozen=True)
class Doubt:
    """How much of the stated probability of being right to believe while labels are few.

    ``p_right = trust * lifted p + (1 - trust) * base``: the order of items stays.

    Attributes:
        trust: 0 to 1; below 1 the range narrows.
        base: what is believed of any prediction without looking at it.
        lift: added to the log odds first.
    """

    trust: float
    base: float
    lift: float = 0.0

    def apply(self, p: F64) -> F64:
        """Shrink probabilities, and keep them inside (0, 1)."""
        if self.lift:
            p = expit(logit(p) + self.lift)
        shrunk = self.trust * p + (1.0 - self.trust) * self.base
        return np.clip(shrunk, SURE, 1.0 - SURE)


def fit_doubt(
    right: NDArray[np.bool_],
    weights: F64,
    n_classes: int,
    *,
    guess: float | None = None,
    labels_a_class: float = DOUBT_LABELS,
) -> Doubt:
    """Narrow the stated probabilities while labels are few.

    As if `labels_a_class` labels a class spoke for the average: of 0.05, with 2 labels of 10
    classes a fifth of what is stated comes from there, with 5 labels a class 1 %. The average is
    the out-of-fold accuracy, started from one guess in C that counts as one label. Wider priors
    measured worse than none: out-of-fold accuracy is far too low while classes have one or two
    labels.

    Args:
        right: ``(N,)`` whether each label was predicted right out of fold; N may be 0.
        weights: ``(N,)`` of each label.
        n_classes: C.
        guess: probability that a guess is right; one in C without.
        labels_a_class: how many speak for the average.
    """
    guess = 1.0 / n_classes if guess is None else guess
    base = (float(weights @ right) + guess) / (float(weights.sum()) + 1.0)
    return Doubt(trust=len(right) / (len(right) + labels_a_class * n_classes), base=base)


def unseen_lift(data: OutOfFold, p_right: F64) -> float:
    """Allow for images of classes that nobody has met yet: all of them are predicted wrong.

    What is held out and alone of its class counts for nothing (`fold_weights`), so calibration
    states how likely a prediction is right *if the class is known*. By Laplace's rule of
    succession U of C classes without a label make up ``U / (n + C)`` of what comes. All log odds
    are lowered until the mean has come down by that share: it is the unsure ones that are of such
    classes. Only as far as calibration is founded on labels, ``m / (m + 3)`` for weights that sum
    to m: before that, probabilities are those of the head, which leaves unseen classes their share
    itself.

    Args:
        data: what calibration was fitted on.
        p_right: ``(M,)`` as calibrated, of images that stand for the pool; M may be 0.

    Returns:
        What to add to the log odds; not above 0.
    """
    count, classes = data.probs.shape
    unseen = classes - len(np.unique(data.labels))
    if not len(p_right) or not len(data) or not unseen:
        return 0.0
    mass = float(data.weights.sum())
    share = unseen / (count + classes) * mass / (mass + WELL_FOUNDED)
    return min(lift_to(logit(p_right), float(p_right.mean()) * (1.0 - share)), 0.0)


def lift_to(log_odds: F64, goal: float) -> float:
    """What to add to all log odds so that the mean probability is `goal`; -3 to 3.

    Example:
        >>> round(lift_to(np.zeros(5), 0.25), 3)
        -1.099
    """

    def missing(lift: float) -> float:
        return float(expit(log_odds + lift).mean()) - goal

    if missing(MOST_LIFT) <= 0.0:
        return MOST_LIFT
    if missing(-MOST_LIFT) >= 0.0:
        return -MOST_LIFT
    return float(brentq(missing, -MOST_LIFT, MOST_LIFT, xtol=1e-4))
