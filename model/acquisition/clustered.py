"""Doubtful and different from each other: the default once the model knows something."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import Ints, Pool, k_means, mean_row, unit_rows
from model.acquisition.simple import by_margin

CANDIDATES = 10  # times the batch: 5 is worse (-0.014 of mean accuracy on one set), 20 is equal
MOST_CLUSTERS = 500


def margin_cluster(pool: Pool, n: int, *, seed: int) -> Ints:
    """Smallest margins, one from each cluster.

    The ``10 n`` smallest margins are clustered by k-means weighted with ``1 - margin``; the batch
    is the item nearest each centre, most doubtful first. Without a version: typical points. Beyond
    500 items the rest follows by margin, so that memory and time stay bounded.

    Source:
        Zhdanov 2019, arXiv:1901.05954, with margins in place of entropies.
    """
    order = by_margin(pool, len(pool.features), seed=seed)
    if pool.predictions is None or n >= len(order):
        return order[:n]
    k = min(n, MOST_CLUSTERS)
    candidates = order[: CANDIDATES * k]
    doubt = np.maximum(1.0 - pool.predictions.margin[candidates], 1e-6).astype(np.float64)
    rows = unit_rows(pool.features[candidates], mean_row(pool.features))
    cluster, distance = k_means(rows, doubt, k, np.random.default_rng(seed))
    nearest_first = np.lexsort((distance, cluster))
    _, first = np.unique(cluster[nearest_first], return_index=True)
    chosen = np.sort(nearest_first[first])  # candidates are in order of margin
    picked = candidates[chosen]
    rest = order[~np.isin(order, picked)] if len(picked) < n else picked[:0]
    return np.concatenate([picked, rest])[:n]
