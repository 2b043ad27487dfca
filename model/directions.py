"""The directions in which rows differ most, nearly: for when exact ones cost too much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def range_finder(rows: F32, start: F32, *, rounds: int) -> F32:
    """An orthonormal basis ``(D, d)`` of nearly the d directions that hold most of the rows.

    Args:
        rows: ``(M, D)``; of many rows a sample does.
        start: ``(D, d)`` drawn at random, d at most M and D.
        rounds: products with the rows; each one more sharpens the basis.

    Source:
        Halko, Martinsson and Tropp 2011, arXiv:0909.4061.

    Example:
        >>> rows = np.array([[3.0, 0.0], [-3.0, 0.0]], np.float32)
        >>> np.abs(range_finder(rows, np.ones((2, 1), np.float32), rounds=1)).tolist()
        [[1.0], [0.0]]
    """
    axes = start
    for _ in range(rounds):
        axes = np.linalg.qr(rows.T @ (rows @ axes))[0]
    return axes
