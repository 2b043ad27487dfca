"""Multinomial logistic regression with a Gaussian prior, many fits at once.

Every fit minimises ``sum of weighted cross-entropies + l2 / 2 * |W|^2``, intercepts free. Fits that
share their features (folds, values of l2, class weights) are columns of one matrix product and
steps of one L-BFGS run: 6 fits cost about 3 times one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_ABSENT = np.float32(-1e9)
_MAX_ITERATIONS = 300


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
    scale: F64
    axes: F64

    @classmethod
    def of(cls, features: F32) -> Basis:
        """Take the singular value decomposition of ``(N, D)`` through the smaller Gram matrix."""
        wide = features.astype(np.float64)
        if wide.shape[0] <= wide.shape[1]:
            squares, left = np.linalg.eigh(wide @ wide.T)
            keep = squares > max(float(squares[-1]), 1e-30) * 1e-9
            scale = np.sqrt(squares[keep])
            axes = wide.T @ (left[:, keep] / scale)
            return cls((left[:, keep] * scale).astype(np.float32), scale, axes)
        squares, axes = np.linalg.eigh(wide.T @ wide)
        keep = squares > max(float(squares[-1]), 1e-30) * 1e-9
        return cls((wide @ axes[:, keep]).astype(np.float32), np.sqrt(squares[keep]), axes[:, keep])


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
    found = minimize(
        search.loss,
        np.zeros(search.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "ftol": tolerance, "gtol": 1e-6, "maxcor": 5},
    )
    return search.heads(found.x)


class _Search:
    """The loss as a function of one flat vector, in coordinates where it is nearly round."""

    def __init__(
        self, basis: Basis, labels: NDArray[np.int64], n_classes: int, weights_BN: F64, l2_B: F64
    ) -> None:
        fits, count = weights_BN.shape
        width = basis.rows.shape[1]
        self._rows = basis.rows
        self._shape = (width, fits, n_classes)
        self._split = width * fits * n_classes
        self.size = self._split + fits * n_classes
        self._l2 = l2_B.astype(np.float32)[None, :, None]
        self._weights = np.ascontiguousarray(weights_BN.T, dtype=np.float32)[:, :, None]
        self._labels = labels
        self._items = np.arange(count)
        seen = np.zeros((fits, n_classes), bool)
        for fit in range(fits):
            seen[fit, labels[weights_BN[fit] > 0]] = True
        self._seen = seen
        self._mask = np.where(seen, np.float32(0), _ABSENT).astype(np.float32)
        # Curvature along each axis, bounded as in Boehning 1992: dividing it out makes L-BFGS take
        # tens of steps where the raw coordinates take hundreds.
        mean_weight = weights_BN.mean(axis=1)
        curvature = 0.25 * basis.scale[:, None] ** 2 * mean_weight + l2_B
        self._step = (1.0 / np.sqrt(curvature)).astype(np.float32)[:, :, None]
        self._bias_step = (
            1.0 / np.sqrt(0.25 * weights_BN.sum(axis=1, keepdims=True) + 1e-3)
        ).astype(np.float32)

    def _unpack(self, flat: F64) -> tuple[F32, F32]:
        vector = flat.astype(np.float32)
        weights = vector[: self._split].reshape(self._shape) * self._step
        return weights, vector[self._split :].reshape(self._shape[1:]) * self._bias_step

    def loss(self, flat: F64) -> tuple[float, F64]:
        width, fits, classes = self._shape
        weights, biases = self._unpack(flat)
        logits = self._rows @ weights.reshape(width, fits * classes)
        logits = logits.reshape(-1, fits, classes)
        logits += biases + self._mask
        logits -= logits.max(axis=2, keepdims=True)
        # A held-out label of a class the fit lacks has weight 0: keep 0 * 1e9 out of the sum.
        of_label = np.maximum(logits[self._items, :, self._labels], np.float32(-1e4))
        np.exp(logits, out=logits)
        sums = logits.sum(axis=2)
        cross = (self._weights[:, :, 0] * (np.log(sums) - of_label)).sum(dtype=np.float64)
        prior = 0.5 * (self._l2 * weights.astype(np.float64) ** 2).sum()
        logits /= sums[:, :, None]
        logits[self._items, :, self._labels] -= 1.0
        logits *= self._weights
        slope = self._rows.T @ logits.reshape(-1, fits * classes)
        slope = (slope.reshape(self._shape) + self._l2 * weights) * self._step
        bias_slope = logits.sum(axis=0) * self._bias_step * self._seen
        gradient = np.concatenate([slope.ravel(), bias_slope.ravel()]).astype(np.float64)
        return float(cross + prior), gradient

    def heads(self, flat: F64) -> Heads:
        weights, biases = self._unpack(flat)
        return Heads(weights.transpose(1, 0, 2).copy(), biases + self._mask)
