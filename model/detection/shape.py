"""What a head is made of, chosen from the boxes people drew; and where its locations lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import STRIDES, canvas
from model.detection.types import BoxLabels

# Mean and standard deviation of every channel, of each level.
Standard = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

BOX_OUTPUTS = 9  # four sides, the box's quality, and the spread of four sides
REACH = 3.0  # a side of reach * stride is what an output of 0 means
LARGEST_LOG = 5.0
CELLS = 4.0  # of the finest level that an object of the smallest class spans
WIDTHS = (64, 96)  # with and without the level of stride 8


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a head.

    Attributes:
        strides: of the levels it reads, finest first.
        channels: of their maps.
        width: channels within.
        depth: blocks of each tower.
        n_classes: C.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    width: int
    depth: int
    n_classes: int

    @property
    def box_outputs(self) -> int:
        """Outputs of `regress`."""
        return BOX_OUTPUTS

    def grid(self, height: int, width: int) -> NDArray[np.float32]:
        """``(L, 3)`` x, y and stride in pixels of all locations of a canvas."""
        parts = []
        for stride in self.strides:
            rows, columns = height // stride, width // stride
            y, x = np.mgrid[:rows, :columns]
            part = np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.shape, stride)], -1)
            parts.append(part.reshape(-1, 3))
        return np.concatenate(parts).astype(np.float32)


def shortest_sides(
    labels: Sequence[BoxLabels], sizes: Sequence[tuple[int, int]], n_classes: int
) -> NDArray[np.float64]:
    """``(C,)`` median side of each class's boxes in pixels of their canvas; nan without one.

    The side of a box is the geometric mean of its width and height.
    """
    found: list[list[float]] = [[] for _ in range(n_classes)]
    for drawn, (width, height) in zip(labels, sizes, strict=True):
        across, down = canvas(width, height)
        sides = drawn.boxes[:, 2:] - drawn.boxes[:, :2]
        lengths = np.sqrt(sides[:, 0] * across * sides[:, 1] * down)
        for label, length in zip(drawn.labels, lengths.tolist(), strict=True):
            found[label].append(length)
    return np.array([np.median(of_class) if of_class else np.nan for of_class in found])


def shape_for(
    labels: Sequence[BoxLabels],
    sizes: Sequence[tuple[int, int]],
    n_classes: int,
    channels: Sequence[int],
) -> HeadShape:
    """Levels and width from the sizes of the boxes.

    The finest level is the coarsest on which the smallest class still spans four cells: finer ones
    help small objects, and where there are none they cost most of the time and are learnt worse
    from few images. What that saves buys a wider head.
    """
    sides = shortest_sides(labels, sizes, n_classes)
    smallest = float(np.nanmin(sides)) if not np.isnan(sides).all() else 0.0
    fitting = [n for n, stride in enumerate(STRIDES) if smallest >= CELLS * stride]
    first = max(fitting, default=0)
    return HeadShape(
        strides=STRIDES[first:],
        channels=tuple(channels[first:]),
        width=WIDTHS[min(first, 1)],
        depth=2,
        n_classes=n_classes,
    )
