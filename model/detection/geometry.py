"""Areas, overlaps and shares of boxes ``x0, y0, x1, y1``, many against many."""

from __future__ import annotations

import numpy as np

from model.detection.types import Floats
from model.errors import ShapeError


def areas(boxes: Floats) -> Floats:
    """Areas ``(N,)`` of boxes ``(N, 4)``, in the square of their unit; 0 for inverted ones."""
    _check("boxes", boxes)
    found: Floats = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    return found


def intersection_matrix(a: Floats, b: Floats) -> Floats:
    """Area that every box of `a` shares with every box of `b`.

    Args:
        a: ``(A, 4)``.
        b: ``(B, 4)`` in the same unit.

    Returns:
        ``(A, B)`` in the square of the unit.

    Raises:
        ShapeError: one of them has not four columns.
    """
    _check("a", a)
    _check("b", b)
    shared: Floats = np.ones((len(a), len(b)))
    for low, high in ((0, 2), (1, 3)):  # one axis at a time: thousands of boxes fit in memory
        sides_A_B = np.minimum.outer(a[:, high], b[:, high])
        sides_A_B -= np.maximum.outer(a[:, low], b[:, low])
        shared *= np.maximum(sides_A_B, 0.0, out=sides_A_B)
    return shared


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of `a` with every box of `b`.

    The same in shares of an image as in its pixels: a factor for each axis cancels.

    Args:
        a: ``(A, 4)``.
        b: ``(B, 4)`` in the same unit.

    Returns:
        ``(A, B)`` from 0 (apart) to 1 (equal); 0 where both are empty.

    Raises:
        ShapeError: one of them has not four columns.

    Example:
        >>> iou_matrix(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0, 0.5]]))
        array([[0.5]])
    """
    shared = intersection_matrix(a, b)
    return _over(shared, areas(a)[:, None] + areas(b)[None, :] - shared)


def inside_matrix(a: Floats, b: Floats) -> Floats:
    """Share of every box of `a` that lies inside each box of `b`; COCO's overlap with a crowd.

    Args:
        a: ``(A, 4)``.
        b: ``(B, 4)`` in the same unit.

    Returns:
        ``(A, B)`` from 0 to 1; 0 for empty boxes.

    Raises:
        ShapeError: one of them has not four columns.

    Example:
        >>> inside_matrix(np.array([[0.0, 0.0, 1.0, 0.5]]), np.array([[0.0, 0.0, 0.5, 1.0]]))
        array([[0.5]])
    """
    shared = intersection_matrix(a, b)
    return _over(shared, np.broadcast_to(areas(a)[:, None], shared.shape))


def _over(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def _check(name: str, boxes: Floats) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(name, expected="(N, 4)", got=boxes.shape)
