"""Frozen values that pass between the parts of the model side; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """What people have labelled so far.

    Attributes:
        features: ``(N, D)`` float32, the backbone's features as they come from the cache.
        labels: ``(N,)`` int64, index into the list of classes.
        random: ``(N,)`` bool, True where the item was drawn uniformly from the pool (the random
            share): only these give numbers without selection bias.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    random: NDArray[np.bool_]


@dataclass(frozen=True)
class Predictions:
    """What a version says about N images.

    Attributes:
        probs: ``(N, C)`` mean probability of every class, calibrated, summing to 1.
        label: ``(N,)`` int64, the most probable class.
        p_right: ``(N,)`` calibrated probability in (0, 1) that `label` is right.
        margin: ``(N,)`` largest minus second largest probability; 1 with a single class.
        total: ``(N,)`` nats, entropy of the mean probability.
        aleatoric: ``(N,)`` nats, the part of total that is each pass's own doubt.
        epistemic: ``(N,)`` nats, the part that is their disagreement: total - aleatoric, >= 0.
    """

    probs: NDArray[np.float64]
    label: NDArray[np.int64]
    p_right: NDArray[np.float64]
    margin: NDArray[np.float64]
    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions of some rows, in that order."""
        return Predictions(**{name: value[rows] for name, value in vars(self).items()})
