"""Balls that cover as much of the pool as possible, whatever the model says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import (
    F32,
    Ints,
    Pool,
    Selection,
    assign,
    filled,
    k_means,
    squared_distances,
)

MOST_ROWS = 8_000  # the graph has that many squared bits and bytes
BLOCK = 1_000
PURITY = 0.95


def probcover(pool: Pool, n: int, *, seed: int) -> Selection:
    """Greedy maximum cover by balls round the items, less what the labelled items cover.

    The radius is the largest at which 95 % of the balls are pure, that is hold items of one cluster
    of k-means only, with as many clusters as classes. Of a pool of more than 8,000 a random 8,000
    is looked at. Once everything is covered the rest is drawn.

    Source:
        Yehuda et al. 2022, arXiv:2205.11320.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.features)).astype(np.int64)
    looked_at = np.sort(order[:MOST_ROWS])
    rows = pool.project(pool.features[looked_at])
    classes = n if pool.label_counts is None else len(pool.label_counts)
    radius = pure_radius(rows, k_means(rows, np.ones(len(rows)), max(classes, 2), rng)[0])
    open_rows = np.ones(len(rows), bool)
    if pool.labelled is not None:
        open_rows = np.sqrt(assign(rows, pool.known_rows)[1]) >= radius
    return Selection(filled(looked_at[cover(rows, radius, open_rows, n)], order, n))


def pure_radius(rows: F32, cluster: Ints) -> float:
    """Largest radius at which 95 % of the open balls hold rows of their own cluster only.

    A ball is pure up to the distance of the nearest row of another cluster, so this is a quantile
    of those distances; infinite with one cluster.
    """
    foreign = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        squares = squared_distances(rows[start : start + BLOCK], rows)
        squares[cluster[start : start + BLOCK, None] == cluster] = np.inf
        foreign[start : start + BLOCK] = np.sqrt(squares.min(axis=1))
    return float(np.sort(foreign)[int((1.0 - PURITY) * len(rows))])


def cover(rows: F32, radius: float, open_rows: NDArray[np.bool_], n: int) -> Ints:
    """At most `n` rows, each with the most rows in its open ball that nothing covers yet.

    Args:
        rows: ``(N, d)``.
        radius: of the balls.
        open_rows: ``(N,)`` which are not covered from the start.
        n: at most; fewer when everything is covered.
    """
    near = np.empty((len(rows), len(rows)), bool)
    for start in range(0, len(rows), BLOCK):
        squares = squared_distances(rows[start : start + BLOCK], rows)
        near[start : start + BLOCK] = np.sqrt(squares) < radius
    near |= near.T  # rounding must not make it one-sided
    np.fill_diagonal(near, True)
    open_rows = open_rows.copy()
    covers = near[open_rows].sum(axis=0, dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < n and open_rows.any():
        chosen.append(int(covers.argmax()))
        closed = near[chosen[-1]] & open_rows
        open_rows &= ~closed
        covers -= near[closed].sum(axis=0, dtype=np.float32)
    return np.array(chosen, np.int64)
