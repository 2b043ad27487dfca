"""A head without regularisation: right on every label it was fitted on, and far too sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.heads.problem import fold_count, stratified_folds
from model.heads.softmax import Basis, normalise
from model.uncertainty import Estimator, FittedEstimator
from model.uncertainty.frame import reserve_unseen

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

HIDDEN = (64, 64)
STEPS = 1500
RATE = 0.01
FADE = 0.9, 0.999  # Adam's
TINY = 1e-15


class Overfitted:
    """Two hidden layers, no weight decay, no dropout, trained long after all labels are right.

    An estimator like any other, so that the engine calibrates it as it would its own: what is held
    out of a fold is predicted by a network trained the same way on the others.
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
        weights: F64 | None = None,
    ) -> FittedEstimator:
        del progress, weights
        rows = normalise(features, centre)
        rng = np.random.default_rng(seed)
        fold = stratified_folds(labels, fold_count(len(labels)), rng)
        kept = [np.ones(len(labels), bool), *(fold != f for f in range(fold.max() + 1))]
        fitted = [_network(rows[used], labels[used], n_classes, centre, seed) for used in kept]
        out_of_fold = np.empty((len(labels), 1, n_classes))
        for f, network in enumerate(fitted[1:]):
            out_of_fold[fold == f] = network.sample(features[fold == f])
        return FittedEstimator(fitted[0], out_of_fold)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        raise NotImplementedError("made for a benchmark, never stored")


def _network(rows: F32, labels: Ints, n_classes: int, centre: F32, seed: int) -> Network:
    """Trained in the span of its own rows, which is all that they can tell it.

    In the span of all labels a held-out row would be orthogonal to the others.
    """
    axes = Basis.of(rows).axes.astype(np.float32)
    scale = np.float32(np.sqrt(axes.shape[1]))  # so that inputs vary by about 1
    weights, biases = train(rows @ axes * scale, labels, n_classes, seed)
    weights[0] = axes @ weights[0] * scale
    seen = np.bincount(labels, minlength=n_classes) > 0
    return Network(weights, biases, centre, seen, len(labels))


def train(rows: F32, labels: Ints, n_classes: int, seed: int) -> tuple[list[F32], list[F32]]:
    """Minimise the mean cross-entropy and nothing else: all rows in each step, by Adam.

    Source:
        Kingma and Ba 2015, arXiv:1412.6980; first weights as He et al. 2015, arXiv:1502.01852.
    """
    rng = np.random.default_rng(seed)
    sizes = [rows.shape[1], *HIDDEN, n_classes]
    weights = [_drawn(rng, a, b) for a, b in pairwise(sizes)]
    biases = [np.zeros(size, np.float32) for size in sizes[1:]]
    moving = [*weights, *biases]
    mean, square = [np.zeros_like(p) for p in moving], [np.zeros_like(p) for p in moving]
    for step in range(1, STEPS + 1):
        slopes = _slopes(rows, labels, weights, biases)
        for number, slope in enumerate(slopes):
            mean[number] += (1.0 - FADE[0]) * (slope - mean[number])
            square[number] += (1.0 - FADE[1]) * (slope**2 - square[number])
            size = np.sqrt(square[number] / (1.0 - FADE[1] ** step)) + TINY
            moving[number] -= RATE / (1.0 - FADE[0] ** step) * mean[number] / size
    return weights, biases


def _drawn(rng: np.random.Generator, rows: int, columns: int) -> F32:
    drawn: F32 = rng.standard_normal((rows, columns), dtype=np.float32)
    return drawn * np.float32(np.sqrt(2.0 / rows))


def _slopes(rows: F32, labels: Ints, weights: list[F32], biases: list[F32]) -> list[F32]:
    """Of the mean cross-entropy, in the order of the weights, then the biases."""
    layers = [rows]
    for matrix, bias in zip(weights[:-1], biases[:-1], strict=True):
        layers.append(np.maximum(layers[-1] @ matrix + bias, 0.0))
    probs = _softmax((layers[-1] @ weights[-1] + biases[-1]).astype(np.float64))
    each = np.arange(len(labels))
    probs[each, labels] = 0.0  # what is missing to 1 is the sum of the others, however little
    probs[each, labels] = -probs.sum(axis=1)
    back: F32 = (probs / len(labels)).astype(np.float32)
    of_weights: list[F32] = []
    of_biases: list[F32] = []
    for number in reversed(range(len(weights))):
        of_weights.insert(0, layers[number].T @ back)
        of_biases.insert(0, back.sum(axis=0))
        back = (back @ weights[number].T) * (layers[number] > 0)
    return [*of_weights, *of_biases]


def _softmax(logits: F64) -> F64:
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


@dataclass(frozen=True)
class Network:
    """Rectified layers and a softmax; classes without a label get what is reserved for them."""

    weights: list[F32]
    biases: list[F32]
    centre: F32
    seen: NDArray[np.bool_]
    n_labels: int

    passes = 1

    def rows(self, features: F32) -> F32:
        return normalise(features, self.centre)

    def sample(self, features: F32) -> F64:
        return self.sample_rows(self.rows(features))

    def sample_rows(self, rows: F32) -> F64:
        for matrix, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = np.maximum(rows @ matrix + bias, 0.0)
        logits = (rows @ self.weights[-1] + self.biases[-1]).astype(np.float64)
        logits[:, ~self.seen] = -np.inf
        return reserve_unseen(_softmax(logits), self.seen, self.n_labels)[:, None]

    def arrays(self) -> dict[str, NDArray[Any]]:
        raise NotImplementedError("made for a benchmark, never stored")
