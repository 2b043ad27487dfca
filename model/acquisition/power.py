"""Rules that draw in proportion to a score, and say with which probability they drew."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import F64, Pool, Selection

# Nothing is impossible: estimates from what was drawn hold for the items nobody would draw, too.
LEAST_SHARE = 1e-6


def draw_in_proportion(scores: F64, n: int, *, seed: int) -> Selection:
    """Draw `n` items one after the other, each in proportion to its score among those left.

    One Gumbel variate an item gives the whole order at once.

    Args:
        scores: ``(M,)``, not negative; below a millionth of the largest counts as that, and all 0
            as all equal.
        n: how many, at most M.
        seed: of the draw.

    Source:
        Kirsch et al. 2023, arXiv:2106.12059 (power acquisition, exponent 1); the Gumbel order:
        Kool et al. 2019, arXiv:1903.06059.
    """
    top = float(scores.max())
    mass = np.maximum(scores / top, LEAST_SHARE) if top > 0.0 else np.ones(len(scores))
    keys = np.log(mass) + np.random.default_rng(seed).gumbel(size=len(mass))
    rows = np.argsort(-keys, kind="stable")[:n].astype(np.int64)
    drawn = mass[rows]
    mass[rows] = 0.0
    left = mass.sum() + np.cumsum(drawn[::-1])[::-1]  # summed from the end: nothing cancels
    return Selection(rows, drawn / left)


def power_margin(pool: Pool, n: int, *, seed: int) -> Selection:
    """Draw in proportion to 1 - margin.

    See `draw_in_proportion`.
    """
    return draw_in_proportion(1.0 - pool.said.margin, n, seed=seed)


def power_entropy(pool: Pool, n: int, *, seed: int) -> Selection:
    """Draw in proportion to the entropy of the mean prediction.

    See `draw_in_proportion`.
    """
    return draw_in_proportion(pool.said.total, n, seed=seed)


def power_bald(pool: Pool, n: int, *, seed: int) -> Selection:
    """Draw in proportion to the passes' mutual information.

    See `draw_in_proportion`.
    """
    return draw_in_proportion(pool.said.epistemic, n, seed=seed)
