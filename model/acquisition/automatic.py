"""The default: no knob, from the first label on."""

from __future__ import annotations

from model.acquisition.base import Pool, Selection
from model.acquisition.clustered import margin_cluster
from model.acquisition.typical import typical

LABELS_A_CLASS = 2


def auto(pool: Pool, n: int, *, seed: int) -> Selection:
    """Typical points until there are 2 labels a class, then margin within clusters.

    Uncertainty is worth nothing while the model knows nothing: typical points give 8 to 12 points
    of accuracy more than random ones at 20 labels, and no more than margin within clusters later.

    Source:
        Hacohen et al. 2022, arXiv:2202.02794 (the change of strategy with the budget).
    """
    few = pool.label_counts is None or (
        pool.label_counts.sum() < LABELS_A_CLASS * len(pool.label_counts)
    )
    if pool.predictions is None or few:
        return typical(pool, n, seed=seed)
    return margin_cluster(pool, n, seed=seed)
