"""Items whose labels would leave the least variance where there is doubt."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from model.acquisition.base import (
    BLOCK_ROWS,
    F32,
    F64,
    Ints,
    Pool,
    Selection,
    assign,
    by_score,
    filled,
    squared_distances,
)
from model.acquisition.herding import doubt_of, drawn_for_sums

# Variance of a label's noise: an item has 1 without labels, and 0.01 when a copy of it has one.
NOISE = 0.01
# Squared: squared distances in float32 are good to 1e-6, and copies have to be alike.
LEAST_RADIUS = 1e-4
MOST_ROWS = 6_000  # the covariance has that many squared values
MOST_LABELS = 1_024
MOST_PRODUCTS = 3 * 2**32  # about a quarter of a second
PICK_PRODUCTS = 16  # a pick reads the covariance once: as long as so many products a value


def variance_reduction(pool: Pool, n: int, *, seed: int) -> Selection:
    """Greedily the items after whose labels the least variance is left where there is doubt.

    Items are a Gaussian process over the features; a label at one lowers the variance at all that
    are like it, and the drop is summed over the pool, weighted by doubt (1 - margin; equal for all
    before there is a version). The kernel is ``exp(-distance**2 / radius**2)`` with the median
    distance to the nearest label as radius, or what it would be were the batch drawn at random.
    Where many labels lie near, none of them the same, little variance is left: that is what
    `herding`, which asks only for the nearest, does not see.

    Of a large pool as many items are looked at as can be in about a quarter of a second, drawn in
    proportion to their doubt; of many labels the 1,024 that are nearest to most doubt.

    Source:
        Yu, Bi and Tresp 2006 (transductive experimental design); Ji and Han 2012 (V-optimality);
        the weights and the radius as in Bae et al. 2025, arXiv:2412.20644.
    """
    rng = np.random.default_rng(seed)
    doubt = doubt_of(pool)
    order = by_score(doubt, len(doubt), seed=seed)
    looked_at, weights = drawn_for_sums(doubt, rows_for(n, len(pool.known)), rng)
    rows = pool.project(pool.features[looked_at])
    known = pool.known_rows
    labels = known if len(known) else rows[rng.permutation(len(rows))[:n]]
    nearest, squares = assign(rows, labels)
    radius = max(float(np.median(squares)), LEAST_RADIUS)
    covariance = left_by_labels(rows, nearest_to_most(known, nearest, weights), radius)
    chosen = least_variance(covariance, weights / weights.sum(), n)
    return Selection(filled(looked_at[chosen], order, n))


def nearest_to_most(known: F32, nearest: Ints, weights: F64) -> F32:
    """At most 1,024 rows with a label: those that are nearest to most weight.

    Args:
        known: ``(L, d)``.
        nearest: ``(N,)`` of each item the row of `known` that is nearest to it.
        weights: ``(N,)`` of the items.
    """
    if len(known) <= MOST_LABELS:
        return known
    mass = np.bincount(nearest, weights=weights, minlength=len(known))
    return known[np.sort(np.argpartition(-mass, MOST_LABELS)[:MOST_LABELS])]


def rows_for(n: int, labels: int) -> int:
    """How many items can be looked at, to choose `n` beside so many labels."""
    each = 256 + min(labels, MOST_LABELS) + PICK_PRODUCTS * n
    return min(MOST_ROWS, max(int((MOST_PRODUCTS / each) ** 0.5), 4 * n))


def left_by_labels(rows: F32, known: F32, radius: float) -> F32:
    """``(N, N)`` posterior covariance of a Gaussian process at the rows, given labels.

    Args:
        rows: ``(N, d)``.
        known: ``(L, d)`` rows with a label, L may be 0.
        radius: squared, of the kernel.

    Source:
        Rasmussen and Williams 2006, equation 2.24.
    """
    covariance = _kernel(rows, rows, radius)
    if not len(known):
        return covariance
    among = _kernel(known, known, radius).astype(np.float64)
    among[np.diag_indices(len(known))] += NOISE
    factor = cholesky(among, lower=True).astype(np.float32)
    told = solve_triangular(factor, _kernel(rows, known, radius).T, lower=True).T
    for start in range(0, len(rows), BLOCK_ROWS):
        covariance[start : start + BLOCK_ROWS] -= told[start : start + BLOCK_ROWS] @ told.T
    return covariance


def least_variance(covariance: F32, weights_N: F64, n: int) -> Ints:
    """Greedily at most `n` items, each lowering the weighted sum of variances most.

    A label at j lowers the variance at i by ``covariance[i, j]**2 / (covariance[j, j] + NOISE)``.
    The covariance itself is left alone: what the chosen ones take from it is kept as a sum of
    outer products.

    Args:
        covariance: ``(N, N)``, symmetric.
        weights_N: not negative.
        n: at most N.
    """
    weights = weights_N.astype(np.float32)
    variance = covariance.diagonal().copy()
    drop = np.zeros(len(weights), np.float32)
    for start in range(0, len(weights), BLOCK_ROWS):
        block = covariance[start : start + BLOCK_ROWS]
        drop += weights[start : start + BLOCK_ROWS] @ np.square(block)
    taken = np.empty((len(weights), n), np.float32)
    free = np.ones(len(weights), bool)
    chosen: list[int] = []
    for t in range(min(n, len(weights))):
        gain = np.where(free, drop / (np.maximum(variance, 0.0) + NOISE), -1.0)
        best = int(gain.argmax())
        chosen.append(best)
        free[best] = False
        before = taken[:, :t]
        column = covariance[:, best] - before @ before[best]
        np.clip(column, -1.0, 1.0, out=column)  # as it is but for rounding
        scale = max(float(variance[best]), 0.0) + NOISE
        weighted = weights * column
        moved = covariance @ weighted - before @ (before.T @ weighted)
        drop -= 2.0 / scale * column * moved
        drop += np.square(column) * (float(weighted @ column) / scale**2)
        variance -= np.square(column) / scale
        taken[:, t] = column / scale**0.5
    return np.array(chosen, np.int64)


def least_variance_of_groups(covariance: F32, weights_N: F64, first: Ints, n: int) -> list[int]:
    """`least_variance` where items come in groups that are labelled together.

    Labels at the items J lower the sum by ``sum_i w_i C[i, J] (C[J, J] + NOISE)^-1 C[J, i]``. What
    a group adds mostly shrinks as others are chosen, so old values stand for new ones until a group
    comes first, as in `most_covered`.

    Args:
        covariance: ``(N, N)``, symmetric; is overwritten.
        weights_N: not negative.
        first: ``(G,)`` ascending from 0, each group's first item; groups lie side by side, none is
            empty.
        n: groups wanted, at most G.

    Returns:
        `n` distinct groups, in the order they were chosen.
    """
    weights = weights_N.astype(np.float32)
    ends = np.append(first[1:], len(weights))

    def told(group: int) -> F32:
        """``(N, k)``, whose product with its transpose is what the group's labels take away."""
        block = covariance[:, first[group] : ends[group]]
        among = block[first[group] : ends[group]].astype(np.float64)
        among[np.diag_indices(len(among))] += NOISE
        # Rounding leaves what labels have told already a little below 0.
        values, axes = np.linalg.eigh(among)
        scaled: F32 = block @ (axes / np.sqrt(np.maximum(values, NOISE))).astype(np.float32)
        return scaled

    def gain(group: int) -> float:
        return float(weights @ np.square(told(group)).sum(axis=1))

    gains = np.array([gain(group) for group in range(len(first))])
    chosen: list[int] = []
    while len(chosen) < min(n, len(first)):
        fresh = -1
        while (best := int(gains.argmax())) != fresh:
            gains[best] = gain(best)
            fresh = best
        taken = told(best)
        for start in range(0, len(weights), BLOCK_ROWS):
            covariance[start : start + BLOCK_ROWS] -= taken[start : start + BLOCK_ROWS] @ taken.T
        gains[best] = -np.inf
        chosen.append(best)
    return chosen


def _kernel(rows: F32, others: F32, radius: float) -> F32:
    exponents = squared_distances(rows, others)
    exponents /= -radius
    return np.exp(exponents, out=exponents)
