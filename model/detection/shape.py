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
SMALL_PX = 50.0  # boxes below need the finest level


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
    labels: Sequence[BoxLabels], sizes: Sequence[tuple[int, int]]
) -> NDArray[np.float64]:
    """``(B,)`` geometric mean of both sides of every box, in pixels of its image's canvas."""
    found = []
    for drawn, (width, height) in zip(labels, sizes, strict=True):
        across, down = canvas(width, height)
        sides = drawn.boxes[:, 2:] - drawn.boxes[:, :2]
        found.append(np.sqrt(sides[:, 0] * across * sides[:, 1] * down))
    return np.concatenate(found) if found else np.zeros(0)


def shape_for(
    labels: Sequence[BoxLabels],
    sizes: Sequence[tuple[int, int]],
    n_classes: int,
    channels: Sequence[int],
) -> HeadShape:
    """Levels and width from the sizes of the boxes.

    Small objects need stride 8; where there are none, leaving it out halves the cost of a step,
    which buys a wider head.
    """
    sides = shortest_sides(labels, sizes)
    small = len(sides) == 0 or float(np.quantile(sides, 0.05)) < SMALL_PX
    first = 0 if small else 1
    return HeadShape(
        strides=STRIDES[first:],
        channels=tuple(channels[first:]),
        width=64 if small else 96,
        depth=2,
        n_classes=n_classes,
    )
