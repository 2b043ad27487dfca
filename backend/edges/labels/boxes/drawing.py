"""What a person drew on one image, as the one text that the database stores and compares.

``{"boxes":[["RBC",x0,y0,x1,y1,"drawn"],...],"ignored":[[x0,y0,x1,y1],...]}``: shares of the upright
image with six decimals, sorted, so that equal drawings are equal texts. ``ignored`` are areas of
which it is not known what they hold. No box at all is an answer too: the image has no object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from backend.edges.labels.boxes.geometry import Box, clipped, rounded, to_box
from backend.edges.labels.config import TaskSpec
from model.detection.types import BoxLabels

Origin = Literal["drawn", "edited", "accepted"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)


class Drawn(NamedTuple):
    """One object: its class, where it is, and whether a prediction was taken over."""

    label: str
    box: Box
    origin: Origin = "drawn"


@dataclass(frozen=True)
class Drawing:
    """What one person drew, or several agreed on.

    Attributes:
        boxes: the objects.
        ignored: areas that are neither object nor background.
    """

    boxes: tuple[Drawn, ...] = ()
    ignored: tuple[Box, ...] = ()


def encode(drawing: Drawing) -> str:
    """A drawing as its text.

    Example:
        >>> encode(Drawing((Drawn("RBC", (0.1, 0.2, 0.3, 0.4)),)))
        '{"boxes":[["RBC",0.1,0.2,0.3,0.4,"drawn"]],"ignored":[]}'
    """
    found = {
        "boxes": sorted([d.label, *rounded(d.box), d.origin] for d in drawing.boxes),
        "ignored": sorted(map(list, {rounded(box) for box in drawing.ignored})),
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def decode(text: str) -> Drawing | None:
    """The drawing of a text; None when it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    boxes, ignored = found.get("boxes"), found.get("ignored")
    if not isinstance(boxes, list) or not isinstance(ignored, list):
        return None
    objects = [_object(entry) for entry in boxes]
    areas = [to_box(entry) for entry in ignored]
    kept = tuple(d for d in objects if d is not None), tuple(a for a in areas if a is not None)
    complete = len(kept[0]) == len(objects) and len(kept[1]) == len(areas)
    return Drawing(*kept) if complete else None


def _object(entry: Any) -> Drawn | None:
    if not isinstance(entry, list) or len(entry) != 6:
        return None
    label, *sides, origin = entry
    box = to_box(sides)
    if not isinstance(label, str) or box is None or origin not in ORIGINS:
        return None
    return Drawn(label, box, origin)


def is_drawing(spec: TaskSpec, text: str) -> bool:
    """Whether a text is a drawing in classes that `spec` has now."""
    drawing = decode(text)
    return drawing is not None and all(d.label in spec.classes for d in drawing.boxes)


def in_classes(classes: Sequence[str], drawing: Drawing) -> Drawing:
    """The drawing with objects of other classes as ignored areas."""
    other = tuple(d.box for d in drawing.boxes if d.label not in classes)
    kept = tuple(d for d in drawing.boxes if d.label in classes)
    return Drawing(kept, (*drawing.ignored, *other))


def to_box_labels(text: str, classes: Sequence[str]) -> BoxLabels:
    """A drawing as the model takes it; objects of classes it does not know are ignored areas.

    Raises:
        ValueError: `text` is no drawing.
    """
    drawing = decode(text)
    if drawing is None:
        raise ValueError(f"{text!r:.200} is no drawing of boxes; read the annotation again.")
    drawing = in_classes(classes, drawing)
    code = {name: number for number, name in enumerate(classes)}
    return BoxLabels.of(
        [d.box for d in drawing.boxes],
        [code[d.label] for d in drawing.boxes],
        accepted=[d.origin == "accepted" for d in drawing.boxes],
        ignored=drawing.ignored,
    )


def of_box_labels(drawn: BoxLabels, classes: Sequence[str]) -> str:
    """The text of what the model has; boxes are cut at the image's edges, ignored areas kept."""
    inside = [clipped(_sides(box)) for box in drawn.boxes.tolist()]
    objects = [
        Drawn(classes[label], box)
        for label, box in zip(drawn.labels.tolist(), inside, strict=True)
        if box is not None
    ]
    areas = [area for box in drawn.ignored.tolist() if (area := clipped(_sides(box))) is not None]
    return encode(Drawing(tuple(objects), tuple(areas)))


def _sides(box: Sequence[float]) -> Box:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y1
