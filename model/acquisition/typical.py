"""Items that stand for many others: what to label before any model can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import (
    F32,
    Ints,
    Pool,
    Selection,
    assign,
    k_means,
    squared_distances,
)

NEIGHBOURS = 20
MOST_CLUSTERS = 500
SAMPLE_ROWS = 8_000  # k-means on more changes no choice worth its time
CLUSTER_ROWS = 1_000


def typical(pool: Pool, n: int, *, seed: int) -> Selection:
    """The densest item of each of the largest clusters that have no label yet.

    Pool and labelled items are clustered into as many clusters as there will be labels; an item is
    typical when its mean distance to its 20 nearest neighbours in the cluster is small. Clusters
    take turns, those with the fewest labels first and among them the largest.

    Source:
        Hacohen et al. 2022, arXiv:2202.02794 (TypiClust).
    """
    rng = np.random.default_rng(seed)
    k = min(len(pool.known) + n, MOST_CLUSTERS)
    cluster, known_cluster = _cluster(pool.rows, pool.known_rows, k, rng)
    labels_in = np.bincount(known_cluster, minlength=k)
    sizes = np.bincount(cluster, minlength=k)
    order = np.argsort(cluster, kind="stable")
    ends = np.cumsum(sizes)
    wanted = _turns(labels_in, sizes, n)
    picks: list[tuple[int, int, int]] = []  # how many labels its cluster has then, size, item
    for number in np.flatnonzero(wanted).tolist():
        members = order[ends[number] - sizes[number] : ends[number]]
        densest = _densest(pool.rows[members], int(wanted[number]), rng)
        for turn, member in enumerate(densest.tolist()):
            picks.append((int(labels_in[number]) + turn, -int(sizes[number]), int(members[member])))
    picks.sort()
    return Selection(np.array([index for _, _, index in picks[:n]], np.int64))


def _cluster(rows: F32, known: F32, k: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Cluster of every pool item and of every labelled one, fitted on a sample."""
    count = len(rows)
    sample = np.arange(count) if count <= SAMPLE_ROWS else rng.permutation(count)[:SAMPLE_ROWS]
    fitted = np.concatenate([rows[sample], known])
    found, _ = k_means(fitted, np.ones(len(fitted)), k, rng, iterations=10)
    known_cluster = found[len(sample) :]
    if len(sample) == count:
        return found[:count], known_cluster
    sums = np.zeros((k, rows.shape[1]))
    np.add.at(sums, found, fitted)
    centres = sums / np.maximum(np.bincount(found, minlength=k), 1)[:, None]
    return assign(rows, centres.astype(np.float32))[0], known_cluster


def _turns(labels_in: Ints, sizes: Ints, n: int) -> Ints:
    """How many items each cluster gives, when the one with the fewest labels gives next."""
    low, high = 0, int(labels_in.max(initial=0)) + n
    while low < high:  # the smallest level at which at least n items are given
        level = (low + high) // 2
        if int(np.clip(level - labels_in, 0, sizes).sum()) >= n:
            high = level
        else:
            low = level + 1
    result: Ints = np.clip(low - labels_in, 0, sizes)
    return result


def _densest(rows: F32, wanted: int, rng: np.random.Generator) -> Ints:
    """Indices of the `wanted` rows with the nearest neighbours, nearest first.

    Several from one cluster come from different parts of it, since the densest rows of all are
    often copies of each other.
    """
    order = np.argsort(_spacing(rows, rng), kind="stable")
    if wanted == 1 or wanted >= len(rows):
        return order[:wanted]
    part, _ = k_means(rows, np.ones(len(rows)), min(wanted, MOST_CLUSTERS), rng)
    _, first = np.unique(part[order], return_index=True)
    is_first = np.zeros(len(rows), bool)
    is_first[first] = True
    return np.concatenate([order[is_first], order[~is_first]])[:wanted]


def _spacing(rows: F32, rng: np.random.Generator) -> NDArray[np.float64]:
    """Sum of the distances to the 20 nearest rows (of at most 1,000): small where it is dense."""
    count = len(rows)
    others = rows if count <= CLUSTER_ROWS else rows[rng.permutation(count)[:CLUSTER_ROWS]]
    near = min(NEIGHBOURS, len(others) - 1)
    spacing = np.empty(count)
    for start in range(0, count, CLUSTER_ROWS):
        squares = squared_distances(rows[start : start + CLUSTER_ROWS], others)
        squares.partition(near, axis=1)  # the nearest is the row itself, or next to nothing
        spacing[start : start + CLUSTER_ROWS] = np.sqrt(squares[:, : near + 1]).sum(axis=1)
    return spacing
