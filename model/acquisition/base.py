"""What a rule is given, and geometry that several rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.types import Predictions

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Pool:
    """Everything a rule may look at.

    Attributes:
        features: ``(M, D)`` of the items without labels, M >= 1.
        labelled: ``(L, D)`` of those with, None when there are none.
        label_counts: ``(C,)`` labels of each class so far, when known.
        predictions: ``M`` of them, when there is a version.
    """

    features: F32
    labelled: F32 | None
    label_counts: Ints | None
    predictions: Predictions | None


class Rule(Protocol):
    """Chooses ``n`` of the pool's items, ``1 <= n <= M``, in the order to be labelled."""

    def __call__(self, pool: Pool, n: int, *, seed: int) -> Ints:
        """Give ``(n,)`` distinct indices."""


def unit_rows(features: F32, centre: F32) -> F32:
    """Centred rows of length 1; rows at the centre stay 0, so that nothing is divided by 0."""
    rows: F32 = (features - centre).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def mean_row(features: F32) -> F32:
    """``(D,)`` mean, summed in float64 in blocks."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), BLOCK_ROWS):
        total += features[start : start + BLOCK_ROWS].sum(axis=0, dtype=np.float64)
    return (total / len(features)).astype(np.float32)


def squared_lengths(rows: F32) -> F32:
    """``(N,)``."""
    lengths: F32 = np.einsum("nd,nd->n", rows, rows)
    return lengths


def squared_distances(rows: F32, centres: F32, lengths: F32 | None = None) -> F32:
    """``(N, K)``, never negative; `lengths` are the rows' squared lengths where they are known."""
    squares: F32 = rows @ centres.T
    squares *= -2.0
    squares += (squared_lengths(rows) if lengths is None else lengths)[:, None]
    squares += squared_lengths(centres)[None, :]
    return np.maximum(squares, 0.0, out=squares)


def seed_centres(rows: F32, weights: F64, k: int, rng: np.random.Generator) -> Ints:
    """k-means++: each next centre drawn with probability weight times squared distance.

    Returns:
        At most `k` distinct indices; fewer when fewer rows are distinct.

    Source:
        Arthur and Vassilvitskii 2007.
    """
    chosen = [_draw(weights, rng)]
    lengths = squared_lengths(rows)
    nearest = squared_distances(rows, rows[chosen], lengths)[:, 0].astype(np.float64)
    for _ in range(min(k, len(rows)) - 1):
        nearest[chosen[-1]] = 0.0
        mass = weights * np.where(nearest > 1e-9, nearest, 0.0)
        if mass.sum() <= 0.0:
            break
        chosen.append(_draw(mass, rng))
        np.minimum(nearest, squared_distances(rows, rows[chosen[-1:]], lengths)[:, 0], out=nearest)
    return np.array(chosen, np.int64)


def _draw(mass: F64, rng: np.random.Generator) -> int:
    total = np.cumsum(mass)
    return int(min(np.searchsorted(total, rng.random() * total[-1], "right"), len(mass) - 1))


def k_means(
    rows: F32, weights: F64, k: int, rng: np.random.Generator, *, iterations: int = 20
) -> tuple[Ints, F32]:
    """Weighted k-means from k-means++ seeds.

    Args:
        rows: ``(N, D)``.
        weights: ``(N,)`` positive.
        k: clusters wanted; fewer come when fewer rows are distinct.
        rng: source of the seeds.
        iterations: at most.

    Returns:
        ``(N,)`` cluster of each row, and ``(N,)`` squared distance to its centre.
    """
    centres = rows[seed_centres(rows, weights, k, rng)].copy()
    cluster = np.full(len(rows), -1, np.int64)
    distance = np.zeros(len(rows), np.float32)
    lengths = squared_lengths(rows)
    for _ in range(iterations):
        before = cluster
        cluster, distance = assign(rows, centres, lengths)
        if np.array_equal(before, cluster):
            break
        mass = np.bincount(cluster, weights=weights, minlength=len(centres))
        sums = np.zeros(centres.shape)
        order = np.argsort(cluster, kind="stable")
        starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
        weighted = rows[order] * weights[order, None]
        sums[cluster[order[starts]]] = np.add.reduceat(weighted, starts, axis=0)
        filled = mass > 0  # an emptied cluster keeps its centre
        centres[filled] = (sums[filled] / mass[filled, None]).astype(np.float32)
    return cluster, distance


def assign(rows: F32, centres: F32, lengths: F32 | None = None) -> tuple[Ints, F32]:
    """Nearest centre of each row and the squared distance to it, in blocks."""
    lengths = squared_lengths(rows) if lengths is None else lengths
    cluster = np.empty(len(rows), np.int64)
    distance = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        squares = squared_distances(rows[start:stop], centres, lengths[start:stop])
        nearest = squares.argmin(axis=1)
        cluster[start : start + BLOCK_ROWS] = nearest
        distance[start : start + BLOCK_ROWS] = squares[np.arange(len(nearest)), nearest]
    return cluster, distance
