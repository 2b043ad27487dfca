"""What a rule is given and gives, and geometry that several rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.directions import range_finder
from model.errors import ModelError
from model.types import Predictions
from model.uncertainty.sets import joint_outcomes

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Sample = Callable[[F32], F64]

BLOCK_ROWS = 4096
# Above this many values distances are taken in the main directions of the features: copies of all
# of them would cost a gigabyte at 100,000 x 2,560, products with them minutes, and at 5,000 x 2,560
# those take twice as long.
MOST_VALUES = 2**22
MOST_AXES = 256
AXES_ROWS = 2048  # of which the main directions are found


class Needs(IntEnum):
    """What a rule cannot do without; each one includes those before it."""

    FEATURES = 0
    PREDICTIONS = 1
    PASSES = 2  # asks the version about features it makes or picks itself
    DISAGREEMENT = 3  # at least two passes
    JOINT = 4  # passes that are the same function for all images


@dataclass(frozen=True)
class Pool:
    """Everything a rule may look at.

    Attributes:
        features: ``(M, D)`` of the items without labels, M >= 1, finite.
        labelled: ``(L, D)`` of those with, None when there are none.
        label_counts: ``(C,)`` labels of each class so far, when known.
        predictions: ``M`` of them, when there is a version.
        sample: the version's estimator: ``(N, D)`` features to ``(N, K, C)`` probabilities.
    """

    features: F32
    labelled: F32 | None
    label_counts: Ints | None
    predictions: Predictions | None
    sample: Sample | None = None

    @property
    def known(self) -> F32:
        """``(L, D)`` features of the labelled items, L may be 0."""
        return self.features[:0] if self.labelled is None else self.labelled

    @property
    def said(self) -> Predictions:
        """The predictions, for rules that are only called with them."""
        if self.predictions is None:
            raise ModelError("this rule needs predictions; `select` chooses another without")
        return self.predictions

    def passes(self, features: F32) -> F64:
        """``(N, D)`` features to ``(N, K, C)``, for rules that are only called with `sample`."""
        if self.sample is None:
            raise ModelError("this rule needs the passes of a version; give `sample`")
        return self.sample(features)

    def outcomes(self, features: F32) -> F64:
        """`passes` as ``(N, K, C)`` probabilities of outcomes that exclude each other.

        Where an image may have several classes: of its joint answers, see `joint_outcomes`.
        """
        passes = self.passes(features)
        return joint_outcomes(passes) if self.said.multi_label else passes

    @cached_property
    def centre(self) -> F32:
        """``(D,)`` mean of the features."""
        return mean_row(self.features)

    @cached_property
    def rows(self) -> F32:
        """``(M, d)`` centred features of length 1; of a large pool only their main directions."""
        return self.project(self.features)

    @cached_property
    def known_rows(self) -> F32:
        """The same of the labelled items, ``(L, d)``."""
        return self.project(self.known)

    def project(self, features: F32) -> F32:
        """``(N, D)`` features to the ``(N, d)`` rows that distances are taken between."""
        axes = self._axes
        if axes is None:
            return unit_rows(features, self.centre)
        rows = np.empty((len(features), axes.shape[1]), np.float32)
        for start in range(0, len(features), BLOCK_ROWS):
            block = unit_rows(features[start : start + BLOCK_ROWS], self.centre)
            rows[start : start + BLOCK_ROWS] = block @ axes
        return rows

    @cached_property
    def _axes(self) -> F32 | None:
        if self.features.size <= MOST_VALUES or self.features.shape[1] <= MOST_AXES:
            return None
        return main_axes(self.features, self.centre, MOST_AXES)


@dataclass(frozen=True)
class Selection:
    """What a rule chose.

    Attributes:
        rows: ``(n,)`` distinct indices into the pool, in the order to be labelled.
        probability: ``(n,)`` probability with which each was drawn given those before it, which is
            what weights for unbiased estimates are made of (LURE: Farquhar et al. 2021,
            arXiv:2101.11665); None where nothing was drawn.
    """

    rows: Ints
    probability: F64 | None = None

    def __len__(self) -> int:
        return len(self.rows)


class Rule(Protocol):
    """Chooses ``n`` of the pool's items, ``1 <= n <= M``."""

    def __call__(self, pool: Pool, n: int, *, seed: int) -> Selection:
        """Give ``n`` distinct items."""


@dataclass(frozen=True)
class Acquisition:
    """A rule and what it needs, so that a setting that cannot work is refused early."""

    choose: Rule
    needs: Needs = Needs.FEATURES


def by_score(scores: F64, n: int, *, seed: int) -> Ints:
    """Indices of the `n` largest scores, largest first; ties at random."""
    ties = np.random.default_rng(seed).permutation(len(scores))
    order: Ints = ties[np.argsort(-scores[ties], kind="stable")[:n]]
    return order.astype(np.int64)


def filled(picked: Ints, order: Ints, n: int) -> Ints:
    """`picked`, then what is left of `order`, to `n` items."""
    if len(picked) >= n:
        return picked[:n]
    return np.concatenate([picked, order[~np.isin(order, picked)]])[:n]


def main_axes(features: F32, centre: F32, count: int) -> F32:
    """``(D, count)`` orthonormal directions that hold most of the unit rows' variance.

    Found from at most 2,048 rows, evenly spaced; see `range_finder`.
    """
    sample = unit_rows(features[:: -(-len(features) // AXES_ROWS)], centre)
    start = np.random.default_rng(0).standard_normal((features.shape[1], count), np.float32)
    return range_finder(sample, start, rounds=1)


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
    chosen = [draw(weights, rng)]
    lengths = squared_lengths(rows)
    nearest = squared_distances(rows, rows[chosen], lengths)[:, 0].astype(np.float64)
    for _ in range(min(k, len(rows)) - 1):
        nearest[chosen[-1]] = 0.0
        mass = weights * np.where(nearest > 1e-9, nearest, 0.0)
        if mass.sum() <= 0.0:
            break
        chosen.append(draw(mass, rng))
        np.minimum(nearest, squared_distances(rows, rows[chosen[-1:]], lengths)[:, 0], out=nearest)
    return np.array(chosen, np.int64)


def draw(mass: F64, rng: np.random.Generator) -> int:
    """One index with probability proportional to its mass, which is nowhere negative."""
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


def nearest_to_centres(rows: F32, weights: F64, k: int, rng: np.random.Generator) -> Ints:
    """The row nearest each centre of weighted k-means, ascending: at most `k` distinct indices."""
    cluster, distance = k_means(rows, weights, k, rng)
    nearest_first = np.lexsort((distance, cluster))
    _, first = np.unique(cluster[nearest_first], return_index=True)
    chosen: Ints = np.sort(nearest_first[first])
    return chosen
