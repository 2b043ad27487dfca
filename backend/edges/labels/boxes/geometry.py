"""Boxes as shares of the upright image: clipped, compared, read from what others wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.detection.geometry import iou_matrix

# x0, y0, x1, y1 from 0 to 1, x right and y down.
Box = tuple[float, float, float, float]

DIGITS = 6  # a hundredth of a pixel in the widest images there are; equal drawings are equal texts
LEAST = 0.001  # of width or height: what is smaller is an accidental click


def number(value: Any) -> float | None:
    """A finite number; None for everything else, also for texts that look like one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def rounded(box: Box) -> Box:
    """The box as texts hold it."""
    x0, y0, x1, y1 = (round(side, DIGITS) + 0.0 for side in box)  # + 0.0 makes -0.0 to 0.0
    return x0, y0, x1, y1


def clipped(box: Box) -> Box | None:
    """The part of a box that lies in the image; None when hardly any of it does."""
    if not all(math.isfinite(side) for side in box):
        return None
    x0, y0, x1, y1 = (min(max(side, 0.0), 1.0) for side in box)
    x0, y0, x1, y1 = inside = rounded((x0, y0, x1, y1))
    # The difference of two rounded numbers is not one: 0.501 - 0.5 is a little over 0.001.
    if round(x1 - x0, DIGITS) < LEAST or round(y1 - y0, DIGITS) < LEAST:
        return None
    return inside


def to_box(sides: Any) -> Box | None:
    """A box out of a text of ours; None when it is none."""
    if not isinstance(sides, list | tuple) or len(sides) != 4:
        return None
    x0, y0, x1, y1 = (number(side) for side in sides)
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return None
    return (x0, y0, x1, y1) if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 else None


def ious(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """``(A, B)`` area that both of a pair cover, over the area that either does.

    Example:
        >>> ious([(0.0, 0.0, 0.5, 1.0)], [(0.25, 0.0, 0.75, 1.0)]).round(3).tolist()
        [[0.333]]
    """
    one, two = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (a, b))
    return iou_matrix(one, two)


def around_rectangle(x: float, y: float, width: float, height: float, angle: float) -> Box:
    """The upright box around a rectangle turned clockwise about its top left corner, y down."""
    cos, sin = math.cos(angle), math.sin(angle)
    xs = [x, x + width * cos, x - height * sin, x + width * cos - height * sin]
    ys = [y, y + width * sin, y + height * cos, y + width * sin + height * cos]
    return min(xs), min(ys), max(xs), max(ys)


def around_ellipse(x: float, y: float, across: float, down: float, angle: float) -> Box:
    """The upright box around an ellipse turned about its centre."""
    cos, sin = math.cos(angle), math.sin(angle)
    half, tall = math.hypot(across * cos, down * sin), math.hypot(across * sin, down * cos)
    return x - half, y - tall, x + half, y + tall
