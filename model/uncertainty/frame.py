"""What all estimators share: features to rows, logits to probabilities, folds to a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model.heads.problem import Labels, Problem
from model.heads.softmax import normalise
from model.uncertainty.base import Estimator, FittedEstimator

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]


class ProblemFamily(ABC):
    """A family that fits from a prepared `Problem`, so that several can share one."""

    joint = True

    def fit(
        self,
        features: F32,
        labels: Labels,
        n_classes: int,
        *,
        centre: F32,
        seed: int,
        progress: Callable[[float, str], None],
        weights: NDArray[np.float64] | None = None,
    ) -> FittedEstimator:
        """Choose the prior by cross-validation, then fit; see `EstimatorFamily.fit`."""
        problem = Problem.of(
            features, labels, n_classes, centre=centre, seed=seed, progress=progress,
            label_weights=weights,
        )  # fmt: skip
        return replace(self.fit_problem(problem), plain=plain_out_of_fold(problem))

    @property
    @abstractmethod
    def passes(self) -> int:
        """K of every estimator it fits."""

    @abstractmethod
    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Fit on all labels and without each fold."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild what `Estimator.arrays` described."""


@dataclass(frozen=True)
class Frame:
    """The ends of every estimator.

    Attributes:
        centre: ``(D,)``, subtracted from features before they are scaled to length 1.
        seen: ``(C,)`` bool, classes with at least one label.
        n_labels: how many labels there were.
        positives: ``(C,)`` images of each class, where an image may have several.
    """

    centre: F32
    seen: NDArray[np.bool_]
    n_labels: int
    positives: Ints | None = None

    @classmethod
    def of(cls, problem: Problem, number: int) -> Frame:
        """The frame of fit `number` of a problem."""
        counts = problem.counts(number)
        if problem.multi_label:
            count = int((problem.fit_weights[number] > 0).sum())
            return cls(problem.centre, (counts > 0) & (counts < count), count, counts)
        return cls(problem.centre, counts > 0, int(counts.sum()))

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Frame:
        """Rebuild from `arrays`."""
        seen = arrays["seen"].astype(bool)
        return cls(arrays["centre"], seen, int(arrays["n_labels"][0]), arrays.get("positives"))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        found: dict[str, NDArray[Any]] = {
            "centre": self.centre,
            "seen": self.seen.astype(np.uint8),
            "n_labels": np.array([self.n_labels], np.int64),
        }
        return found if self.positives is None else {**found, "positives": self.positives}

    def rows(self, features: F32) -> F32:
        """``(N, D)`` features as rows."""
        return normalise(features, self.centre)

    def probs(self, logits: F64) -> F64:
        """``(..., C)`` logits to probabilities, in place; those of unseen classes do not count."""
        if self.positives is not None:
            return self.reserve(expit(logits, out=logits))
        if len(self._unseen):
            logits[..., self._unseen] = -np.inf
        logits -= logits.max(axis=-1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=-1, keepdims=True)
        return self.reserve(logits)

    def reserve(self, probs: F64) -> F64:
        """Leave to classes without a label what is theirs, see `reserve_unseen`.

        Where an image may have several classes, one that has been in none or in all of n images
        gets the rule's ``1 / (n + 2)`` or ``(n + 1) / (n + 2)``.
        """
        if not len(self._unseen):
            return probs
        if self.positives is not None:
            rule = (self.positives + 1.0) / (self.n_labels + 2.0)
            probs[..., self._unseen] = rule[self._unseen]
            return probs
        return reserve_unseen(probs, self.seen, self.n_labels)

    @cached_property
    def _unseen(self) -> Ints:
        """Classes that are not `seen`."""
        return np.flatnonzero(~self.seen)


@dataclass(frozen=True)
class FramedEstimator(ABC):
    """An estimator that reads rows of its frame.

    Attributes:
        frame: how features become rows, and what unseen classes get.
    """

    frame: Frame

    def rows(self, features: F32) -> F32:
        """``(N, D)`` features, centred and of length 1."""
        return self.frame.rows(features)

    def sample(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, K, C)``."""
        return self.sample_rows(self.rows(features))

    @abstractmethod
    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, K, C)``."""


def reserve_unseen(probs: F64, seen: NDArray[np.bool_], n_labels: int) -> F64:
    """Give classes without a label the share that Laplace's rule of succession leaves them.

    Each of the C classes counts as seen once more than it was: U unseen classes together get
    ``U / (n + C)``. So a class nobody has met yet is possible, and less so with every label.

    Args:
        probs: ``(..., C)``, 0 for unseen classes.
        seen: ``(C,)``.
        n_labels: n.
    """
    unseen = int((~seen).sum())
    if unseen == 0:
        return probs
    each = 1.0 / (n_labels + len(seen))
    kept: F64 = probs * (1.0 - unseen * each)
    kept[..., ~seen] = each
    return kept


def assemble(
    problem: Problem, build: Callable[[int], Estimator], facts: Mapping[str, float]
) -> FittedEstimator:
    """An estimator on all labels, and what those without a fold say about it.

    Args:
        problem: what they are fitted on.
        build: the estimator of fit `number`; 0 is the one on all labels.
        facts: shown beside the precision of the prior.
    """
    estimator = build(0)
    out_of_fold = np.empty((len(problem.labels), estimator.passes, problem.n_classes))
    for number in range(1, len(problem.fit_weights)):
        held_out = problem.fold == number - 1
        out_of_fold[held_out] = build(number).sample_rows(problem.rows[held_out])
    return FittedEstimator(estimator, out_of_fold, {"l2": problem.l2, **facts})


def plain_out_of_fold(problem: Problem) -> F64:
    """``(N, C)`` what the logistic regression without a label's fold says of its image.

    Every family begins at these regressions, so they cost a matrix product here.
    """
    probs = np.empty((len(problem.labels), problem.n_classes))
    for number in range(1, len(problem.fit_weights)):
        held_out = problem.fold == number - 1
        logits = problem.rows[held_out] @ problem.lifted[number] + problem.heads.biases[number]
        probs[held_out] = Frame.of(problem, number).probs(logits.astype(np.float64))
    return probs
