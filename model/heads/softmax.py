"""Multinomial logistic regression with a Gaussian prior, many fits at once.

Every fit minimises ``sum of weighted cross-entropies + l2 / 2 * |W|^2``, intercepts free. Fits that
share their features (folds, values of l2, class weights) are columns of one matrix product and
steps of one L-BFGS run: 6 fits cost about 3 times one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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

    def __call__(self, logits: F32, weights_NB: F32) -> tuple[float, F32]:
        """``(N, B, C)`` logits, which may be overwritten, to the loss and its slope in them."""


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

    def __call__(self, logits: F32, weights_NB: F32) -> tuple[float, F32]:
        """Sum of weighted cross-entropies, and its slope."""
        items = np.arange(len(self.labels))
        logits -= logits.max(axis=2, keepdims=True)
        # A held-out label of a class the fit lacks has weight 0: keep 0 * 1e9 out of the sum.
        of_label = np.maximum(logits[items, :, self.labels], np.float32(-1e4))
        np.exp(logits, out=logits)
        sums = logits.sum(axis=2)
        cross = (weights_NB * (np.log(sums) - of_label)).sum(dtype=np.float64)
        logits /= sums[:, :, None]
        logits[items, :, self.labels] -= 1.0
        logits *= weights_NB[:, :, None]
        return float(cross), logits


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
    """B fits of one loss as one flat vector, in coordinates where the loss is nearly round."""

    def __init__(self, basis: Basis, loss: Loss, weights_BN: F64, l2_B: F64) -> None:
        self._rows = basis.rows
        self._loss = loss
        self._seen = loss.seen(weights_BN)
        self._shape = (basis.rows.shape[1], *self._seen.shape)
        self._split = int(np.prod(self._shape))
        self._found = np.zeros(self._split + self._seen.size)
        self._l2 = l2_B.astype(np.float32)[None, :, None]
        self._weights = np.ascontiguousarray(weights_BN.T, dtype=np.float32)
        self._mask = np.where(self._seen, np.float32(0), _ABSENT).astype(np.float32)
        # Curvature along each axis, bounded as in Boehning 1992: dividing it out makes L-BFGS take
        # tens of steps where the raw coordinates take hundreds.
        mean_weight = weights_BN.mean(axis=1)
        curvature = 0.25 * basis.scale[:, None] ** 2 * mean_weight + l2_B
        self._step = (1.0 / np.sqrt(curvature)).astype(np.float32)[:, :, None]
        self._bias_step = (
            1.0 / np.sqrt(0.25 * weights_BN.sum(axis=1, keepdims=True) + 1e-3)
        ).astype(np.float32)

    def start_at(self, weights: F32) -> None:
        """Begin at ``(B, R, C)`` weights instead of 0."""
        self._found[: self._split] = (weights.transpose(1, 0, 2) / self._step).ravel()

    def run(
        self, tolerance: float, *, loss: Loss | None = None, iterations: int = _MAX_ITERATIONS
    ) -> Heads:
        """Search on from where the last run ended, for another loss where one is given."""
        self._loss = loss or self._loss
        found = minimize(
            self._cost,
            self._found,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "ftol": tolerance, "gtol": 1e-6, "maxcor": 5},
        )
        self._found = found.x
        weights, biases = self._unpack(found.x)
        return Heads(weights.transpose(1, 0, 2).copy(), biases + self._mask)

    def _unpack(self, flat: F64) -> tuple[F32, F32]:
        vector = flat.astype(np.float32)
        weights = vector[: self._split].reshape(self._shape) * self._step
        return weights, vector[self._split :].reshape(self._shape[1:]) * self._bias_step

    def _cost(self, flat: F64) -> tuple[float, F64]:
        width, fits, classes = self._shape
        weights, biases = self._unpack(flat)
        logits = self._rows @ weights.reshape(width, fits * classes)
        logits = logits.reshape(-1, fits, classes)
        logits += biases + self._mask
        cross, slope_NBC = self._loss(logits, self._weights)
        prior = 0.5 * (self._l2 * weights.astype(np.float64) ** 2).sum()
        slope = self._rows.T @ slope_NBC.reshape(-1, fits * classes)
        slope = (slope.reshape(self._shape) + self._l2 * weights) * self._step
        bias_slope = slope_NBC.sum(axis=0) * self._bias_step * self._seen
        gradient = np.concatenate([slope.ravel(), bias_slope.ravel()]).astype(np.float64)
        return float(cross + prior), gradient
