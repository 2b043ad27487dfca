"""One drawing from several annotators.

Boxes of different annotators with IoU >= 0.5 are the same object, those of one class first, the
best match before the others. Where more than half of the annotators drew it, it is there: each side
is the median of theirs, the class is the majority's, the newest among equals. What half or fewer
drew is disputed, an ignored area: neither object nor background. An area that one annotator left
without a usable class says that something is there, and nothing of its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from backend.edges.labels.boxes.drawing import ORIGINS, Drawing, Drawn, Origin
from backend.edges.labels.boxes.geometry import Box, ious, rounded
from backend.edges.labels.merge import majority

MATCH = 0.5


class _Mark(NamedTuple):
    label: str | None
    box: Box
    origin: Origin


def agreed(drawings: Sequence[Drawing]) -> Drawing:
    """What annotators of one image agree on.

    Args:
        drawings: of each of them, oldest first; at least one. A single one is taken as it is.
    """
    if len(drawings) == 1:
        return drawings[0]
    groups: list[list[_Mark]] = []
    for drawing in drawings:
        _add(groups, [_Mark(*d) for d in drawing.boxes] + [_area(a) for a in drawing.ignored])
    boxes: list[Drawn] = []
    disputed: list[Box] = []
    for group in groups:
        label = majority(mark.label for mark in group if mark.label is not None)
        if label is None or 2 * len(group) <= len(drawings):
            disputed.append(_around(group))
        else:
            # The first that anybody has: one who drew it himself makes it drawn.
            origin = next(o for o in ORIGINS if any(mark.origin == o for mark in group))
            boxes.append(Drawn(label, _around(group), origin))
    return Drawing(tuple(boxes), tuple(disputed))


def _area(box: Box) -> _Mark:
    return _Mark(None, box, "drawn")


def _shares_class(group: Sequence[_Mark], mark: _Mark) -> bool:
    return mark.label is not None and any(other.label == mark.label for other in group)


def _around(group: Sequence[_Mark]) -> Box:
    x0, y0, x1, y1 = (median(sides) for sides in zip(*(mark.box for mark in group), strict=True))
    return rounded((x0, y0, x1, y1))


def _add(groups: list[list[_Mark]], marks: Sequence[_Mark]) -> None:
    """Put one annotator's marks to the objects found so far; what matches none is a new one."""
    overlaps = ious([_around(group) for group in groups], [mark.box for mark in marks])
    matches = sorted(
        (not _shares_class(groups[number], marks[order]), -overlaps[number, order], number, order)
        for number, order in np.argwhere(overlaps >= MATCH).tolist()
    )
    taken: set[int] = set()
    found: set[int] = set()
    for _, _, number, order in matches:
        if number not in taken and order not in found:
            taken.add(number)
            found.add(order)
            groups[number].append(marks[order])
    groups.extend([mark] for order, mark in enumerate(marks) if order not in found)
