"""Multinomial logistic regression with a Gaussian prior, many fits at once.

Every fit minimises ``sum of weighted cross-entropies + l2 / 2 * |W|^2``, intercepts free. Fits that
share their features (folds, values of l2, class weights) are rows of one matrix product, and every
fit has steps of its own: 6 fits cost about 3 times one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.heads.lbfgs import minimise_many

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_ABSENT = np.float32(-1e9)
_SMALLEST = 1e-6  # share of the largest squared length below which float32 knows no direction
# Curvature of the loss along an axis, as a share of the axis' squared length, near the solution.
# Boehning's bound (1992) is 0.25: safe, and 2 to 3 times as many steps as with what is typical.
_CURVATURE = 0.001


def normalise(features: F32, centre: F32) -> F32:
    """Subtract the pool's mean and scale each row to length 1; a row at the mean stays 0."""
    rows: F32 = features.astype(np.float32, copy=False) - centre.astype(np.float32, copy=False)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.maximum(lengths, np.float32(1e-12))
    return rows


@dataclass(frozen=True)
class Basis:
    """Features in the coordinates of their own span, at most as many as there are rows.

    The prior pulls every weight outside that span to 0, so fitting inside it is exact.

    Attributes:
        rows: ``(N, R)`` coordinates; columns are orthogonal.
        scale: ``(R,)`` length of each column.
        axes: ``(D, R)`` back to features: ``weights_D = axes @ weights_R``.
    """

    rows: F32
    scale: F32
    axes: F32

    @classmethod
    def of(cls, features: F32) -> Basis:
        """Take the singular value decomposition of ``(N, D)`` through the smaller Gram matrix."""
        wide = features.astype(np.float32, copy=False)
        if 0 in wide.shape:
            none = np.zeros(0, np.float32)
            return cls(wide[:, :0], none, np.zeros((wide.shape[1], 0), np.float32))
        if wide.shape[0] <= wide.shape[1]:
            squares, left = np.linalg.eigh(wide @ wide.T)
            keep = squares > max(float(squares[-1]), 1e-30) * _SMALLEST
            scale = np.sqrt(squares[keep])
            return cls(left[:, keep] * scale, scale, wide.T @ (left[:, keep] / scale))
        squares, axes = np.linalg.eigh(wide.T @ wide)
        keep = squares > max(float(squares[-1]), 1e-30) * _SMALLEST
        return cls(wide @ axes[:, keep], np.sqrt(squares[keep]), axes[:, keep])


@dataclass(frozen=True)
class Heads:
    """B fitted heads.

    Attributes:
        weights: ``(B, R, C)``.
        biases: ``(B, C)``; -1e9 for a class the fit has not seen.
    """

    weights: F32
    biases: F32

    def probs(self, rows: F32) -> F64:
        """``(N, R)`` rows to probabilities ``(N, B, C)``."""
        count, (heads, width, classes) = len(rows), self.weights.shape
        flat = self.weights.transpose(1, 0, 2).reshape(width, heads * classes)
        logits = (rows @ flat).reshape(count, heads, classes).astype(np.float64) + self.biases
        logits -= logits.max(axis=2, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=2, keepdims=True)
        return logits


def fit_heads(
    basis: Basis,
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    weights_BN: F64,
    l2_B: F64,
    tolerance: float = 1e-6,
) -> Heads:
    """Fit B heads at once on the same rows.

    Args:
        basis: the rows.
        labels: ``(N,)`` classes.
        n_classes: C; a class without weight in a fit gets probability 0 from it.
        weights_BN: ``(B, N)`` weight of each label in each fit; 0 leaves it out.
        l2_B: ``(B,)`` precision of the prior, above 0.
        tolerance: relative decrease of the loss at which the search stops.
    """
    search = _Search(basis, labels, n_classes, weights_BN, l2_B)
    return search.heads(minimise_many(search.loss, search.start, tolerance=tolerance))


class _Search:
    """The losses of B fits, each a function of one row, in coordinates where they are nearly round.

    The intercept is the weight of one more column of ones, which the prior leaves alone.
    """

    def __init__(
        self, basis: Basis, labels: NDArray[np.int64], n_classes: int, weights_BN: F64, l2_B: F64
    ) -> None:
        fits, count = weights_BN.shape
        ones = np.ones((count, 1), np.float32)
        self._rows = np.ascontiguousarray(np.concatenate([basis.rows, ones], axis=1))
        self._columns = np.ascontiguousarray(self._rows.T)
        self._shape = (fits, n_classes, self._rows.shape[1])
        self.start = np.zeros((fits, n_classes * self._rows.shape[1]), np.float32)
        self._weights = weights_BN.astype(np.float32)
        self._labels = labels
        self._items = np.arange(count)
        seen = np.zeros((fits, n_classes), bool)
        for fit in range(fits):
            seen[fit, labels[weights_BN[fit] > 0]] = True
        self._mask = np.where(seen, np.float32(0), _ABSENT).astype(np.float32)[:, :, None]
        l2 = np.repeat(l2_B[:, None], self._rows.shape[1], axis=1)
        l2[:, -1] = 0.0
        squares = np.append(basis.scale.astype(np.float64) ** 2, count)
        curvature = _CURVATURE * squares * weights_BN.mean(axis=1, keepdims=True) + l2
        curvature[:, -1] += 1e-3
        self._l2 = l2.astype(np.float32)[:, None, :]
        self._step = (1.0 / np.sqrt(curvature)).astype(np.float32)[:, None, :]

    def loss(self, points: F32) -> tuple[F64, F32]:
        """``(B, P)`` points to ``(B,)`` losses and ``(B, P)`` gradients."""
        fits, classes, width = self._shape
        weights = points.reshape(self._shape) * self._step
        logits = (weights.reshape(-1, width) @ self._columns).reshape(fits, classes, -1)
        logits += self._mask
        logits -= logits.max(axis=1, keepdims=True)
        # A held-out label of a class the fit lacks has weight 0: keep 0 * 1e9 out of the sum.
        of_label = np.maximum(logits[:, self._labels, self._items], np.float32(-1e4))
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        cross = (self._weights * (np.log(sums) - of_label)).sum(axis=1, dtype=np.float64)
        pulled = self._l2 * weights
        prior = 0.5 * np.einsum("bcp,bcp->b", pulled, weights)
        logits *= (self._weights / sums)[:, None, :]
        logits[:, self._labels, self._items] -= self._weights
        slope = (logits.reshape(fits * classes, -1) @ self._rows).reshape(self._shape)
        slope += pulled
        slope *= self._step
        return cross + prior, slope.reshape(fits, -1)

    def heads(self, points: F32) -> Heads:
        """What the points stand for."""
        weights = points.reshape(self._shape) * self._step
        return Heads(
            np.ascontiguousarray(weights[:, :, :-1].transpose(0, 2, 1)),
            weights[:, :, -1] + self._mask[:, :, 0],
        )
