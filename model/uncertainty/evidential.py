"""Evidential head: one pass gives a Dirichlet, whose parts of uncertainty are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import psi

from model.heads.evidence import BinaryEvidence, Evidence, concentrations
from model.heads.problem import FIT_TOLERANCE, Problem
from model.heads.softmax import Loss, Search
from model.uncertainty.base import Estimator, FittedEstimator
from model.uncertainty.frame import Frame, FramedEstimator, ProblemFamily, assemble

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PASSES = 2
HELD = 0.01  # weight of the divergence at the end
STEPS = 2  # it grows to that from nothing
STEP_ITERATIONS = 5
ENOUGH = 1e-6  # nats; a Newton step from there squares it


class Evidential(ProblemFamily):
    """Fits evidence for each class; what little there is of it is epistemic.

    Where an image may have several classes, evidence for and against each: a Beta a class.

    Source:
        Sensoy et al. 2018, arXiv:1806.01768.
    """

    passes = PASSES
    joint = False

    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Fit all heads in one search from the regressions, while the divergence is annealed."""
        weights_BN = problem.fit_weights
        losses = [_loss(problem, HELD * step / STEPS) for step in range(STEPS + 1)]
        search = Search(problem.basis, losses[0], weights_BN, np.full(len(weights_BN), problem.l2))
        search.start_at(_start(problem))
        for loss in losses[:-1]:
            search.run(FIT_TOLERANCE, loss=loss, iterations=STEP_ITERATIONS)
        heads = search.run(FIT_TOLERANCE, loss=losses[-1])

        def build(number: int) -> EvidentialEstimator:
            return EvidentialEstimator(
                frame=Frame.of(problem, number),
                weights=(problem.basis.axes @ heads.weights[number]).astype(np.float32),
                biases=heads.biases[number],
            )

        return assemble(problem, build, {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `EvidentialEstimator.arrays`."""
        return EvidentialEstimator(Frame.restore(arrays), arrays["weights"], arrays["biases"])


def _start(problem: Problem) -> F32:
    """``(B, R, C)`` where the search begins: from 0 it takes twice as long."""
    weights = problem.heads.weights
    return np.concatenate([-weights, weights], axis=2) if problem.multi_label else weights


def _loss(problem: Problem, held: float) -> Loss:
    if problem.multi_label:
        return BinaryEvidence(problem.labels.astype(bool), held)
    return Evidence(problem.labels.astype(np.int64), problem.n_classes, held)


@dataclass(frozen=True)
class EvidentialEstimator(FramedEstimator):
    """A head whose logits are log evidence.

    Attributes:
        frame: how features become rows.
        weights: ``(D, C)`` on rows; ``(D, 2 C)`` where an image may have several classes, first
            those for no.
        biases: ``(C,)`` or ``(2 C,)``.
    """

    weights: F32
    biases: F32

    passes: int = PASSES

    def alpha(self, rows: F32) -> F64:
        """``(N, C)`` concentrations, at least 1; 0 for classes without a label.

        `measures.vacuity` and `measures.dirichlet_entropy` take the columns of `frame.seen`. Where
        an image may have several classes ``(N, C, 2)``, of no and of yes, at least 1 for all.
        """
        found = concentrations((rows @ self.weights + self.biases).astype(np.float64))
        if self.frame.positives is not None:
            return found.reshape(len(rows), 2, -1).transpose(0, 2, 1)
        return found * self.frame.seen

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, 2, C)``, see `two_points`."""
        seen = self.frame.seen
        if self.frame.positives is not None:
            yes = two_points(self.alpha(rows).reshape(-1, 2))[:, :, 1]
            answers = yes.reshape(len(rows), len(seen), self.passes).transpose(0, 2, 1)
            return self.frame.reserve(np.ascontiguousarray(answers))
        if seen.all():
            return two_points(self.alpha(rows))
        passes = np.zeros((len(rows), self.passes, len(seen)))
        passes[:, :, seen] = two_points(self.alpha(rows)[:, seen])
        return self.frame.reserve(passes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays."""
        return {**self.frame.arrays(), "weights": self.weights, "biases": self.biases}


def two_points(alpha: F64) -> F64:
    """Two probability vectors with the mean and the expected entropy of a Dirichlet.

    They lie opposite each other about its mean, in a direction in which the classes, taken in
    order of probability, pull by turns, each as far as its standard deviation. So
    `measures.decompose` gives of the two what the Dirichlet has: total, aleatoric and epistemic.

    Args:
        alpha: ``(N, C)`` concentrations, at least 1 each: below that two points need not exist.

    Returns:
        ``(N, 2, C)``.
    """
    count, classes = alpha.shape
    sums = alpha.sum(axis=1, keepdims=True)
    mean = alpha / sums
    if classes < 2:
        return np.ones((count, 2, classes))
    entropy = -(mean * np.log(mean)).sum(axis=1)
    epistemic = np.maximum(entropy - (mean * (psi(sums + 1.0) - psi(alpha + 1.0))).sum(axis=1), 0)
    roots = np.sqrt(mean)
    signs = np.empty_like(mean)
    order = np.argsort(-mean, axis=1, kind="stable")
    signs[np.arange(count)[:, None], order] = _turns(classes)
    pull = signs / roots - (roots * signs).sum(axis=1, keepdims=True)
    reach = 1.0 / np.abs(pull).max(axis=1)
    step = _step(mean, np.abs(pull) * reach[:, None], epistemic) * reach
    shift = mean * pull * step[:, None]
    return np.stack([mean + shift, mean - shift], axis=1)


@lru_cache(maxsize=8)
def _turns(classes: int) -> F64:
    """``(C,)`` +1 and -1 by turns, and the turns by turns (Thue-Morse): sums stay balanced."""
    bits = np.array([number.bit_count() & 1 for number in range(classes)])
    return 1.0 - 2.0 * bits.astype(np.float64)


def _step(mean: F64, pull: F64, epistemic: F64) -> F64:
    """How far to go, 0 to 1 of the way to the edge, for the mean entropy to fall by `epistemic`.

    The fall is ``sum m phi(t u)``, ``phi(v) = v artanh(v) + log(1 - v^2) / 2``: a growing
    convex function of t^2, nearly straight, so Newton steps from above never pass the answer; they
    begin where the first two terms of its series, ``t^2 u^2 / 2 + t^4 u^4 / 12``, make the fall.
    """
    pulled = mean * pull
    square = pulled * pull
    first = 0.5 * square.sum(axis=1)
    second = (square * pull * pull).sum(axis=1) / 12.0
    root = first + np.sqrt(first * first + 4.0 * second * epistemic)
    step: F64 = np.sqrt(np.minimum(2.0 * epistemic / np.maximum(root, 1e-300), 1.0))
    for _ in range(8):
        v = np.minimum(pull * step[:, None], 1.0 - 1e-12)
        slope = (pulled * np.arctanh(v)).sum(axis=1)
        beyond = step * slope + 0.5 * (mean * np.log1p(-v * v)).sum(axis=1) - epistemic
        squared = step * (step - 2.0 * beyond / np.maximum(slope, 1e-300))
        step = np.sqrt(np.clip(squared, 1e-30, 1.0))
        if np.abs(beyond).max(initial=0.0) < ENOUGH:
            break
    return step
