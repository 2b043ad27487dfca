"""Boxes of a stored image, turned with it by its EXIF orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.errors import ShapeError

Floats = NDArray[np.float64]

# EXIF 2.32, tag 0x0112: whether the upright image's axes are the stored one's exchanged, and which
# of the upright axes then run backwards.
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def swaps_sides(orientation: int) -> bool:
    """Whether the upright image's width is the stored one's height."""
    return _TURNS.get(orientation, _TURNS[1])[0]


def turn_boxes(boxes: Floats, orientation: int) -> Floats:
    """Boxes of the stored raster as boxes of the image that people see.

    Args:
        boxes: ``(N, 4)`` ``x0, y0, x1, y1`` in shares of the stored raster.
        orientation: EXIF's, 1 to 8; any other leaves boxes as they are, as Pillow does.

    Returns:
        ``(N, 4)`` in shares of the upright image.

    Raises:
        ShapeError: `boxes` has not four columns.

    Example:
        >>> turn_boxes(np.array([[0.0, 0.0, 0.5, 0.25]]), 6)  # a quarter clockwise
        array([[0.75, 0.  , 1.  , 0.5 ]])
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError("boxes", expected="(N, 4)", got=boxes.shape)
    exchanged, backwards_x, backwards_y = _TURNS.get(orientation, _TURNS[1])
    x0, y0, x1, y1 = boxes.T
    if exchanged:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if backwards_x:
        x0, x1 = 1.0 - x1, 1.0 - x0
    if backwards_y:
        y0, y1 = 1.0 - y1, 1.0 - y0
    return np.stack([x0, y0, x1, y1], axis=1)
