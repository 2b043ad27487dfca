"""A head without regularisation: right on every label it was fitted on, and far too sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.heads.problem import fold_count, stratified_folds
from model.heads.softmax import Basis, fit_heads, normalise
from model.uncertainty import Estimator, FittedEstimator
from model.uncertainty.frame import reserve_unseen

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

L2 = 1e-9
TOLERANCE = 1e-12


class Overfitted:
    """An estimator like any other, so that the engine calibrates it as it would its own."""

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
        del progress
        rows = normalise(features, centre)
        rng = np.random.default_rng(seed)
        fold = stratified_folds(labels, fold_count(len(labels)), rng)
        kept = [np.ones(len(labels), bool), *(fold != f for f in range(fold.max() + 1))]
        fitted = [_head(rows[used], labels[used], n_classes, centre) for used in kept]
        out_of_fold = np.empty((len(labels), 1, n_classes))
        for f, head in enumerate(fitted[1:]):
            out_of_fold[fold == f] = head.sample(features[fold == f])
        return FittedEstimator(fitted[0], out_of_fold)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        raise NotImplementedError("made for a benchmark, never stored")


def _head(rows: F32, labels: Ints, n_classes: int, centre: F32) -> _Head:
    """Fitted in the span of its own rows: without a prior, that of all rows would tell on others.

    In the span of all labels a held-out row is orthogonal to the others, once nothing pulls the
    weights to where features really vary.
    """
    basis = Basis.of(rows)
    heads = fit_heads(
        basis,
        labels,
        n_classes,
        weights_BN=np.ones((1, len(labels))),
        l2_B=np.array([L2]),
        tolerance=TOLERANCE,
    )
    return _Head(
        basis.axes @ heads.weights[0],
        heads.biases[0],
        centre,
        np.bincount(labels, minlength=n_classes) > 0,
        len(labels),
    )


class _Head:
    passes = 1

    def __init__(
        self, weights: F32, biases: F32, centre: F32, seen: NDArray[np.bool_], count: int
    ) -> None:
        self._weights, self._biases, self._centre = weights, biases, centre
        self._seen, self._count = seen, count

    def sample(self, features: F32) -> F64:
        logits = (normalise(features, self._centre) @ self._weights).astype(np.float64)
        logits += self._biases
        logits -= logits.max(axis=1, keepdims=True)
        probs = np.exp(logits)
        probs /= probs.sum(axis=1, keepdims=True)
        return reserve_unseen(probs, self._seen, self._count)[:, None]

    def arrays(self) -> dict[str, NDArray[Any]]:
        raise NotImplementedError("made for a benchmark, never stored")
