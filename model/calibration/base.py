"""The protocol every calibrator follows, so that each is one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.calibration.temperature import fold_weights
from model.errors import ModelError, ShapeError

F64 = NDArray[np.float64]

TINY = 1e-12
SURE = 1e-6


@dataclass(frozen=True)
class Agreement:
    """How the head compares with label propagation from the same labels.

    Attributes:
        share: of a sample of the unlabelled pool in which both name the same class, 0 to 1.
        lead: log odds by which the head is right more often than propagation, out of fold.
    """

    share: float
    lead: float = 0.0


@dataclass(frozen=True)
class Rest:
    """What the head says of images that nobody has labelled.

    Attributes:
        probs: ``(M, C)`` of a random sample of them, by the head with all labels; M may be 0.
        count: how many images the sample stands for.
        agreement: of two learners on the sample; None where that is not known.
    """

    probs: F64
    count: float
    agreement: Agreement | None = None


UNKNOWN_REST = Rest(np.zeros((0, 1)), 0.0)


@dataclass(frozen=True)
class OutOfFold:
    """What calibration may learn from.

    Attributes:
        probs: ``(N, C)`` probabilities of each label's image by a head not fitted on it. Of an
            ensemble its mean: members that are calibrated each for themselves make a mean that is
            too modest (Rahaman and Thiery 2021, arXiv:2007.08792).
        labels: ``(N,)`` int64, the true classes.
        random: ``(N,)`` bool, whether the item was drawn uniformly from the pool.
        weights: ``(N,)`` at least 0; how much each says about the head that has all labels.
        rest: the unlabelled pool, where it is known.
    """

    probs: F64
    labels: NDArray[np.int64]
    random: NDArray[np.bool_]
    weights: F64
    rest: Rest = UNKNOWN_REST

    @classmethod
    def of(
        cls,
        probs: F64,
        labels: NDArray[np.int64],
        random: NDArray[np.bool_] | None = None,
        *,
        rest: Rest = UNKNOWN_REST,
    ) -> OutOfFold:
        """Check, and weight by `fold_weights`; without `random` all labels count as drawn.

        Raises:
            ShapeError: arrays that do not belong together, or no class.
            ModelError: probabilities that are not finite or negative, a label outside the classes.
        """
        random = np.ones(len(labels), bool) if random is None else random
        if probs.ndim != 2 or probs.shape[1] == 0:
            raise ShapeError("probs", expected="(N, C>=1)", got=probs.shape)
        for name, array in (("labels", labels), ("random", random)):
            if array.shape != probs.shape[:1]:
                raise ShapeError(name, expected=f"({len(probs)},)", got=array.shape)
        if not np.isfinite(probs).all() or (probs < 0.0).any():
            raise ModelError("probs holds values that are no probabilities; all must be in [0, 1]")
        if len(labels) and (labels.min() < 0 or labels.max() >= probs.shape[1]):
            raise ModelError(f"a label is outside the {probs.shape[1]} classes")
        return cls(probs.astype(np.float64), labels, random, fold_weights(labels), rest)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> OutOfFold:
        """Some of the labels, with the weights they have among all, and without the rest.

        What is fitted on some is judged on others, and those stand for the whole pool.
        """
        return OutOfFold(self.probs[rows], self.labels[rows], self.random[rows], self.weights[rows])


class Calibrator(Protocol):
    """A fitted map from the head's probabilities to ones that match frequencies."""

    def probs(self, raw: F64) -> F64:
        """``(N, C)`` to calibrated ``(N, C)`` that sum to 1; what it is given stays as it is."""

    def p_right(self, raw: F64) -> F64:
        """``(N, C)`` to ``(N,)``: probability that the most probable class of `probs` is right."""

    def arrays(self) -> dict[str, F64]:
        """Everything `CalibratorFamily.restore` needs, as plain arrays."""


class CalibratorFamily(Protocol):
    """How a calibrator of one kind is fitted and brought back from disk."""

    def fit(self, data: OutOfFold) -> Calibrator:
        """Fit; any number of labels from 0 on gives something finite, near the identity at few."""

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """Rebuild what `Calibrator.arrays` described."""


def logit(p: F64) -> F64:
    """Log odds, of probabilities held inside ``[1e-6, 1 - 1e-6]``."""
    p = np.clip(p, SURE, 1.0 - SURE)
    result: F64 = np.log(p) - np.log1p(-p)
    return result


def with_top(probs: F64, p: F64) -> F64:
    """Give the most probable class the probability `p` and keep the order of all classes.

    Mixes each row with certainty of its top class where `p` is larger than that has, with
    ignorance (all classes equal) where it is smaller; a `p` below ``1 / C`` gives ignorance.

    Args:
        probs: ``(N, C)`` summing to 1.
        p: ``(N,)`` in [0, 1].

    Example:
        >>> with_top(np.array([[0.6, 0.3, 0.1]]), np.array([0.8])).round(2)
        array([[0.8 , 0.15, 0.05]])
    """
    count, classes = probs.shape
    if not count:
        return probs.copy()
    rows, top = np.arange(count), probs.argmax(axis=1)
    largest = probs[rows, top]
    share = np.divide(1.0 - p, 1.0 - largest, out=np.ones(count), where=largest < 1.0)
    bolder: F64 = probs * share[:, None]
    bolder[rows, top] = p
    room = largest - 1.0 / classes
    kept = np.divide(p - 1.0 / classes, room, out=np.zeros(count), where=room > 0.0)
    kept = np.clip(kept, 0.0, 1.0)[:, None]
    return np.where((p >= largest)[:, None], bolder, kept * probs + (1.0 - kept) / classes)
