"""Far from everything that has a label, whatever the model says."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import Pool, Selection, assign, squared_distances, squared_lengths


def coreset(pool: Pool, n: int, *, seed: int) -> Selection:
    """Greedy k-center: each next item is the one farthest from what is labelled or chosen.

    The first without labels is the one nearest the centre. Takes outliers first, and ends near
    random with many classes.

    Source:
        Sener and Savarese 2018, arXiv:1708.00489 (the greedy part).
    """
    del seed
    rows = pool.rows
    lengths = squared_lengths(rows)
    if pool.labelled is None:
        nearest = np.full(len(rows), np.inf, np.float32)
        pick = int(squared_distances(rows, rows.mean(axis=0, keepdims=True), lengths).argmin())
    else:
        nearest = assign(rows, pool.known_rows, lengths)[1]
        pick = int(nearest.argmax())
    chosen = np.empty(n, np.int64)
    for number in range(n):
        chosen[number] = pick
        squares = squared_distances(rows, rows[pick : pick + 1], lengths)[:, 0]
        np.minimum(nearest, squares, out=nearest)
        nearest[chosen[: number + 1]] = -1.0  # copies of a chosen item are at 0, it is behind them
        pick = int(nearest.argmax())
    return Selection(chosen)
