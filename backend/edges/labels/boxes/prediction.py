"""What a version says of one image, as the one text that a score stores.

``{"regions":[{"label":...,"box":[x0,y0,x1,y1],"p":...,"spread":[l,t,r,b],"entropy":...},...],
"size":[w,h]}``: shares of the upright image, the most trustworthy region first; ``p`` is the
calibrated probability that the region is right, ``spread`` one standard deviation of each side in
pixels, ``entropy`` the total uncertainty in nats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.edges.labels.boxes.geometry import Box, clipped, number, rounded, to_box
from backend.edges.labels.config import TaskSpec
from model.detection.types import Detections


@dataclass(frozen=True)
class Region:
    """One predicted object.

    Attributes:
        label: its class.
        box: shares of the upright image.
        p: calibrated P(class and place are right).
        spread: pixels, one standard deviation of left, top, right and bottom side.
        entropy: nats, over the classes and "no such object".
    """

    label: str
    box: Box
    p: float
    spread: tuple[float, float, float, float]
    entropy: float


@dataclass(frozen=True)
class Prediction:
    """All regions of one image, most trustworthy first, and its upright size in pixels."""

    regions: tuple[Region, ...]
    size: tuple[int, int]


def encode_prediction(regions: Iterable[Region], size: tuple[int, int]) -> str:
    """Regions in any order as their text.

    Raises:
        ValueError: a region or the size cannot be; the message names it.
    """
    entries: list[dict[str, Any]] = [
        {
            "label": r.label,
            "box": list(rounded(r.box)),
            "p": round(r.p, 4),
            "spread": [round(side, 2) for side in r.spread],
            "entropy": round(r.entropy, 4),
        }
        for r in sorted(regions, key=lambda r: (-r.p, r.label, r.box))
    ]
    for entry in entries:
        if _region(entry) is None:
            raise ValueError(
                f"{entry} is no region: check that its numbers are finite and in range."
            )
    if _size(list(size)) is None:
        raise ValueError(f"{size} is no size of an image; give its width and height in pixels.")
    found = {"regions": entries, "size": list(size)}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def decode_prediction(text: str) -> Prediction | None:
    """The regions of a text; None when it is no prediction of boxes."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("regions"), list):
        return None
    size = _size(found.get("size"))
    regions = tuple(r for entry in found["regions"] if (r := _region(entry)) is not None)
    if size is None or len(regions) != len(found["regions"]):
        return None
    return Prediction(regions, size)


def from_detections(classes: Sequence[str], said: Detections) -> str:
    """What the model says of one image as a text; regions without an area are left out."""
    regions = []
    for n, label in enumerate(said.label):
        x0, y0, x1, y1 = said.boxes[n].tolist()
        left, top, right, bottom = said.spread[n].tolist()
        box = clipped((x0, y0, x1, y1))
        if box is not None:
            p, total = float(said.p_right[n]), max(0.0, float(said.total[n]))
            regions.append(Region(classes[int(label)], box, p, (left, top, right, bottom), total))
    return encode_prediction(regions, said.size)


def is_prediction(spec: TaskSpec, text: str) -> bool:
    """Whether a text is a prediction in classes that `spec` has now."""
    found = decode_prediction(text)
    return found is not None and all(region.label in spec.classes for region in found.regions)


def _region(entry: Any) -> Region | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return None
    box, p, entropy = to_box(entry.get("box")), number(entry.get("p")), number(entry.get("entropy"))
    given = entry.get("spread")
    spread = [number(side) for side in given] if isinstance(given, list) else []
    sides = [side for side in spread if side is not None and side >= 0]
    if box is None or p is None or not 0 <= p <= 1 or entropy is None or entropy < 0:
        return None
    if len(spread) != 4 or len(sides) != 4:
        return None
    return Region(entry["label"], box, p, (sides[0], sides[1], sides[2], sides[3]), entropy)


def _size(given: Any) -> tuple[int, int] | None:
    if not isinstance(given, list) or len(given) != 2:
        return None
    width, height = given
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        return None  # True is an int as well
    return width, height
