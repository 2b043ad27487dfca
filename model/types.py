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
        labels: ``(N,)`` int64, index into the list of classes; or ``(N, C)`` bool where an image
            may have several classes, or none.
        random: ``(N,)`` bool, True where the item was drawn uniformly from the pool (the random
            share): only these give numbers without selection bias.
        weights: ``(N,)`` above 0, how much each label counts in the fit of the head beside the
            balance of classes; only their ratios matter. None: all alike. What is measured out of
            fold counts every label once.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    random: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Predictions:
    """What a version says about N images.

    Attributes:
        probs: ``(N, C)`` mean probability of every class, calibrated, summing to 1; where an image
            may have several classes each is a yes-or-no question of its own.
        label: ``(N,)`` int64, the most probable class; or ``(N, C)`` bool, the most probable set.
        p_right: ``(N,)`` calibrated probability in (0, 1) that `label` is right, as a whole.
        margin: ``(N,)`` largest minus second largest probability, of classes or of sets; 1 with a
            single class.
        total: ``(N,)`` nats, entropy of the mean probability; of sets the sum over the classes.
        aleatoric: ``(N,)`` nats, the part of total that is each pass's own doubt.
        epistemic: ``(N,)`` nats, the part that is their disagreement: total - aleatoric, >= 0.
    """

    probs: NDArray[np.float64]
    label: NDArray[np.int64] | NDArray[np.bool_]
    p_right: NDArray[np.float64]
    margin: NDArray[np.float64]
    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.label.ndim == 2

    def right(self, truth: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``(N,)`` whether `label` is the truth; a set has to be right as a whole."""
        return agree(self.label, truth)

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions of some rows, in that order."""
        return Predictions(**{name: value[rows] for name, value in vars(self).items()})


def agree(
    said: NDArray[np.int64] | NDArray[np.bool_], truth: NDArray[np.int64] | NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """``(N,)`` whether labels, or whole sets of labels, are the same."""
    same: NDArray[np.bool_] = np.equal(said, truth)
    if same.ndim == 2:
        same = np.asarray(same.all(axis=1))
    return same


def label_counts(
    labels: NDArray[np.int64] | NDArray[np.bool_], n_classes: int
) -> NDArray[np.int64]:
    """``(C,)`` how many images have each class."""
    if labels.ndim == 2:
        counts: NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
        return counts
    return np.bincount(labels, minlength=n_classes)
