"""Ensemble of small networks: each its own random hidden layer beside the features themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.heads.problem import Problem
from model.heads.softmax import Basis
from model.uncertainty.base import Estimator, FittedEstimator
from model.uncertainty.frame import Frame, FramedEstimator, ProblemFamily, assemble

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MEMBERS = 4
HIDDEN = 128
TOLERANCE = 1e-3  # of the fit, which begins at the plain head
GAIN = 0.7  # length of the hidden layer's values, where that of the features is 1


class NetworkEnsemble(ProblemFamily):
    """K networks from different seeds, on all labels each.

    A member's hidden layer stays as it was drawn and only what reads it is trained. So a member is
    a convex fit, all folds of it are one batched computation, and they differ where labels do not
    hold them together. Members on resampled labels lose accuracy.

    Source:
        Lakshminarayanan et al. 2017, arXiv:1612.01474; random hidden layers beside direct links:
        Pao, Park and Sobajic 1994 (RVFL).
    """

    passes = MEMBERS

    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Fit one member after the other, each with all its folds at once."""
        rng = np.random.default_rng([problem.seed, 4])
        shape = (MEMBERS, problem.rows.shape[1], HIDDEN)
        hidden = (rng.normal(size=shape) * (GAIN * np.sqrt(2.0 / HIDDEN))).astype(np.float32)
        fits = [_fit(problem, layer) for layer in hidden]

        def build(number: int) -> EnsembleEstimator:
            return EnsembleEstimator(
                frame=Frame.of(problem, number),
                hidden=hidden,
                weights=np.stack([weights[number] for weights, _ in fits]),
                biases=np.stack([biases[number] for _, biases in fits]),
            )

        return assemble(problem, build, {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `EnsembleEstimator.arrays`."""
        return EnsembleEstimator(
            Frame.restore(arrays), arrays["hidden"], arrays["weights"], arrays["biases"]
        )


def _fit(problem: Problem, hidden: F32) -> tuple[F32, F32]:
    """``(B, D + H, C)`` weights and ``(B, C)`` biases of one member, fitted from the plain head."""
    basis = Basis.of(widen(problem.rows, hidden))
    axes = basis.axes.astype(np.float32)
    start = axes[: problem.rows.shape[1]].T @ problem.lifted
    heads = problem.fit(basis, start, TOLERANCE)
    return axes @ heads.weights, heads.biases


def widen(rows: F32, hidden: F32) -> F32:
    """``(N, D + H)``: rows, and beside them what the hidden layer ``(D, H)`` makes of them."""
    return np.concatenate([rows, np.maximum(rows @ hidden, np.float32(0))], axis=1)


@dataclass(frozen=True)
class EnsembleEstimator(FramedEstimator):
    """K networks.

    Attributes:
        frame: how features become rows, and logits probabilities.
        hidden: ``(K, D, H)``.
        weights: ``(K, D + H, C)`` on rows and hidden values.
        biases: ``(K, C)``.
    """

    hidden: F32
    weights: F32
    biases: F32

    @property
    def passes(self) -> int:
        """K."""
        return len(self.weights)

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, K, C)``."""
        logits = np.empty((len(rows), self.passes, self.biases.shape[1]))
        for k, hidden in enumerate(self.hidden):
            logits[:, k] = widen(rows, hidden) @ self.weights[k] + self.biases[k]
        return self.frame.probs(logits)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        return {
            **self.frame.arrays(),
            "hidden": self.hidden,
            "weights": self.weights,
            "biases": self.biases,
        }
