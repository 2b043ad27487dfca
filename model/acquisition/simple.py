"""Rules that look at one item at a time: fast, and blind to neighbours that are doubtful alike."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import Pool, Selection, by_score


def uniform(pool: Pool, n: int, *, seed: int) -> Selection:
    """Draw at random: what everything else has to beat, and the labels without selection bias."""
    count = len(pool.features)
    drawn = np.random.default_rng(seed).permutation(count)[:n].astype(np.int64)
    return Selection(drawn, 1.0 / (count - np.arange(n, dtype=np.float64)))


def by_entropy(pool: Pool, n: int, *, seed: int) -> Selection:
    """Largest entropy of the mean prediction first.

    With many classes it prefers items that are a little like everything, and ends at or below
    random.

    Source:
        Shannon 1948; as a rule, Settles 2009, "Active learning literature survey".
    """
    return Selection(by_score(pool.said.total, n, seed=seed))


def by_least_confidence(pool: Pool, n: int, *, seed: int) -> Selection:
    """Smallest largest probability first; of sets of labels, where an image may have several.

    Source:
        Lewis and Gale 1994, arXiv:cmp-lg/9407020.
    """
    said = pool.said
    largest = said.p_right if said.multi_label else said.probs.max(axis=1)
    return Selection(by_score(1.0 - largest, n, seed=seed))


def by_margin(pool: Pool, n: int, *, seed: int) -> Selection:
    """Smallest difference between the two most probable classes first.

    Source:
        Scheffer, Decomain and Wrobel 2001, doi:10.1007/3-540-44816-0_31.
    """
    return Selection(by_score(-pool.said.margin, n, seed=seed))
