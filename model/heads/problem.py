"""What every classifier is fitted on: prepared labels, folds, and the prior they call for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model.heads.sigmoid import BinaryCrossEntropy
from model.heads.softmax import Basis, CrossEntropy, Heads, Loss, Search, normalise

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = Ints | NDArray[np.bool_]

L2_GRID = (0.001, 0.003, 0.01, 0.03)
BALANCE = 0.5  # weight of a label: its class's count to the power of minus this
SEARCH_FOLDS = 3
SEARCH_TOLERANCE = 1e-4
FIT_TOLERANCE = 1e-4
# Where the search is in doubt anyway: more labels than this are thinned for choosing the prior.
SEARCH_LABELS = 300


@dataclass(frozen=True)
class Problem:
    """Labels, ready for fitting one classifier on all and one more without each fold.

    Attributes:
        rows: ``(N, D)`` features, centred and of length 1.
        labels: ``(N,)`` classes, or ``(N, C)`` bool where an image may have several.
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
    labels: Labels
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
        labels: Labels,
        n_classes: int,
        *,
        centre: F32,
        seed: int,
        progress: Callable[[float, str], None],
        label_weights: F64 | None = None,
    ) -> Problem:
        """Prepare what `EstimatorFamily.fit` is given."""
        rng = np.random.default_rng(seed)
        rows = normalise(features, centre)
        order = rng.permutation(features.shape[1])
        basis = Basis.of(rows)
        weights = balanced_weights(labels, n_classes)
        if label_weights is not None:
            weights = weights * label_weights
            weights /= weights.mean()
        progress(0.2, "choosing the prior")
        l2 = choose_l2(basis, labels, n_classes, weights, rng)
        progress(0.5, "fitting")
        fold = stratified_folds(strata(labels), fold_count(len(labels)), rng)
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
        l2_B = np.full(len(weights_BN), self.l2)
        search = Search(basis, loss_of(self.labels, self.n_classes), weights_BN, l2_B)
        if start is not None:
            search.start_at(start)
        return search.run(tolerance)

    @cached_property
    def lifted(self) -> F32:
        """``(B, D, C)`` weights of `heads` on rows."""
        return self.basis.axes @ self.heads.weights

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.ndim == 2

    def counts(self, number: int) -> Ints:
        """``(C,)`` labels of each class that fit `number` has seen."""
        kept = self.labels[self.fit_weights[number] > 0]
        if self.multi_label:
            positive: Ints = kept.sum(axis=0)
            return positive
        return np.bincount(kept, minlength=self.n_classes)

    def losses(self, probs_NC: F64) -> F64:
        """``(N,)`` negative log-likelihood of each label."""
        if self.multi_label:
            of_answer = np.where(self.labels, probs_NC, 1.0 - probs_NC)
            losses: F64 = -np.log(np.maximum(of_answer, 1e-12)).sum(axis=1)
            return losses
        of_label: F64 = probs_NC[np.arange(len(probs_NC)), self.labels]
        return -np.log(np.maximum(of_label, 1e-12))


def loss_of(labels: Labels, n_classes: int) -> Loss:
    """What fits of such labels make small."""
    if labels.ndim == 2:
        return BinaryCrossEntropy(labels.astype(bool))
    return CrossEntropy(labels.astype(np.int64), n_classes)


def strata(labels: Labels) -> Ints:
    """``(N,)`` what to deal evenly round the folds: the class, of several the rarest.

    An image without any class is one of its own kind.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    counts = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    found: Ints = np.where(labels.any(axis=1), counts.argmin(axis=1), labels.shape[1])
    return found


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


def balanced_weights(labels: Labels, n_classes: int) -> F64:
    """Weight of each label, mean 1: its class's count to the power of minus one half.

    All alike where an image may have several classes.
    """
    if labels.ndim == 2:
        return np.ones(len(labels))
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    weights: F64 = counts[labels] ** -BALANCE
    weights /= weights.mean()
    return weights


def choose_l2(
    basis: Basis, labels: Labels, n_classes: int, weights: F64, rng: np.random.Generator
) -> float:
    """The precision of the prior with the least cross-validated NLL, see `search_l2`."""
    return search_l2(basis, labels, n_classes, weights, rng)[0]


def search_l2(
    basis: Basis, labels: Labels, n_classes: int, weights: F64, rng: np.random.Generator
) -> tuple[float, F64]:
    """The precision of the prior with the least cross-validated NLL, and the losses it has.

    Judged on labels whose class is left in the other folds: the loss on a class that a fold has
    lost is about the fold, not about the prior.

    Returns:
        A value of `L2_GRID`, and the loss of each answer judged; the middle one and no losses
        when there is nothing to judge on.
    """
    if len(labels) > SEARCH_LABELS:
        chosen = rng.permutation(len(labels))[:SEARCH_LABELS]
        basis = Basis.of(basis.rows[chosen])
        labels, weights = labels[chosen], weights[chosen]
    groups = strata(labels)
    fold = stratified_folds(groups, min(SEARCH_FOLDS, len(labels)), rng)
    folds = int(fold.max()) + 1
    kept = np.tile([weights * (fold != f) for f in range(folds)], (len(L2_GRID), 1))
    loss = loss_of(labels, n_classes)
    judged = _judged(loss, labels, fold, kept[:folds])
    if judged.any(axis=1).sum() < 2 or len(np.unique(groups)) < 2:
        return L2_GRID[len(L2_GRID) // 2], np.zeros(0)
    search = Search(basis, loss, kept, np.repeat(L2_GRID, folds))
    heads = search.run(SEARCH_TOLERANCE)
    rows = np.arange(len(labels))
    probs = heads.probs(basis.rows) if labels.ndim == 1 else expit(heads.logits(basis.rows))
    losses = []
    for number in range(len(L2_GRID)):
        own = probs[rows, number * folds + fold]
        right = own if labels.ndim == 1 else np.where(labels, own, 1.0 - own)
        chance = right[rows, labels][:, None] if labels.ndim == 1 else right
        losses.append(-np.log(np.maximum(chance[judged], 1e-12)))
    best = int(np.argmin([found.mean() for found in losses]))
    return L2_GRID[best], losses[best]


def _judged(loss: Loss, labels: Labels, fold: Ints, weights_FN: F64) -> NDArray[np.bool_]:
    """``(N, 1)``, or ``(N, C)`` for several classes: what the fit without its fold can know."""
    seen = loss.seen(weights_FN)[fold]
    if labels.ndim == 2:
        return seen
    return seen[np.arange(len(labels)), labels][:, None]
