"""The rule for those who do not want to choose one."""

from __future__ import annotations

from model.acquisition.base import Pool, Selection
from model.acquisition.herding import uncertainty_herding
from model.acquisition.variance import variance_reduction

MOST_CHOSEN = 1_000  # each choice of `v-optimal` costs a product with the covariance


def auto(pool: Pool, n: int, *, seed: int) -> Selection:
    """`v-optimal`, and `herding` while there is no version.

    A first batch has to hold one of each kind: there an item is worth what it is nearest to, not
    what several tell about their surroundings. Batches of more than 1,000 are herded, too (figures:
    docs/adr/acquisition.md).
    """
    if pool.predictions is None or n > MOST_CHOSEN:
        return uncertainty_herding(pool, n, seed=seed)
    return variance_reduction(pool, n, seed=seed)
