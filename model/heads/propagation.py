"""Label propagation: what the neighbours of an image are labelled, carried along a graph.

Labels flow over the graph of nearest neighbours among the pool's images, labelled or not, so that
a class may follow the shape its images have in feature space; a new image reads what has arrived
at the pool's images nearest to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.directions import range_finder
from model.errors import ShapeError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

NEIGHBOURS = 10
READ_NEIGHBOURS = 10
ALPHA = 0.9  # share of a node's value that comes from its neighbours
STEPS = 20
SHARPNESS = 3  # power of the cosine that weights an edge, as Iscen et al. 2019

_BLOCK_ROWS = 512
_GROUP = 16
_AXES_ROWS = 4_000


def nearest(queries: F32, others: F32, k: int, *, skip_own: bool = False) -> tuple[Ints, F32]:
    """The k most similar rows of `others` for each query, exactly, in blocks.

    Args:
        queries: ``(N, d)`` rows of length 1.
        others: ``(M, d)`` rows of length 1, M >= 1.
        k: at most M are given (M - 1 with `skip_own`).
        skip_own: `queries` are `others`, and no row counts as its own neighbour.

    Returns:
        ``(N, k)`` indices and cosines, most similar first.
    """
    count = len(others) - int(skip_own)
    k = max(0, min(k, count))
    if len(queries) == 1 and k > 0:  # one image of a request: no block, no group
        alone = queries @ others.T
        found = _largest_of_one(alone[0], k)
        return found[None], alone[:, found]
    index = np.zeros((len(queries), k), np.int64)
    cosine = np.zeros((len(queries), k), np.float32)
    if k == 0:
        return index, cosine
    for start in range(0, len(queries), _BLOCK_ROWS):
        similar = queries[start : start + _BLOCK_ROWS] @ others.T
        rows = np.arange(len(similar))
        if skip_own:
            similar[rows, start + rows] = -np.inf
        index[start : start + len(rows)] = best = _largest(similar, k)
        cosine[start : start + len(rows)] = similar[rows[:, None], best]
    return index, cosine


def _largest(values: F32, k: int) -> Ints:
    """Columns of the k largest of each row, largest first.

    The k largest lie within the k groups of columns with the largest maxima, and maxima cost a
    tenth of what ordering does.
    """
    count, width = values.shape
    whole = width // _GROUP * _GROUP
    rows = np.arange(count)[:, None]
    if whole // _GROUP <= 4 * k:
        candidates = np.broadcast_to(np.arange(width), (count, width))
    else:
        tops = values[:, :whole].reshape(count, _GROUP, -1).max(axis=1)
        groups = np.argpartition(tops, -k, axis=1)[:, -k:]
        inside = groups[:, :, None] + np.arange(_GROUP) * (whole // _GROUP)
        rest = np.broadcast_to(np.arange(whole, width), (count, width - whole))
        candidates = np.concatenate([inside.reshape(count, -1), rest], axis=1)
    kept = values[rows, candidates]
    best = np.argpartition(-kept, k - 1, axis=1)[:, :k]
    order = np.argsort(-kept[rows, best], axis=1, kind="stable")
    found: Ints = candidates[rows, best[rows, order]].astype(np.int64)
    return found


def _largest_of_one(values: F32, k: int) -> Ints:
    """``(k,)`` places of the k largest, largest first: k times the largest that is left.

    After a forward pass has filled the caches most of the time goes into fetching code, and this
    needs the least of it: half the time of partitioning.
    """
    left = values.copy()
    found = np.empty(k, np.int64)
    for place in range(k):
        found[place] = largest = left.argmax()
        left[largest] = -np.inf
    return found


def knn_graph(rows: F32, k: int = NEIGHBOURS) -> sparse.csr_array:
    """Symmetric normalised graph ``D^-1/2 (A + A^T) D^-1/2`` of the k nearest neighbours.

    Args:
        rows: ``(M, d)`` of length 1; rows of 0 are connected to nothing.
        k: neighbours of each, fewer when there are fewer rows.

    Returns:
        ``(M, M)`` float32; ``A`` holds the cosines, cut at 0, to the power of 3.

    Source:
        Zhou et al. 2003; edges as Iscen et al. 2019, arXiv:1904.04717.
    """
    count = len(rows)
    index, cosine = nearest(rows, rows, k, skip_own=True)
    weight = np.maximum(cosine, 0.0) ** SHARPNESS
    starts = np.arange(count + 1) * index.shape[1]
    edges = sparse.csr_array((weight.ravel(), index.ravel(), starts), shape=(count, count))
    both = sparse.csr_array(edges + edges.T)
    degree = np.asarray(both.sum(axis=1)).ravel()
    root = np.divide(1.0, np.sqrt(degree), out=np.zeros(count, np.float32), where=degree > 0)
    both.data *= np.repeat(root, np.diff(both.indptr)) * root[both.indices]
    return both


def propagate(
    graph: sparse.csr_array, seeds: F32, *, alpha: float = ALPHA, steps: int = STEPS
) -> F32:
    """Let seeds flow: ``F = alpha S F + (1 - alpha) Y``, `steps` times.

    Args:
        graph: ``(M, M)`` from `knn_graph`.
        seeds: ``(M, Q)``, 0 at nodes without a label.
        alpha: below 1; with many steps F tends to ``(1 - alpha) (I - alpha S)^-1 Y``.
        steps: how far labels travel.

    Returns:
        ``(M, Q)``, never negative for seeds that are not.

    Source:
        Zhou et al. 2003, Learning with local and global consistency.
    """
    if seeds.ndim != 2 or len(seeds) != graph.shape[0]:
        raise ShapeError("seeds", expected=f"({graph.shape[0]}, Q)", got=seeds.shape)
    source = np.float32(1.0 - alpha) * seeds
    values = source.copy()
    for _ in range(steps):
        values = graph @ values
        values *= np.float32(alpha)
        values += source
    return values


def read_out(index: Ints, cosine: F32, values: F32) -> F32:
    """Mean of the values at each query's neighbours, weighted as edges are.

    Args:
        index: ``(N, k)`` from `nearest`.
        cosine: ``(N, k)``.
        values: ``(M, Q)`` at the nodes.

    Returns:
        ``(N, Q)``; 0 where no neighbour is similar at all.
    """
    weight = np.maximum(cosine, 0.0) ** SHARPNESS
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.float32(1e-30))
    if len(index) == 1:
        alone: F32 = weight @ values[index[0]]
        return alone
    result = np.zeros((len(index), values.shape[1]), np.float32)
    for near in range(index.shape[1]):
        result += weight[:, near, None] * values[index[:, near]]
    return result


def principal_axes(rows: F32, dimensions: int, rng: np.random.Generator) -> F32:
    """Nearly the d orthonormal directions ``(D, d)`` in which rows differ most, that one first.

    Twice as many are sought and the leading half kept: a basis found in one round is blurred
    towards its end.

    Args:
        rows: ``(M, D)``.
        dimensions: wanted; at most D and M are given.
        rng: source of the start, and of the sample of at most 4,000 rows; see `range_finder`.
    """
    sample = rows if len(rows) <= _AXES_ROWS else rows[rng.permutation(len(rows))[:_AXES_ROWS]]
    width = min(2 * dimensions, *sample.shape)
    start = rng.normal(size=(sample.shape[1], width)).astype(np.float32)
    axes = range_finder(sample, start, rounds=1)
    inside = sample @ axes
    turned = np.linalg.eigh(inside.T @ inside)[1][:, ::-1]
    leading: F32 = np.ascontiguousarray(axes @ turned[:, :dimensions])
    return leading


def project(rows: F32, axes: F32) -> F32:
    """``(N, D)`` rows in the directions of ``(D, d)`` axes, each of length 1 again, or 0."""
    return to_unit_length(rows @ axes)


def to_unit_length(rows: F32) -> F32:
    """Scale each of ``(N, D)`` rows to length 1, in place; a row of 0 stays 0."""
    lengths = np.sqrt(np.vecdot(rows, rows))  # of one row in a third of `np.linalg.norm`'s time
    rows /= np.maximum(lengths, np.float32(1e-12))[:, None]
    return rows
