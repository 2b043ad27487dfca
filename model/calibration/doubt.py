"""Belief in what is stated, while labels are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.calibration.base import SURE

DOUBT_LABELS = 0.1


@dataclass(frozen=True)
class Doubt:
    """How much of the stated probability of being right to believe while labels are few.

    ``p_right = trust * p + (1 - trust) * base``: the order of items stays, the range narrows.

    Attributes:
        trust: 0 to 1.
        base: what is believed of any prediction without looking at it.
    """

    trust: float
    base: float

    def apply(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shrink probabilities, and keep them inside (0, 1)."""
        shrunk = self.trust * p + (1.0 - self.trust) * self.base
        return np.clip(shrunk, SURE, 1.0 - SURE)


def fit_doubt(
    right: NDArray[np.bool_],
    weights: NDArray[np.float64],
    n_classes: int,
    *,
    guess: float | None = None,
) -> Doubt:
    """Narrow the stated probabilities while labels are few.

    As if `DOUBT_LABELS` labels a class spoke for the average: with 2 labels of 10 classes a third
    of what is stated comes from there, with 5 labels a class 2 %. The average is the out-of-fold
    accuracy, started from one guess in C that counts as one label. Wider priors measured worse
    than none: out-of-fold accuracy is far too low while classes have one or two labels.

    Args:
        right: ``(N,)`` whether each label was predicted right out of fold; N may be 0.
        weights: ``(N,)`` of each label.
        n_classes: C.
        guess: probability that a guess is right; one in C without.
    """
    guess = 1.0 / n_classes if guess is None else guess
    base = (float(weights @ right) + guess) / (float(weights.sum()) + 1.0)
    return Doubt(trust=len(right) / (len(right) + DOUBT_LABELS * n_classes), base=base)
