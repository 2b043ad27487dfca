"""Items whose labels take away most doubt from the pool: one rule from the first label on."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import (
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

MOST_ROWS = 6_000  # the kernel has that many squared values
LEAST_DOUBT = 1e-6
LEAST_GAIN = 1e-9  # of the doubt there is: below, everything is as near as it gets


def uncertainty_herding(pool: Pool, n: int, *, seed: int) -> Selection:
    """Greedily the items that cover most of the pool's doubt, less what labels cover already.

    An item's doubt is 1 - margin, and the same for all before there is a version. An item is
    covered by the nearest labelled or chosen one, by ``exp(-distance**2 / radius**2)``; the radius
    is the median distance to the nearest label, or what it would be were the batch drawn at random.
    So typical items of large groups come first while the model knows nothing; as labels come the
    radius shrinks and doubt is left in fewer places. Copies of what is labelled have nothing to
    give, and lonely outliers little.

    Of a pool of more than 6,000 so many are looked at, drawn in proportion to their doubt.

    Source:
        Bae, Oliveira and Sutherland 2025, arXiv:2412.20644 (uncertainty herding; there the radius
        is the smallest distance between labels, and probabilities are tempered first, as those of
        a version are anyway).
    """
    rng = np.random.default_rng(seed)
    doubt = doubt_of(pool)
    order = by_score(doubt, len(doubt), seed=seed)
    looked_at, weights = drawn_for_sums(doubt, MOST_ROWS, rng)
    rows = pool.project(pool.features[looked_at])
    known = pool.known_rows
    labels = known if len(known) else rows[rng.permutation(len(rows))[:n]]
    squares = assign(rows, labels)[1]
    radius = max(float(np.median(squares)), 1e-12)
    covered = np.exp(-squares / radius) if len(known) else np.zeros(len(rows), np.float32)
    kernel = squared_distances(rows, rows)
    kernel /= -radius
    chosen = most_covered(np.exp(kernel, out=kernel), weights, covered, n)
    return Selection(filled(looked_at[chosen], order, n))


def doubt_of(pool: Pool) -> F64:
    """``(M,)`` 1 - margin, never 0; 1 for all before there is a version."""
    if pool.predictions is None:
        return np.ones(len(pool.features))
    doubt: F64 = np.maximum(1.0 - pool.predictions.margin, LEAST_DOUBT)
    return doubt


def drawn_for_sums(values: F64, most: int, rng: np.random.Generator) -> tuple[Ints, F64]:
    """Draw items in proportion to their values, and weigh them so that sums come out right.

    Args:
        values: ``(M,)`` positive.
        most: how many, when M is larger.
        rng: of the draws.

    Returns:
        Indices, ascending, and weights: a weighted sum of anything over these items has the
        expectation of its sum over all items weighted by `values`.

    Source:
        Kool et al. 2019, arXiv:1903.06059 (Gumbel top-k as importance sampling).
    """
    if len(values) <= most:
        return np.arange(len(values)), values
    keys = np.log(values) + rng.gumbel(size=len(values))
    order = np.argpartition(-keys, most)
    drawn = np.sort(order[:most])
    is_in = -np.expm1(-values[drawn] * np.exp(-keys[order[most]]))  # probability
    return drawn, values[drawn] / is_in


def most_covered(kernel_NN: F32, weights_N: F64, covered_N: F32, n: int) -> Ints:
    """At most `n` items, each adding most to the weighted sum of what covers each row best.

    What an item adds only shrinks as others are chosen, so old values bound it and few have to be
    computed again (Minoux 1978).

    Args:
        kernel_NN: symmetric, how well each item covers each row, 0 to 1.
        weights_N: of the rows, not negative.
        covered_N: how well each row is covered from the start.
        n: at most; fewer when nothing is left to cover.
    """
    least = LEAST_GAIN * float(weights_N.sum())
    covered = covered_N.copy()
    gain = np.array([_gain(row, weights_N, covered) for row in kernel_NN])
    chosen: list[int] = []
    while len(chosen) < n:
        fresh = -1
        while (best := int(gain.argmax())) != fresh:
            gain[best] = _gain(kernel_NN[best], weights_N, covered)
            fresh = best
        if gain[best] <= least:
            break
        chosen.append(best)
        np.maximum(covered, kernel_NN[best], out=covered)
        gain[best] = -1.0
    return np.array(chosen, np.int64)


def _gain(row_N: F32, weights_N: F64, covered_N: F32) -> float:
    return float(np.maximum(row_N - covered_N, 0.0) @ weights_N)
