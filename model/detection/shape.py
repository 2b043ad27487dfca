"""What a head is made of, chosen from the boxes people drew; and where its locations lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import STRIDES
from model.detection.types import BoxLabels

# Mean and standard deviation of every channel, of each level.
Standard = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

BOX_OUTPUTS = 9  # four sides, the box's quality, and the spread of four sides
REACH = 3.0  # a side of reach * stride is what an output of 0 means
LARGEST_LOG = 5.0
CELLS = 4.0  # of the finest level that an object of the smallest class spans
MOST_CELLS = 8.0  # of the coarsest level that an object of the largest class spans at most
USUAL_SPREAD, PRIOR_DRAWS = 0.4, 2.0  # of log sides within a class, and how far that is believed
SMALL = 16.0  # pixels of the canvas: objects below are hardly ever found
MEDIAN_ERROR = np.sqrt(np.pi / 2)  # standard error of a median, in those of a mean
CONFIDENT = 1.64  # standard errors: one-sided 95 %
WIDTHS = (64, 96)  # with and without the level of stride 8
# Regions of an image that are kept: never fewer, never more, and how many times as many as objects
# were drawn on the fullest labelled image, as one without labels may be fuller.
FEWEST_KEPT, MOST_KEPT, KEPT_PER_OBJECT = 100, 500, 2


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a head.

    Attributes:
        strides: of the levels it predicts on, finest first.
        channels: of their maps.
        width: channels within.
        depth: blocks of each tower.
        n_classes: C.
        detail: channels of the map one level finer, where boxes are read from as well; 0 where
            there is none.
        coarser: how many of the levels are coarser than any map: each is the mean of 2 x 2 cells
            of the one before.
        regions: of an image that are kept at most.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    width: int
    depth: int
    n_classes: int
    detail: int = 0
    coarser: int = 0
    regions: int = FEWEST_KEPT

    @property
    def inputs(self) -> tuple[int, ...]:
        """Strides of the maps it reads, finest first."""
        own = self.strides[: len(self.strides) - self.coarser]
        return (own[0] // 2, *own) if self.detail else own

    @property
    def input_channels(self) -> tuple[int, ...]:
        """Channels of the maps it reads."""
        own = self.channels[: len(self.channels) - self.coarser]
        return (self.detail, *own) if self.detail else own

    def grid(self, height: int, width: int) -> NDArray[np.float32]:
        """``(L, 3)`` x, y and stride in pixels of all locations of a canvas.

        Levels coarser than any map may have locations beyond its right and lower edge.
        """
        parts = []
        for stride in self.strides:
            rows, columns = -(-height // stride), -(-width // stride)
            y, x = np.mgrid[:rows, :columns]
            part = np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.shape, stride)], -1)
            parts.append(part.reshape(-1, 3))
        return np.concatenate(parts).astype(np.float32)


def log_sides(
    labels: Sequence[BoxLabels], canvases: Sequence[tuple[int, int]], n_classes: int
) -> list[NDArray[np.float64]]:
    """Of each class the logs of its boxes' sides in pixels of their canvas.

    The side of a box is the geometric mean of its width and height.
    """
    found: list[list[float]] = [[] for _ in range(n_classes)]
    for drawn, (across, down) in zip(labels, canvases, strict=True):
        lengths = drawn.boxes[:, 2:] - drawn.boxes[:, :2]
        logs = 0.5 * np.log(lengths[:, 0] * across * lengths[:, 1] * down)
        for label, log in zip(drawn.labels, logs.tolist(), strict=True):
            found[label].append(log)
    return [np.array(of_class, np.float64) for of_class in found]


def smallest_side(logs: Sequence[NDArray[np.float64]]) -> float:
    """Pixels that objects of the smallest class may well span: upper bound of its median.

    The smallest median of several classes with a few objects each is mostly small by chance, and
    what is chosen for being doubtful is smaller than the rest. The bound is that of a median of
    normal values that vary as they do within all classes together; where those are few, as much as
    sides commonly do. 0 without any object.

    Args:
        logs: see `log_sides`.
    """
    drawn = [of_class for of_class in logs if len(of_class)]
    if not drawn:
        return 0.0
    squares = sum(float(((one - one.mean()) ** 2).sum()) for one in drawn)
    free = sum(len(one) - 1 for one in drawn)
    deviation = np.sqrt((squares + PRIOR_DRAWS * USUAL_SPREAD**2) / (free + PRIOR_DRAWS))
    error = [CONFIDENT * MEDIAN_ERROR * deviation / np.sqrt(len(one)) for one in drawn]
    sides = [np.exp(np.median(one) + e) for one, e in zip(drawn, error, strict=True)]
    return float(min(sides))


def largest_side(logs: Sequence[NDArray[np.float64]]) -> float:
    """Pixels that objects of the largest class span: its median. 0 without any object."""
    return max((float(np.exp(np.median(one))) for one in logs if len(one)), default=0.0)


def small_objects(logs: Sequence[NDArray[np.float64]]) -> float:
    """Share of all objects that are too small on their canvas to be found.

    Args:
        logs: see `log_sides`; of one object at least.
    """
    return float((np.concatenate(logs) < np.log(SMALL)).mean())


def shape_for(
    labels: Sequence[BoxLabels],
    canvases: Sequence[tuple[int, int]],
    n_classes: int,
    channels: Sequence[int],
) -> HeadShape:
    """Levels and width from the sizes of the boxes, regions from how many there are.

    The finest level is the coarsest on which the smallest class may well span four cells: finer
    ones help small objects, and where there are none they cost most of the time and are learnt
    worse from few images. What that saves buys a wider head. Levels coarser than any map follow,
    so that there are two at least, and while the largest class spans more than eight cells: a
    location on a finer one does not see where such an object ends.
    """
    logs = log_sides(labels, canvases, n_classes)
    smallest, largest = smallest_side(logs), largest_side(logs)
    fitting = [n for n, stride in enumerate(STRIDES) if smallest >= CELLS * stride]
    first = max(fitting, default=0)
    strides = STRIDES[first:]
    while len(strides) < 2 or largest > MOST_CELLS * strides[-1]:
        strides += (2 * strides[-1],)
    coarser = len(strides) - len(STRIDES[first:])
    most = max((len(one) for one in labels), default=0)
    return HeadShape(
        strides=strides,
        channels=(*channels[first:], *[channels[-1]] * coarser),
        width=WIDTHS[min(first, 1)],
        depth=2,
        n_classes=n_classes,
        detail=channels[first - 1] if first else 0,
        coarser=coarser,
        regions=int(np.clip(KEPT_PER_OBJECT * most, FEWEST_KEPT, MOST_KEPT)),
    )
