"""An annotation's regions as a drawing.

- A box is cut at the image's edges. One outside, or with less than 0.1 % of the image's width or
  height left, is dropped: it is an accidental click.
- A rotated rectangle (clockwise about its top left corner, in pixels) becomes the upright box
  around it, a rotated ellipse (about its centre) the upright box around the ellipse itself. Where
  the size of the image is not told, the place of a rotated region is not known: it is an ignored
  area.
- Two boxes of one class with IoU >= 0.9 are one object drawn twice; the later one is taken.
- A region without a label, or with none that the config still has, is an ignored area: neither
  object nor background, unless the same annotation has an object with IoU >= 0.9 there. Of several
  labels the first one that the config has counts.
- A region that was predicted is ``accepted``, or ``edited`` once somebody moved a side; all others
  are ``drawn``. Label Studio does not say whether somebody changed the class alone.
- A whole image that was turned (``image_rotation``) changes nothing: the editor turns the view, and
  stores places in the image as it was (its ``Image.js``, read in source).
- Regions of other controls do not count, and a region with a missing or impossible number is none.
- No region at all says that there is no object. (A skip is no answer; `annotation_rows` knows.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backend.edges.labels.boxes.drawing import Drawing, Drawn, Origin, encode
from backend.edges.labels.boxes.geometry import (
    Box,
    around_ellipse,
    around_rectangle,
    clipped,
    ious,
    number,
)
from backend.edges.labels.config import ELLIPSE_LABELS, RECTANGLE, RECTANGLE_LABELS, TaskSpec

log = logging.getLogger(__name__)

SAME = 0.9  # IoU from which on two boxes of one person are one object
_ORIGINS: Mapping[str, Origin] = {"prediction": "accepted", "prediction-changed": "edited"}
# What a control's regions are called; one that lost its label may go by the name of its shape.
_TYPES = {
    RECTANGLE_LABELS: (RECTANGLE_LABELS, "rectangle"),
    ELLIPSE_LABELS: (ELLIPSE_LABELS, "ellipse"),
}


class _Mark(NamedTuple):
    """One shape on the image, with the labels it has."""

    region: Mapping[str, Any]
    labels: list[Any]


def read_result(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> str:
    """The text of what a person drew; see the module's first lines for the rules."""
    boxes: list[Drawn] = []
    ignored: list[Box] = []
    for mark in _marks(spec, result):
        found = _place(spec, mark.region)
        box = None if found is None else clipped(found[0])
        if found is None or box is None:
            log.debug("region %r is none: %r", mark.region.get("id"), mark.region.get("value"))
            continue
        label = next((x for x in mark.labels if isinstance(x, str) and x in spec.classes), None)
        if label is None or not found[1]:
            ignored.append(box)
            continue
        boxes.append(Drawn(label, box, _ORIGINS.get(str(mark.region.get("origin")), "drawn")))
    kept = once(boxes)
    covered = ious(ignored, [d.box for d in kept]) >= SAME
    unclear = [area for area, by in zip(ignored, covered, strict=True) if not by.any()]
    return encode(Drawing(tuple(kept), tuple(unclear)))


def once(boxes: Sequence[Drawn]) -> list[Drawn]:
    """What one person drew, without what the same person drew again later."""
    places, names = [d.box for d in boxes], np.array([d.label for d in boxes], object)
    same = (ious(places, places) >= SAME) & (names[:, None] == names)
    again = np.triu(same, 1).any(axis=1)
    return [d for d, gone in zip(boxes, again, strict=True) if not gone]


def _marks(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> Iterator[_Mark]:
    regions = [r for r in result if isinstance(r, Mapping)]
    if spec.kind != RECTANGLE:
        for region in regions:
            if region.get("from_name") == spec.control and region.get("type") in _TYPES[spec.kind]:
                yield _Mark(region, _labels(region, spec.kind))
        return
    # Shape and labels are two results with one id.
    shapes: dict[Any, Mapping[str, Any]] = {}
    labels: dict[Any, list[Any]] = {}
    for order, region in enumerate(regions):
        address = region.get("from_name"), region.get("type")
        name = region.get("id")
        key = name if isinstance(name, str) and name else order
        if address == (spec.control, "rectangle"):
            shapes[key] = region
        elif address == (spec.labels_control, "labels"):
            shapes.setdefault(key, region)  # it holds the geometry as well
            labels.setdefault(key, []).extend(_labels(region, "labels"))
    for key, region in shapes.items():
        yield _Mark(region, labels.get(key, []))


def _labels(region: Mapping[str, Any], key: str) -> list[Any]:
    value = region.get("value")
    given = value.get(key) if isinstance(value, Mapping) else None
    return given if isinstance(given, list) else [given]


def _place(spec: TaskSpec, region: Mapping[str, Any]) -> tuple[Box, bool] | None:
    """The upright box around a region, and whether that is known; None without usable numbers."""
    value = region.get("value")
    if not isinstance(value, Mapping):
        return None
    around = spec.kind == ELLIPSE_LABELS
    turn = value.get("rotation")
    keys = ("x", "y", "radiusX", "radiusY") if around else ("x", "y", "width", "height")
    numbers = [number(value.get(key)) for key in keys] + [0.0 if turn is None else number(turn)]
    x, y, across, down, degrees = numbers
    if x is None or y is None or across is None or down is None or degrees is None:
        return None
    size = _size(region)
    upright = degrees % 360 == 0  # then any size gives the same shares
    width, height = (1.0, 1.0) if upright or size is None else size
    px = (x * width, y * height, across * width, down * height)
    left, top, right, bottom = (around_ellipse if around else around_rectangle)(
        *px, math.radians(degrees)
    )
    sides = (left / width, top / height, right / width, bottom / height)
    return (
        sides[0] / 100,
        sides[1] / 100,
        sides[2] / 100,
        sides[3] / 100,
    ), upright or size is not None


def _size(region: Mapping[str, Any]) -> tuple[float, float] | None:
    width, height = number(region.get("original_width")), number(region.get("original_height"))
    return (width, height) if width and height and width > 0 and height > 0 else None
