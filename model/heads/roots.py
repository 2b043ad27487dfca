"""Features or their square roots: which of the two a head predicts held-out labels from better.

Pooled activations are counts of a kind: a few large ones drown the rest, and the root evens them
out, which helps on some sets and costs on others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.heads.problem import SEARCH_LABELS, Labels, balanced_weights, search_l2
from model.heads.softmax import Basis, normalise

F32 = NDArray[np.float32]

_BLOCK_ROWS = 4096


def signed_root(features: F32) -> F32:
    """``sign(x) sqrt(|x|)``, the same shape.

    Source:
        Perronnin, Sanchez and Mensink 2010 (power normalisation).

    Example:
        >>> signed_root(np.array([4.0, 0.0, -9.0], np.float32)).tolist()
        [2.0, 0.0, -3.0]
    """
    roots: F32 = np.abs(features.astype(np.float32, copy=False))
    np.sqrt(roots, out=roots)  # in place: of a pool, fresh memory takes as long as the roots
    np.copysign(roots, features, out=roots)
    return roots


def mean_root(features: F32) -> F32:
    """``(D,)`` mean of the roots, in blocks; at least one row."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _BLOCK_ROWS):
        block = signed_root(features[start : start + _BLOCK_ROWS])
        total += block.sum(axis=0, dtype=np.float64)
    return (total / len(features)).astype(np.float32)


def roots_help(
    features: F32, labels: Labels, n_classes: int, *, centre: F32, root_centre: F32, seed: int
) -> bool:
    """Whether the cross-validated loss is lower with roots by more than one standard error.

    Both are judged on the same held-out labels, each with its own best prior, on at most 300.
    """
    chosen = np.random.default_rng(seed).permutation(len(labels))[:SEARCH_LABELS]
    features, labels = features[chosen], labels[chosen]
    weights = balanced_weights(labels, n_classes)
    losses = []
    for rows in (normalise(features, centre), normalise(signed_root(features), root_centre)):
        rng = np.random.default_rng(seed)  # the same folds
        losses.append(search_l2(Basis.of(rows), labels, n_classes, weights, rng)[1])
    gain = losses[0] - losses[1]
    if len(gain) < 2:
        return False
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))
