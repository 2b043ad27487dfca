"""Doubtful and different in what a label would change: the gradient of the last layer."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import F32, F64, Pool, Selection, draw, squared_lengths

LEAST_MASS = 1e-9


def badge(pool: Pool, n: int, *, seed: int) -> Selection:
    """k-means++ draws among the gradients of the loss with respect to the last layer.

    The gradient an item would give if its predicted class were right is the outer product of
    ``probs - onehot(label)`` and its features (centred, of length 1). Products of two gradients
    are products of their parts' products, so the C x D numbers of a gradient are never formed. The
    first item is drawn in proportion to its squared length, as if the origin were taken already;
    the authors take the longest.

    Source:
        Ash et al. 2020, arXiv:1906.03671.
    """
    said = pool.said
    errors = said.probs.copy()
    if said.multi_label:
        errors -= said.label
    else:
        errors[np.arange(len(errors)), said.label] -= 1.0
    return draw_gradients(errors, pool.rows, n, np.random.default_rng(seed))


def draw_gradients(errors_MC: F64, rows_MD: F32, n: int, rng: np.random.Generator) -> Selection:
    """k-means++ draws among outer products of `errors_MC` and `rows_MD`, the origin being taken.

    Once nothing lies away from what is taken, the rest is drawn uniformly.
    """
    lengths = (errors_MC**2).sum(axis=1) * squared_lengths(rows_MD)
    nearest = lengths.copy()
    left = np.ones(len(lengths), bool)
    rows = np.empty(n, np.int64)
    probability = np.empty(n)
    for number in range(n):
        mass = np.where(left & (nearest > LEAST_MASS), nearest, 0.0)
        if not mass.any():
            mass = left.astype(np.float64)
        row = draw(mass, rng)
        rows[number], probability[number] = row, mass[row] / mass.sum()
        left[row] = False
        products = (errors_MC @ errors_MC[row]) * (rows_MD @ rows_MD[row])
        np.minimum(nearest, lengths + lengths[row] - 2.0 * products, out=nearest)
    return Selection(rows, probability)
