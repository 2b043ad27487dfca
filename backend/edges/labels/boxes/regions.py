"""Label Studio's regions: of a prediction, of boxes drawn by hand; checking what we send."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backend.edges.labels.boxes.drawing import Drawn
from backend.edges.labels.boxes.geometry import DIGITS, Box, number
from backend.edges.labels.boxes.prediction import Region, decode_prediction
from backend.edges.labels.config import ELLIPSE_LABELS, RECTANGLE, TaskSpec

_SCALE = int(10**DIGITS)
_GEOMETRY = {False: ("x", "y", "width", "height"), True: ("x", "y", "radiusX", "radiusY")}


def box_result(spec: TaskSpec, text: str) -> list[dict[str, Any]]:
    """The result of a prediction: its regions as the control of `spec` draws them.

    Args:
        spec: of the project.
        text: see `prediction`. No region is an empty result, which is what Label Studio gives when
            somebody submits without one.

    Returns:
        One region each, or two with one id where a Rectangle and its Labels are separate tags. Ids
        differ within a text, and are the same whenever it is written.

    Raises:
        ValueError: `text` is no prediction, or names a class that the config does not have.
    """
    found = decode_prediction(text)
    if found is None:
        raise ValueError(f"{text!r:.200} is no prediction of boxes.")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    result = []
    for order, region in enumerate(found.regions):
        if region.label not in spec.classes:
            known = ", ".join(spec.classes)
            raise ValueError(f"'{region.label}' is no label of '{spec.control}': {known}.")
        common = {
            "id": f"{digest}{order}",
            "to_name": spec.object,
            "original_width": found.size[0],
            "original_height": found.size[1],
            "image_rotation": 0,
            "score": region.p,
            "meta": {"text": _notes(region)},
        }
        place = _ellipse(region.box) if spec.kind == ELLIPSE_LABELS else _rectangle(region.box)
        for name, kind, labelled in _addresses(spec):
            value = {**place, kind: [region.label]} if labelled else place
            result.append({"from_name": name, "type": kind, "value": value, **common})
    return result


def drawn_result(
    spec: TaskSpec, drawn: Sequence[Drawn], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """What the editor stores of boxes that somebody draws by hand.

    Args:
        spec: of the project.
        drawn: the objects; none says that there is no object. Their origin does not count.
        size: width and height of the upright image in pixels.
    """
    result = []
    for order, (label, box, _) in enumerate(drawn):
        common = {
            "id": f"drawn-{order}",
            "to_name": spec.object,
            "original_width": size[0],
            "original_height": size[1],
            "image_rotation": 0,
            "origin": "manual",
        }
        place = _ellipse(box) if spec.kind == ELLIPSE_LABELS else _rectangle(box)
        for name, kind, labelled in _addresses(spec):
            value = {**place, kind: [label]} if labelled else place
            result.append({"from_name": name, "type": kind, "value": value, **common})
    return result


def _addresses(spec: TaskSpec) -> Sequence[tuple[str, str, bool]]:
    """Control, type of its results, and whether they carry the label."""
    if spec.kind == RECTANGLE:
        return ((spec.control, RECTANGLE, False), (spec.labels_control, "labels", True))
    return ((spec.control, spec.kind, True),)


def _notes(region: Region) -> list[str]:
    sides = " ".join(f"±{side:.0f}" if side >= 1 else f"±{side:.1f}" for side in region.spread)
    return [f"P(right) {region.p:.2f}", f"sides {sides} px", f"entropy {region.entropy:.2f}"]


def _rectangle(box: Box) -> dict[str, float]:
    """In percent of the image; whole millionths, so that no side ends above 100 by rounding."""
    x0, y0, x1, y1 = (round(side * _SCALE) for side in box)
    x, y = _percent(x0), _percent(y0)
    return {
        "x": x,
        "y": y,
        "width": _within(x, _percent(x1 - x0)),
        "height": _within(y, _percent(y1 - y0)),
        "rotation": 0,
    }


def _ellipse(box: Box) -> dict[str, float]:
    """The ellipse that touches the box's sides: its centre and radii in percent."""
    x0, y0, x1, y1 = (round(side * _SCALE) for side in box)
    x, y = _percent(x0 + x1) / 2, _percent(y0 + y1) / 2
    return {
        "x": x,
        "y": y,
        "radiusX": _within(x, _percent(x1 - x0) / 2),
        "radiusY": _within(y, _percent(y1 - y0) / 2),
        "rotation": 0,
    }


def _percent(millionths: int) -> float:
    return millionths * 100 / _SCALE


def _within(start: float, length: float) -> float:
    """The length, shortened by a rounding error where it would end above 100."""
    while start + length > 100:
        length = math.nextafter(length, 0.0)
    return length


def check_box_region(spec: TaskSpec, region: Mapping[str, Any]) -> list[str]:
    """What is wrong with one region we are about to send; its score is checked elsewhere."""
    addresses = {name: (kind, labelled) for name, kind, labelled in _addresses(spec)}
    name = region.get("from_name")
    if not isinstance(name, str) or name not in addresses:
        return [f"from_name must be {' or '.join(map(repr, addresses))}, got {name!r}"]
    kind, labelled = addresses[name]
    problems = [
        f"{key} must be {expected!r}, got {region.get(key)!r}"
        for key, expected in (("to_name", spec.object), ("type", kind), ("image_rotation", 0))
        if region.get(key) != expected
    ]
    if not isinstance(region.get("id"), str) or not region["id"]:
        problems.append(f"id must be a name, got {region.get('id')!r}")
    for key in ("original_width", "original_height"):
        pixels = region.get(key)
        if type(pixels) is not int or pixels < 1:
            problems.append(f"{key} must be a number of pixels, got {pixels!r}")
    value = region.get("value")
    if not isinstance(value, Mapping):
        return [*problems, f"value must be an object, got {type(value).__name__}"]
    problems += _place_problems(value, spec.kind == ELLIPSE_LABELS)
    chosen = value.get(kind) if labelled else [*spec.classes[:1]]
    if not isinstance(chosen, list) or len(chosen) != 1:
        problems.append(f"value.{kind} must be a list of one label, got {chosen!r}")
    elif chosen[0] not in spec.classes:
        problems.append(f"{chosen[0]!r} is none of {', '.join(spec.classes)}")
    return problems


def _place_problems(value: Mapping[str, Any], around: bool) -> list[str]:
    keys = _GEOMETRY[around]
    x, y, across, down = (number(value.get(key)) for key in keys)
    if x is None or y is None or across is None or down is None:
        given = {key: value.get(key) for key in keys}
        return [f"{', '.join(keys)} must be numbers, got {given!r}"]
    problems = []
    for start, length, key in ((x, across, keys[2]), (y, down, keys[3])):
        first, last = (start - length, start + length) if around else (start, start + length)
        if length <= 0:
            problems.append(f"{key} must be above 0, got {length!r}")
        elif first < 0 or last > 100:
            problems.append(f"it goes from {first!r} to {last!r} percent along {key}")
    if value.get("rotation", 0) != 0:
        problems.append(f"rotation must be 0, got {value.get('rotation')!r}")
    return problems


def id_problems(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids that do not belong to exactly one region, or to one of each kind where there are two."""
    each = len(_addresses(spec))
    seen = Counter((str(r.get("id")), str(r.get("from_name"))) for r in result)
    whole = Counter(name for name, _ in seen)
    twice = {name for (name, _), count in seen.items() if count > 1}
    wrong = sorted(twice | {name for name, count in whole.items() if count != each})
    return [f"id '{name}' must belong to one region and its label" for name in wrong[:3]]
