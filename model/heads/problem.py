"""What every classifier is fitted on: prepared labels, folds, and the prior they call for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.calibration.metrics import nll
from model.heads.softmax import Basis, Heads, fit_heads, normalise

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

L2_GRID = (0.001, 0.003, 0.01, 0.03)
BALANCE = 0.5  # weight of a label: its class's count to the power of minus this
SEARCH_FOLDS = 3
SEARCH_TOLERANCE = 1e-3
FIT_TOLERANCE = 1e-4
# Where the search is in doubt anyway: more labels than this are thinned for choosing the prior.
SEARCH_LABELS = 300


@dataclass(frozen=True)
class Problem:
    """Labels, ready for fitting one classifier on all and one more without each fold.

    Attributes:
        rows: ``(N, D)`` features, centred and of length 1.
        labels: ``(N,)`` classes.
        n_classes: C.
        centre: ``(D,)`` what was subtracted.
        seed: of everything random that an estimator adds.
        order: ``(D,)`` a random order of the features.
        basis: the rows in their own span.
        weights: ``(N,)`` of the labels, mean 1.
        l2: precision of the prior.
        fold: ``(N,)`` which fit leaves a label out.
    """

    rows: F32
    labels: Ints
    n_classes: int
    centre: F32
    seed: int
    order: Ints
    basis: Basis
    weights: F64
    l2: float
    fold: Ints

    @classmethod
    def of(
        cls,
        features: F32,
        labels: Ints,
        n_classes: int,
        *,
        centre: F32,
        seed: int,
        progress: Callable[[float, str], None],
    ) -> Problem:
        """Prepare what `EstimatorFamily.fit` is given."""
        rng = np.random.default_rng(seed)
        rows = normalise(features, centre)
        order = rng.permutation(features.shape[1])
        basis = Basis.of(rows)
        weights = balanced_weights(labels, n_classes)
        progress(0.2, "choosing the prior")
        l2 = choose_l2(basis, labels, n_classes, weights, rng)
        progress(0.5, "fitting")
        fold = stratified_folds(labels, fold_count(len(labels)), rng)
        centre = centre.astype(np.float32)
        return cls(rows, labels, n_classes, centre, seed, order, basis, weights, l2, fold)

    @cached_property
    def fit_weights(self) -> F64:
        """``(1 + folds, N)`` weights of the fits: on all labels, then without each fold."""
        folds = int(self.fold.max()) + 1
        return np.stack([self.weights, *(self.weights * (self.fold != f) for f in range(folds))])

    @cached_property
    def heads(self) -> Heads:
        """The logistic regressions of `fit_weights`, on `basis`."""
        return self.fit(self.basis)

    def fit(
        self, basis: Basis, start: F32 | None = None, tolerance: float = FIT_TOLERANCE
    ) -> Heads:
        """Logistic regressions of `fit_weights` on other coordinates of the rows."""
        weights_BN = self.fit_weights
        return fit_heads(
            basis,
            self.labels,
            self.n_classes,
            weights_BN=weights_BN,
            l2_B=np.full(len(weights_BN), self.l2),
            tolerance=tolerance,
            start=start,
        )

    @cached_property
    def lifted(self) -> F32:
        """``(B, D, C)`` weights of `heads` on rows."""
        return (self.basis.axes.astype(np.float32) @ self.heads.weights).astype(np.float32)

    def counts(self, number: int) -> Ints:
        """``(C,)`` labels of each class that fit `number` has seen."""
        kept = self.labels[self.fit_weights[number] > 0]
        return np.bincount(kept, minlength=self.n_classes)


def fold_count(n_labels: int) -> int:
    """10 folds while that is cheap, 5 from 200 labels on, 3 from 3,000 on."""
    if n_labels <= 200:
        return min(10, n_labels)
    return 5 if n_labels <= 3000 else 3


def stratified_folds(labels: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """Deal the labels of each class round the folds, in random order: ``(N,)`` fold numbers."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def balanced_weights(labels: Ints, n_classes: int) -> F64:
    """Weight of each label, mean 1: its class's count to the power of minus one half."""
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    weights: F64 = counts[labels] ** -BALANCE
    weights /= weights.mean()
    return weights


def choose_l2(
    basis: Basis, labels: Ints, n_classes: int, weights: F64, rng: np.random.Generator
) -> float:
    """The precision of the prior with the least cross-validated NLL.

    Judged on labels whose class is left in the other folds: the loss on a class that a fold has
    lost is about the fold, not about the prior. A loose fit is enough to choose.

    Returns:
        A value of `L2_GRID`; the middle one when there is nothing to judge on.
    """
    if len(labels) > SEARCH_LABELS:
        chosen = rng.permutation(len(labels))[:SEARCH_LABELS]
        basis = Basis.of(basis.rows[chosen])
        labels, weights = labels[chosen], weights[chosen]
    fold = stratified_folds(labels, min(SEARCH_FOLDS, len(labels)), rng)
    folds = int(fold.max()) + 1
    table = np.zeros((folds, n_classes), np.int64)
    np.add.at(table, (fold, labels), 1)
    judged = table.sum(axis=0)[labels] > table[fold, labels]
    if judged.sum() < 2 or len(np.unique(labels)) < 2:
        return L2_GRID[len(L2_GRID) // 2]
    kept = np.tile([weights * (fold != f) for f in range(folds)], (len(L2_GRID), 1))
    heads = fit_heads(
        basis,
        labels,
        n_classes,
        weights_BN=kept,
        l2_B=np.repeat(L2_GRID, folds),
        tolerance=SEARCH_TOLERANCE,
    )
    probs = heads.probs(basis.rows)
    rows = np.arange(len(labels))
    costs = [
        nll(probs[rows, number * folds + fold][judged], labels[judged])
        for number in range(len(L2_GRID))
    ]
    return L2_GRID[int(np.argmin(costs))]
