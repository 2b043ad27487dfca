"""The default: logistic regression heads, fitted on gently reweighted labels and averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.heads.softmax import Basis, Heads, fit_heads, normalise
from model.uncertainty.base import Estimator, FittedEstimator

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

L2_GRID = (0.001, 0.003, 0.01, 0.03)
BALANCE = 0.5  # weight of a label: its class's count to the power of minus this
MEMBERS = 4
SEARCH_FOLDS = 3
SEARCH_TOLERANCE = 1e-4
FIT_TOLERANCE = 1e-4
# Where the search is in doubt anyway: more labels than this are thinned for choosing the prior.
SEARCH_LABELS = 300
TINY = 1e-12


class AveragedHeads:
    """Fits one logistic regression and reads it K times, each time without a K-th of the features.

    The parts left out are random, disjoint, and the same for every image; what remains is scaled
    up, so that the mean of the K logits is that of the whole head. Costs nothing to fit; as good
    in accuracy and Brier score as the single head, with slightly better calibration, and the K
    disagree where the evidence rests on few features.

    Source:
        Feature dropout at prediction (Gal and Ghahramani 2016, arXiv:1506.02142) with fixed,
        balanced masks in place of drawn ones.
    """

    def fit(
        self,
        features: F32,
        labels: Ints,
        n_classes: int,
        *,
        centre: F32,
        seed: int,
        progress: Callable[[float, str], None],
    ) -> FittedEstimator:
        """Choose the prior by cross-validation, then fit; see `EstimatorFamily.fit`."""
        rng = np.random.default_rng(seed)
        rows = normalise(features, centre)
        part = rng.permutation(features.shape[1]) % MEMBERS
        basis = Basis.of(rows)
        weights = balanced_weights(labels, n_classes)
        progress(0.2, "choosing the prior")
        l2 = choose_l2(basis, labels, n_classes, weights, rng)
        progress(0.5, "fitting")
        fold = stratified_folds(labels, fold_count(len(labels)), rng)
        folds = int(fold.max()) + 1
        weights_BN = np.stack([weights, *(weights * (fold != f) for f in range(folds))])
        heads = fit_heads(
            basis,
            labels,
            n_classes,
            weights_BN=weights_BN,
            l2_B=np.full(folds + 1, l2),
            tolerance=FIT_TOLERANCE,
        )
        estimators = [
            SoftmaxEstimator(
                weights=basis.axes @ heads.weights[number],
                biases=heads.biases[number],
                centre=centre.astype(np.float32),
                part=part,
                seen=np.bincount(labels[kept > 0], minlength=n_classes) > 0,
                n_labels=int((kept > 0).sum()),
            )
            for number, kept in enumerate(weights_BN)
        ]
        out_of_fold = np.empty((len(labels), MEMBERS, n_classes))
        for f, estimator in enumerate(estimators[1:]):
            out_of_fold[fold == f] = estimator.sample_rows(rows[fold == f])
        return FittedEstimator(estimators[0], out_of_fold, {"l2": l2})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `SoftmaxEstimator.arrays`."""
        return SoftmaxEstimator(
            weights=arrays["weights"],
            biases=arrays["biases"],
            centre=arrays["centre"],
            part=arrays["part"],
            seen=arrays["seen"].astype(bool),
            n_labels=int(arrays["n_labels"][0]),
            passes=int(arrays["n_labels"][1]),
        )


@dataclass(frozen=True)
class SoftmaxEstimator:
    """One head as arrays, and how its features are parted.

    Attributes:
        weights: ``(D, C)`` on normalised features.
        biases: ``(C,)``; -1e9 for classes without a label.
        centre: ``(D,)``, subtracted from features before they are scaled to length 1.
        part: ``(D,)`` which pass leaves a feature out.
        seen: ``(C,)`` bool, classes with at least one label.
        n_labels: how many labels there were.
    """

    weights: F32
    biases: F32
    centre: F32
    part: Ints
    seen: NDArray[np.bool_]
    n_labels: int

    passes: int = MEMBERS

    def sample(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, K, C)``."""
        return self.sample_rows(normalise(features, self.centre))

    def sample_rows(self, rows: F32) -> F64:
        """The same from rows that are centred and of length 1."""
        scale = np.float32(self.passes / (self.passes - 1.0))
        masks = (self.part != np.arange(self.passes)[:, None]) * scale
        heads = Heads(
            weights=(masks[:, :, None] * self.weights).astype(np.float32),
            biases=np.tile(self.biases, (self.passes, 1)),
        )
        return reserve_unseen(heads.probs(rows), self.seen, self.n_labels)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        return {
            "weights": self.weights,
            "biases": self.biases,
            "centre": self.centre,
            "part": self.part.astype(np.int64),
            "seen": self.seen.astype(np.uint8),
            "n_labels": np.array([self.n_labels, self.passes], np.int64),
        }


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
    """The precision of the prior with the least cross-validated NLL, see `search_l2`."""
    return search_l2(basis, labels, n_classes, weights, rng)[0]


def search_l2(
    basis: Basis, labels: Ints, n_classes: int, weights: F64, rng: np.random.Generator
) -> tuple[float, F64]:
    """The precision of the prior with the least cross-validated NLL, and the losses it has.

    Judged on labels whose class is left in the other folds: the loss on a class that a fold has
    lost is about the fold, not about the prior.

    Returns:
        A value of `L2_GRID`, and the loss of each label judged; the middle one and no losses
        when there is nothing to judge on.
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
        return L2_GRID[len(L2_GRID) // 2], np.zeros(0)
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
    fits = np.arange(len(L2_GRID))[:, None] * folds + fold
    of_label = probs[np.arange(len(labels)), fits, labels][:, judged]
    losses = -np.log(np.maximum(of_label, TINY))
    best = int(np.argmin(losses.mean(axis=1)))
    return L2_GRID[best], losses[best]
