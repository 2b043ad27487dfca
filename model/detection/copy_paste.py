"""Objects of one image put into another, on cached maps: more scenes from few labelled images.

What a frozen network saw of an object's rectangle is laid over the cells of another image. Maps
know a little of what surrounds each cell, so this is not what the network would see of such a
photo; it is near enough to learn from.

Source:
    Ghiasi et al. 2021, Simple Copy-Paste (arXiv:2012.07177), there on pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import STRIDES
from model.detection.geometry import inside_matrix
from model.detection.maps import ImageMaps
from model.detection.types import BoxLabels, Floats
from model.detection.views import View

TRIES = 5  # places
STILL_SEEN = 0.3  # most of an object that may be covered while it counts as there
GONE = 0.9  # least of it that is covered when it counts as away
WHOLE, SOME = 0.8, 0.1  # of an object within what is copied: it comes along; it is unclear


@dataclass(frozen=True)
class Example:
    """One labelled image as it is trained on.

    Attributes:
        maps: of the image.
        drawn: on the image.
        views: other views of it, if there are any.
    """

    maps: ImageMaps
    drawn: BoxLabels
    views: Sequence[View] = ()


@dataclass(frozen=True)
class _Cells:
    """A rectangle of cells of the coarsest level."""

    x: int
    y: int
    width: int
    height: int

    def shares(self, columns: int, rows: int) -> Floats:
        """``(4,)`` of a canvas of that many cells."""
        corners = [self.x, self.y, self.x + self.width, self.y + self.height]
        return np.array(corners, np.float64) / [columns, rows, columns, rows]


def copy_paste(
    into: Example, source: Example, levels: Sequence[int], rng: np.random.Generator
) -> Example:
    """Lay one object of `source` over `into`, in whole cells of the coarsest level.

    Objects of `into` that it covers are away; where it would cover a part of one, another place is
    tried. Objects of `source` that its rectangle cuts through become areas of which nothing is
    known, and so do areas of that kind within it.

    Args:
        into: is not changed.
        source: where the object comes from, by chance.
        levels: positions of the maps that are wanted; others are left as they are.
        rng: of the object and the place.

    Returns:
        `into` itself where there is no object, or no place for it.
    """
    if not len(source.drawn):
        return into
    columns, rows = _grid_of(into)
    across, down = _grid_of(source)
    box = source.drawn.boxes[int(rng.integers(len(source.drawn)))] * [across, down, across, down]
    x, y = int(box[0]), int(box[1])
    copied = _Cells(x, y, max(int(np.ceil(box[2])) - x, 1), max(int(np.ceil(box[3])) - y, 1))
    if copied.width > columns or copied.height > rows:
        return into
    for _ in range(TRIES):
        place = replace(
            copied,
            x=int(rng.integers(columns - copied.width + 1)),
            y=int(rng.integers(rows - copied.height + 1)),
        )
        covered = inside_matrix(into.drawn.boxes, place.shares(columns, rows)[None])[:, 0]
        if ((covered < STILL_SEEN) | (covered >= GONE)).all():
            maps = _laid_over(into.maps, source.maps, place, copied, levels)
            drawn = _drawn(into.drawn, source.drawn, covered < STILL_SEEN, place, copied,
                           (columns, rows), (across, down))  # fmt: skip
            return Example(maps, drawn)
    return into


def _grid_of(example: Example) -> tuple[int, int]:
    """Columns and rows of the coarsest level."""
    rows, columns = example.maps.levels[-1].shape[1:]
    return columns, rows


def _laid_over(
    into: ImageMaps, source: ImageMaps, place: _Cells, copied: _Cells, levels: Sequence[int]
) -> ImageMaps:
    changed = list(into.levels)
    for level in levels:
        times = STRIDES[-1] // STRIDES[level]
        to, of = (
            (
                slice(None),
                slice(c.y * times, (c.y + c.height) * times),
                slice(c.x * times, (c.x + c.width) * times),
            )
            for c in (place, copied)
        )
        changed[level] = into.levels[level].copy()
        changed[level][to] = source.levels[level][of]
    return replace(into, levels=tuple(changed))


def _drawn(
    into: BoxLabels,
    source: BoxLabels,
    still: NDArray[np.bool_],
    place: _Cells,
    copied: _Cells,
    canvas: tuple[int, int],
    canvas_of_source: tuple[int, int],
) -> BoxLabels:
    patch = copied.shares(*canvas_of_source)
    shift = np.array([place.x - copied.x, place.y - copied.y] * 2, np.float64)

    def moved(boxes: Floats) -> Floats:
        clipped = np.clip(boxes, patch[[0, 1, 0, 1]], patch[[2, 3, 2, 3]])
        there: Floats = (clipped * [*canvas_of_source, *canvas_of_source] + shift) / [
            *canvas, *canvas,
        ]  # fmt: skip
        return there

    share = inside_matrix(source.boxes, patch[None])[:, 0]
    whole = share > WHOLE
    unclear = (share > SOME) & ~whole
    unknown = inside_matrix(source.ignored, patch[None])[:, 0] > 0
    return BoxLabels(
        boxes=np.concatenate([into.boxes[still], moved(source.boxes[whole])]),
        labels=np.concatenate([into.labels[still], source.labels[whole]]),
        accepted=np.concatenate([into.accepted[still], source.accepted[whole]]),
        ignored=np.concatenate(
            [into.ignored, moved(source.boxes[unclear]), moved(source.ignored[unknown])]
        ),
    )
