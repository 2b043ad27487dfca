"""Last-layer Laplace: a Gaussian about the fitted head, K heads drawn from it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from model.calibration.temperature import fold_weights
from model.heads.problem import Problem
from model.uncertainty.base import Estimator, FittedEstimator
from model.uncertainty.frame import Frame, FramedEstimator, ProblemFamily, assemble

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PASSES = 20
# Times that of the head's own prior; with the last, passes hardly differ.
PRECISIONS = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
AXES = 256  # of the span of the labels, those along which they vary most
BEYOND = 32  # coordinates that stand for everything outside those axes


class LastLayerLaplace(ProblemFamily):
    """Regressions from the posterior about the fitted one, by curvature as a Kronecker product.

    The mean is the head of `Problem.heads`. Of the weights outside the chosen axes only the prior
    is known, so what an image has in common with no label is doubt: an image far from all labels
    gets passes that disagree. The precision of that prior has the least NLL of the passes' mean out
    of fold; the most probable one by the evidence lost 5 to 27 points of accuracy, since it takes
    the many features that no label has tried for as uncertain as the few that count.

    Source:
        Kronecker-factored Laplace: Ritter et al. 2018; of the last layer: Daxberger et al. 2021,
        arXiv:2106.14806.
    """

    passes = PASSES

    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Measure the curvature at every fit, choose the prior out of fold, draw."""
        posteriors = [Posterior.of(problem, n) for n in range(len(problem.fit_weights))]
        plane, noise = _plane(problem), _noise(problem, posteriors[0])

        def fitted(precision: float) -> FittedEstimator:
            def build(number: int) -> LaplaceEstimator:
                return LaplaceEstimator(
                    frame=Frame.of(problem, number),
                    weights=problem.lifted[number],
                    biases=problem.heads.biases[number],
                    plane=plane,
                    shifts=posteriors[number].draw(noise, precision),
                )

            return assemble(problem, build, {"posterior_precision": precision})

        believed = np.ones(len(problem.labels))
        if not problem.multi_label:
            believed = fold_weights(problem.labels.astype(np.int64))
        best, least = None, np.inf
        for factor in PRECISIONS:  # only the best is kept: with 1,000 classes each is large
            found = fitted(problem.l2 * factor)
            cost = float(believed @ problem.losses(found.out_of_fold.mean(axis=1)))
            if best is None or cost < least:
                best, least = found, cost
        assert best is not None
        return best

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `LaplaceEstimator.arrays`."""
        return LaplaceEstimator(
            Frame.restore(arrays),
            arrays["weights"],
            arrays["biases"],
            arrays["plane"],
            arrays["shifts"],
        )


def _axes(problem: Problem) -> slice:
    """The columns of the basis that are kept; they come in order of growing length."""
    return slice(max(0, problem.basis.rows.shape[1] - AXES), None)


def _plane(problem: Problem) -> F32:
    """``(D, R + M)``: the axes, and random directions at right angles to them."""
    rng = np.random.default_rng([problem.seed, 2])
    axes = problem.basis.axes[:, _axes(problem)]
    beyond = rng.normal(size=(axes.shape[0], BEYOND))
    beyond -= axes @ (axes.T @ beyond)
    return np.concatenate([axes, beyond], axis=1).astype(np.float32)


def _noise(problem: Problem, posterior: Posterior) -> F32:
    """``(K / 2, R + 1 + M, C)`` standard normal."""
    rng = np.random.default_rng([problem.seed, 3])
    width = len(posterior.inputs) + BEYOND
    return rng.standard_normal((PASSES // 2, width, problem.n_classes), np.float32)


@dataclass(frozen=True)
class Posterior:
    """Curvature of the loss at one fit: inputs along `axes` times classes along `turns`.

    The Hessian of the loss in the weights is taken as ``sum_i w_i x_i x_i'`` times the mean of
    ``diag(q_i) - q_i q_i'``; x carries a last coordinate 1 for the intercept.

    Attributes:
        inputs: ``(R + 1,)`` curvature along each axis of the inputs.
        axes: ``(R + 1, R + 1)``, columns.
        outputs: ``(C,)`` curvature along each mix of classes; 0 for classes without a label.
        turns: ``(C, C)``, columns.
        seen: ``(C,)`` classes that have a label.
    """

    inputs: F64
    axes: F64
    outputs: F64
    turns: F64
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: Problem, number: int) -> Posterior:
        """The curvature at fit `number` of a problem."""
        weights, head = problem.fit_weights[number], problem.heads
        logits = problem.basis.rows @ head.weights[number] + head.biases[number]
        kept = problem.basis.rows[:, _axes(problem)].astype(np.float64)
        x = np.concatenate([kept, np.ones((len(kept), 1))], axis=1)
        share_N = weights / weights.sum()
        if problem.multi_label:
            q = expit(logits.astype(np.float64))
            outputs, turns = share_N @ (q * (1.0 - q)), np.eye(q.shape[1])
        else:
            q = softmax(logits.astype(np.float64), axis=1)
            weighted = q * share_N[:, None]
            outputs, turns = np.linalg.eigh(np.diag(weighted.sum(axis=0)) - weighted.T @ q)
        inputs, axes = np.linalg.eigh((x * weights[:, None]).T @ x)
        return cls(
            inputs=np.maximum(inputs, 0.0),
            axes=axes,
            outputs=np.maximum(outputs, 0.0),
            turns=turns,
            seen=Frame.of(problem, number).seen,
        )

    def draw(self, noise: F32, precision: float) -> F32:
        """``(K, R + 1 + M, C)`` what each pass adds to the weights, in pairs: their mean is 0.

        Args:
            noise: ``(K / 2, R + 1 + M, C)`` standard normal.
            precision: of the prior.
        """
        width = len(self.inputs)
        spread = 1.0 / np.sqrt(np.outer(self.inputs, self.outputs) + precision)
        inside = self.axes.astype(np.float32) @ (noise[:, :width] * spread.astype(np.float32))
        inside = inside @ self.turns.T.astype(np.float32)
        outside = noise[:, width:] / np.float32(np.sqrt(precision))
        half = np.concatenate([inside, outside], axis=1) * self.seen
        return np.concatenate([half, -half]).astype(np.float32)


@dataclass(frozen=True)
class LaplaceEstimator(FramedEstimator):
    """A head and K that were drawn about it, as what they add.

    Attributes:
        frame: how features become rows, and logits probabilities.
        weights: ``(D, C)`` on rows.
        biases: ``(C,)``.
        plane: ``(D, R + M)`` where the drawn heads differ.
        shifts: ``(K, R + 1 + M, C)`` by how much: along the axes, in the intercept, beyond.
    """

    weights: F32
    biases: F32
    plane: F32
    shifts: F32

    @property
    def passes(self) -> int:
        """K."""
        return len(self.shifts)

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, K, C)``."""
        where = self.coordinates(rows)
        width, (passes, depth, classes) = len(rows), self.shifts.shape
        shifts = self.shifts.transpose(1, 0, 2).reshape(depth, passes * classes)
        logits = (where @ shifts).reshape(width, passes, classes).astype(np.float64)
        logits += (rows @ self.weights + self.biases)[:, None, :]
        return self.frame.probs(logits)

    def coordinates(self, rows: F32) -> F32:
        """``(N, R + 1 + M)``: along the axes, 1, and what is left, at its true length."""
        along = rows @ self.plane
        width = self.shifts.shape[1] - 1 - BEYOND
        inside, beyond = along[:, :width], along[:, width:]
        left = (rows**2).sum(axis=1) - (inside**2).sum(axis=1)
        length = np.linalg.norm(beyond, axis=1)
        scale = np.sqrt(np.maximum(left, 0.0)) / np.maximum(length, np.float32(1e-12))
        ones = np.ones((len(rows), 1), np.float32)
        return np.concatenate([inside, ones, beyond * scale[:, None]], axis=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        return {
            **self.frame.arrays(),
            "weights": self.weights,
            "biases": self.biases,
            "plane": self.plane,
            "shifts": self.shifts,
        }
