"""Items whose label changes when features are missing, and different from each other."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import (
    BLOCK_ROWS,
    Ints,
    Pool,
    Selection,
    by_score,
    filled,
    nearest_to_centres,
)

DROPPED = 0.75
PASSES = 3
MOST_CLUSTERS = 500
MOST_TRIED = 20_000  # three passes over 100,000 items take longer than scoring them did
MOST_ROWS = 8_000


def dropquery(pool: Pool, n: int, *, seed: int) -> Selection:
    """From each of `n` clusters of the unstable items the one nearest the centre.

    Unstable are items whose label changes in more than half of 3 passes in which three quarters of
    the features are dropped, that is put to the pool's mean. The rest of the order, for when there
    are too few of them: more changes first, then smaller margins. Only the 20,000 smallest margins
    are tried.

    Source:
        Gupte et al. 2024, arXiv:2401.14555 (DropQuery).
    """
    rng = np.random.default_rng(seed)
    by_margin = by_score(-pool.said.margin, len(pool.features), seed=seed)
    changes = label_changes(pool, by_margin[:MOST_TRIED], rng)
    more_first = np.argsort(-changes, kind="stable")
    order = np.concatenate([by_margin[: len(changes)][more_first], by_margin[len(changes) :]])
    unstable = order[: max(int((2 * changes > PASSES).sum()), n)]
    if len(unstable) > MOST_ROWS:
        unstable = np.sort(rng.permutation(unstable)[:MOST_ROWS])
    rows = pool.project(pool.features[unstable])
    picked = nearest_to_centres(rows, np.ones(len(rows)), min(n, MOST_CLUSTERS), rng)
    return Selection(filled(unstable[picked], order, n))


def label_changes(pool: Pool, items: Ints, rng: np.random.Generator) -> Ints:
    """``(N,)`` in how many passes the predicted label of each item is not the version's own."""
    changes = np.zeros(len(items), np.int64)
    scale = np.float32(1.0 / (1.0 - DROPPED))
    for start in range(0, len(items), BLOCK_ROWS):
        block = items[start : start + BLOCK_ROWS]
        centred = pool.features[block] - pool.centre
        for _ in range(PASSES):
            kept = rng.integers(0, 256, centred.shape, np.uint8) >= round(256 * DROPPED)
            rows = (centred * (kept * scale) + pool.centre).astype(np.float32, copy=False)
            mean = pool.passes(rows).mean(axis=1)
            if pool.said.multi_label:  # any of the answers, before they are weighed as a set
                changed = ((mean > 0.5) != (pool.said.probs[block] > 0.5)).any(axis=1)
            else:
                changed = mean.argmax(axis=1) != pool.said.label[block]
            changes[start : start + BLOCK_ROWS] += changed
    return changes
