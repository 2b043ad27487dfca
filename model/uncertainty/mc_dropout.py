"""Monte Carlo dropout on the cached features: a head trained for it, read with T fixed masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from model.heads.problem import Problem
from model.heads.softmax import Basis
from model.uncertainty.base import Estimator, FittedEstimator
from model.uncertainty.frame import Frame, FramedEstimator, ProblemFamily, assemble

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PASSES = 20


class FeatureDropout(ProblemFamily):
    """Drops half of the features, at training and at prediction.

    Training needs no masks: to second order, dropout adds to the loss of an image the variance
    that it gives the logits times half their curvature, which is a prior that holds a weight the
    harder the more its feature moves the images the head doubts. Such a prior is a scale of each
    feature, so the fit stays one batched logistic regression.

    Masks come in pairs, a mask and what it leaves out: each pass is plain dropout at rate 1/2,
    the mean logit of a pair is that of the whole head, and the second of a pair costs no product.

    Source:
        Gal and Ghahramani 2016, arXiv:1506.02142; the prior: Wager, Wang and Liang 2013,
        arXiv:1307.1493, here averaged over classes.
    """

    passes = PASSES

    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Fit with the prior that stands for dropout."""
        scale_D = np.sqrt(1.0 + dropout_precision(problem) / problem.l2)
        basis = Basis.of((problem.rows / scale_D).astype(np.float32))
        start = basis.axes.T.astype(np.float32) @ (problem.lifted * scale_D[:, None])
        heads = problem.fit(basis, start.astype(np.float32))
        rng = np.random.default_rng([problem.seed, 1])
        kept = rng.random((PASSES // 2, problem.rows.shape[1])) < 0.5

        def build(number: int) -> DropoutEstimator:
            weights = (basis.axes @ heads.weights[number]) / scale_D[:, None]
            return DropoutEstimator(
                frame=Frame.of(problem, number),
                weights=weights.astype(np.float32),
                biases=heads.biases[number],
                kept=kept,
            )

        return assemble(problem, build, {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `DropoutEstimator.arrays`."""
        kept = arrays["kept"].astype(bool)
        return DropoutEstimator(Frame.restore(arrays), arrays["weights"], arrays["biases"], kept)


def dropout_precision(problem: Problem) -> F64:
    """``(D,)`` precision that dropout at rate 1/2 adds to the prior of each feature's weights.

    The sum over labels of ``x_d^2 (1 - sum_c q_c^2) / (C - 1)``, with q the probabilities of the
    fit without dropout: the trace of the curvature, over the directions in which weights differ
    between classes. With several classes an image: the mean of ``q_c (1 - q_c)``.
    """
    head = problem.heads
    logits = problem.basis.rows @ head.weights[0] + head.biases[0]
    if problem.multi_label:
        q = expit(logits.astype(np.float64))
        spread_N = (q * (1.0 - q)).mean(axis=1)
    else:
        q = softmax(logits.astype(np.float64), axis=1)
        seen = int((problem.counts(0) > 0).sum())
        spread_N = (1.0 - (q**2).sum(axis=1)) / max(1, seen - 1)
    added: F64 = (problem.weights * spread_N) @ problem.rows.astype(np.float64) ** 2
    return added


@dataclass(frozen=True)
class DropoutEstimator(FramedEstimator):
    """One head and its masks.

    Attributes:
        frame: how features become rows, and logits probabilities.
        weights: ``(D, C)`` on rows.
        biases: ``(C,)``.
        kept: ``(T / 2, D)`` bool, the features that every other pass keeps.
    """

    weights: F32
    biases: F32
    kept: NDArray[np.bool_]

    @property
    def passes(self) -> int:
        """T."""
        return 2 * len(self.kept)

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, T, C)``."""
        count, classes = len(rows), len(self.biases)
        whole = rows @ self.weights
        if count < classes:  # what is smaller is masked
            masked = rows[:, None, :] * self.kept
            parts = np.tensordot(masked, self.weights, axes=1)
        else:
            each = [rows @ (self.weights * kept[:, None]) for kept in self.kept]
            parts = np.stack(each, axis=1)
        logits = np.empty((count, self.passes, classes))
        logits[:, 0::2] = 2.0 * parts + self.biases
        logits[:, 1::2] = 2.0 * (whole[:, None, :] - parts) + self.biases
        return self.frame.probs(logits)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        return {
            **self.frame.arrays(),
            "weights": self.weights,
            "biases": self.biases,
            "kept": self.kept.astype(np.uint8),
        }
