"""Multinomial logistic regression with a Gaussian prior, many fits at once.

Every fit minimises ``sum of weighted cross-entropies + l2 / 2 * |W|^2``, intercepts free. Fits that
share their features (folds, values of l2, class weights) are rows of one matrix product, and every
fit has steps of its own: 6 fits cost about 3 times one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.heads.lbfgs import minimise_many

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_ABSENT = np.float32(-1e9)
_MAX_ITERATIONS = 300
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

    def logits(self, rows: F32) -> F64:
        """``(N, R)`` rows to logits ``(N, B, C)``."""
        count, (heads, width, classes) = len(rows), self.weights.shape
        flat = self.weights.transpose(1, 0, 2).reshape(width, heads * classes)
        return (rows @ flat).reshape(count, heads, classes).astype(np.float64) + self.biases

    def probs(self, rows: F32) -> F64:
        """``(N, R)`` rows to probabilities ``(N, B, C)`` of one class out of C."""
        logits = self.logits(rows)
        logits -= logits.max(axis=2, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=2, keepdims=True)
        return logits


class Loss(Protocol):
    """What a fit makes small, besides the prior."""

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        """``(B, C)`` the classes that fits with these weights can say anything about."""

    def __call__(self, logits_BCN: F32, weights_BN: F32) -> tuple[F64, F32]:
        """``(B, C, N)`` logits, which may be overwritten, to ``(B,)`` losses and their slopes."""


@dataclass(frozen=True)
class CrossEntropy:
    """Of one class out of C.

    Attributes:
        labels: ``(N,)`` classes.
        n_classes: C.
    """

    labels: NDArray[np.int64]
    n_classes: int

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        """Classes that have a label with weight."""
        found = np.zeros((len(weights_BN), self.n_classes), bool)
        for fit, weights in enumerate(weights_BN):
            found[fit, self.labels[weights > 0]] = True
        return found

    def __call__(self, logits_BCN: F32, weights_BN: F32) -> tuple[F64, F32]:
        """Sums of weighted cross-entropies, and their slopes."""
        logits, items = logits_BCN, np.arange(len(self.labels))
        logits -= logits.max(axis=1, keepdims=True)
        # A held-out label of a class the fit lacks has weight 0: keep 0 * 1e9 out of the sum.
        of_label = np.maximum(logits[:, self.labels, items], np.float32(-1e4))
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        cross = (weights_BN * (np.log(sums) - of_label)).sum(axis=1, dtype=np.float64)
        logits *= (weights_BN / sums)[:, None, :]
        logits[:, self.labels, items] -= weights_BN
        return cross, logits


def fit_heads(
    basis: Basis,
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    weights_BN: F64,
    l2_B: F64,
    tolerance: float = 1e-6,
    start: F32 | None = None,
) -> Heads:
    """Fit B logistic regressions at once on the same rows.

    Args:
        basis: the rows.
        labels: ``(N,)`` classes.
        n_classes: C; a class without weight in a fit gets probability 0 from it.
        weights_BN: ``(B, N)`` weight of each label in each fit; 0 leaves it out.
        l2_B: ``(B,)`` precision of the prior, above 0.
        tolerance: relative decrease of the loss at which the search stops.
        start: ``(B, R, C)`` weights near the solution, where the search then begins.
    """
    search = Search(basis, CrossEntropy(labels, n_classes), weights_BN, l2_B)
    if start is not None:
        search.start_at(start)
    return search.run(tolerance)


class Search:
    """B fits of one loss, each a row of one matrix, in coordinates where they are nearly round.

    The intercept is the weight of one more column of ones, which the prior leaves alone.
    """

    def __init__(self, basis: Basis, loss: Loss, weights_BN: F64, l2_B: F64) -> None:
        count = weights_BN.shape[1]
        ones = np.ones((count, 1), np.float32)
        self._rows = np.ascontiguousarray(np.concatenate([basis.rows, ones], axis=1))
        self._columns = np.ascontiguousarray(self._rows.T)
        self._loss = loss
        seen = loss.seen(weights_BN)
        self._seen = seen[:, :, None]
        self._shape = (*seen.shape, self._rows.shape[1])
        self._found = np.zeros((len(seen), self._shape[1] * self._shape[2]), np.float32)
        self._weights = weights_BN.astype(np.float32)
        self._mask = np.where(self._seen, np.float32(0), _ABSENT).astype(np.float32)
        l2 = np.repeat(l2_B[:, None], self._rows.shape[1], axis=1)
        l2[:, -1] = 0.0
        squares = np.append(basis.scale.astype(np.float64) ** 2, count)
        curvature = _CURVATURE * squares * weights_BN.mean(axis=1, keepdims=True) + l2
        curvature[:, -1] += 1e-3
        self._l2 = l2.astype(np.float32)[:, None, :]
        self._step = (1.0 / np.sqrt(curvature)).astype(np.float32)[:, None, :]

    def start_at(self, weights: F32) -> None:
        """Begin at ``(B, R, C)`` weights instead of 0."""
        points = np.zeros(self._shape, np.float32)
        points[:, :, :-1] = weights.transpose(0, 2, 1) / self._step[:, :, :-1]
        self._found = points.reshape(self._found.shape)

    def run(
        self, tolerance: float, *, loss: Loss | None = None, iterations: int = _MAX_ITERATIONS
    ) -> Heads:
        """Search on from where the last run ended, for another loss where one is given."""
        self._loss = loss or self._loss
        self._found = minimise_many(
            self._cost, self._found, tolerance=tolerance, max_iterations=iterations
        )
        weights = self._found.reshape(self._shape) * self._step
        return Heads(
            np.ascontiguousarray(weights[:, :, :-1].transpose(0, 2, 1)),
            weights[:, :, -1] + self._mask[:, :, 0],
        )

    def _cost(self, points: F32) -> tuple[F64, F32]:
        """``(B, P)`` points to ``(B,)`` losses with the prior, and ``(B, P)`` gradients."""
        fits, classes, width = self._shape
        weights = points.reshape(self._shape) * self._step
        logits = (weights.reshape(-1, width) @ self._columns).reshape(fits, classes, -1)
        logits += self._mask
        cost, slope_BCN = self._loss(logits, self._weights)
        pulled = self._l2 * weights
        slope = (slope_BCN.reshape(fits * classes, -1) @ self._rows).reshape(self._shape)
        slope += pulled
        slope *= self._step
        slope *= self._seen
        return cost + 0.5 * np.einsum("bcp,bcp->b", pulled, weights), slope.reshape(fits, -1)
