"""Boxes in the annotations of a Label Studio export."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.edges.labels.boxes import Drawing, Drawn, agreed
from backend.edges.labels.boxes.geometry import around_ellipse, around_rectangle, clipped
from backend.edges.labels.boxes.reading import once
from model.datasets import Box

# Each region's type, and where its own label is; the plain shapes have theirs in a region of type
# "labels" with the same id.
SHAPES = frozenset(("rectanglelabels", "ellipselabels", "rectangle", "ellipse"))
_LABELS = "labels"

Region = Mapping[str, Any]


def box_tags(result: Sequence[Region]) -> Iterator[str]:
    """For each box the name of the control tag that gives its label."""
    named = _named(result)
    return (_tag(region, named) for region in result if region.get("type") in SHAPES)


def boxes_of(result: Sequence[Region], control: str | None = None) -> list[Box]:
    """What one annotation draws.

    Rectangles and ellipses, turned ones by the upright box around them; of several labels the
    first. As in the loop, boxes are cut at the image's edges, accidental clicks are none, and a box
    drawn twice is one.

    Args:
        result: of the annotation; regions that are no boxes are passed over.
        control: only boxes whose label comes from this tag.

    Raises:
        ValueError: a region has no label or no usable geometry; the message names it.
    """
    named = _named(result)
    found: list[Drawn] = []
    for region in result:
        if region.get("type") not in SHAPES or control not in (None, _tag(region, named)):
            continue
        box, label = clipped(_sides(region)), _label(region, named)
        if box is not None:
            found.append(Drawn(label, box))
    return [Box(drawn.label, *drawn.box) for drawn in once(found)]


def merged_boxes(given: Sequence[Sequence[Box]]) -> tuple[Box, ...]:
    """What several annotators drew as one, oldest first, by the rules of the loop.

    What half of them or fewer drew is left out: a set has no place for what is disputed.
    """
    drawings = [Drawing(tuple(Drawn(b.label, b[1:]) for b in boxes), ()) for boxes in given]
    return tuple(Box(drawn.label, *drawn.box) for drawn in agreed(drawings).boxes)


def _named(result: Sequence[Region]) -> dict[str, Region]:
    """Regions of type "labels" by their id."""
    return {str(r.get("id")): r for r in result if r.get("type") == _LABELS}


def _tag(region: Region, named: Mapping[str, Region]) -> str:
    plain = region.get("type") in ("rectangle", "ellipse")
    source = named.get(str(region.get("id")), region) if plain else region
    return str(source.get("from_name"))


def _label(region: Region, named: Mapping[str, Region]) -> str:
    for source in (region, named.get(str(region.get("id")), {})):
        labels = _value(source).get(str(source.get("type")))
        if isinstance(labels, list) and labels and isinstance(labels[0], str) and labels[0]:
            return labels[0]
    raise ValueError(f"region {region.get('id')!r} is a {region.get('type')} without a label")


def _value(region: Region) -> Mapping[str, Any]:
    value = region.get("value")
    return value if isinstance(value, Mapping) else {}


def _sides(region: Region) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in shares of the image."""
    value = _value(region)

    def number(name: str, source: Region = value, default: float | None = None) -> float:
        given = source.get(name, default)
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not math.isfinite(given)
        ):
            raise ValueError(
                f"region {region.get('id')!r} is a {region.get('type')} with {name}={given!r}; it "
                "must be a number"
            )
        return float(given)

    # A turn is one of the pixels, not of percentages.
    width = number("original_width", region, 1.0) / 100.0
    height = number("original_height", region, 1.0) / 100.0
    if width <= 0 or height <= 0:
        raise ValueError(f"region {region.get('id')!r} is of an image without pixels")
    x, y = number("x") * width, number("y") * height
    angle = math.radians(number("rotation", default=0.0))
    if str(region.get("type")).startswith("ellipse"):
        around = around_ellipse(x, y, number("radiusX") * width, number("radiusY") * height, angle)
    else:
        around = around_rectangle(x, y, number("width") * width, number("height") * height, angle)
    left, top, right, bottom = around
    full_x, full_y = 100.0 * width, 100.0 * height
    return left / full_x, top / full_y, right / full_x, bottom / full_y
