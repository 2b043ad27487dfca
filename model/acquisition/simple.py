"""Rules that look at one item at a time."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import Ints, Pool
from model.acquisition.typical import typical


def uniform(pool: Pool, n: int, *, seed: int) -> Ints:
    """Draw at random: what everything else has to beat, and the labels without selection bias."""
    drawn: Ints = np.random.default_rng(seed).permutation(len(pool.features))[:n]
    return drawn.astype(np.int64)


def by_margin(pool: Pool, n: int, *, seed: int) -> Ints:
    """Smallest difference between the two most probable classes first; ties at random.

    Fast and strong with few classes; neighbours that are doubtful together are taken together.
    Without a version there is no margin: typical points.
    """
    if pool.predictions is None:
        return typical(pool, n, seed=seed)
    ties = np.random.default_rng(seed).permutation(len(pool.features))
    order: Ints = ties[np.argsort(pool.predictions.margin[ties], kind="stable")]
    return order[:n].astype(np.int64)
