"""A trained head that predicts: ONNX Runtime for the maps, numpy for the last layers and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import STRIDES
from model.backbones.session import open_session
from model.detection.maps import ImageMaps
from model.detection.shape import LARGEST_LOG, REACH, HeadShape
from model.detection.suppression import non_maximum_suppression

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BEFORE = 3  # locations that suppression is given for every region it may leave
LEAST_SCORE = 0.02  # of what is kept at all


@dataclass(frozen=True)
class LastLayers:
    """The linear layers that turn a location's features into classes and a box.

    Attributes:
        classify: ``(width, C)`` and ``(C,)``.
        regress: ``(width, 9)`` and ``(9,)``.
        scale: ``(levels,)`` added to the four sides of each level.
    """

    classify: tuple[F32, F32]
    regress: tuple[F32, F32]
    scale: F32


@dataclass(frozen=True)
class Kept:
    """Regions of one image after suppression, by descending score; R of them.

    Attributes:
        boxes: ``(R, 4)`` shares of the image.
        label: ``(R,)`` the class with the highest score.
        scores: ``(R, C)`` of every class, in (0, 1): how probable, times how well the box fits.
        quality: ``(R,)`` expected IoU of the box with its object.
        spread: ``(R, 4)`` shares, Laplace scale of each side's error.
        of_class: ``(R, width)`` what `classify` read.
        of_box: ``(R, width)`` what `regress` read.
        grid: ``(R, 3)`` x, y, stride of each region's location in pixels of the canvas.
        level: ``(R,)``.
        canvas: width and height in pixels.
    """

    boxes: F64
    label: NDArray[np.int64]
    scores: F64
    quality: F64
    spread: F64
    of_class: F32
    of_box: F32
    grid: F32
    level: NDArray[np.int64]
    canvas: tuple[int, int]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def score(self) -> F64:
        """``(R,)`` of the class each region has."""
        return self.scores[np.arange(len(self)), self.label]

    def take(self, rows: NDArray[np.int64]) -> Kept:
        """Some of the regions, in that order."""
        values: dict[str, Any] = dict(vars(self))
        return Kept(**{k: v if k == "canvas" else v[rows] for k, v in values.items()})


def sigmoid(x: NDArray[Any]) -> F64:
    """Of float64, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x.astype(np.float64))))


class Head:
    """A head in an ONNX Runtime session on the CPU, one thread.

    Args:
        shape: of the head.
        graph: see `model.detection.graph.write_head`.
        last: its last layers.
        overlap: IoU above which the lower of two boxes of a class is dropped.
    """

    def __init__(
        self, shape: HeadShape, graph: bytes, last: LastLayers, *, overlap: float = 0.6
    ) -> None:
        self._session = open_session(graph)
        self.shape, self.graph, self.last, self.overlap = shape, graph, last, overlap
        self._first = STRIDES.index(shape.inputs[0])
        self._grids: dict[tuple[int, int], F32] = {}

    def features(self, maps: ImageMaps) -> tuple[F32, F32, F32, tuple[int, int]]:
        """``(L, width)`` for classes and for boxes, the grid ``(L, 3)``, and the canvas."""
        levels = maps.levels[self._first :]
        given = {f"level{n}": v[None].astype(np.float32) for n, v in enumerate(levels)}
        out = [x[0].reshape(x.shape[1], -1).T for x in self._session.run(None, given)]
        half = len(out) // 2
        width, height = maps.canvas
        if (height, width) not in self._grids:
            self._grids[height, width] = self.shape.grid(height, width)
        grid = self._grids[height, width]
        return np.concatenate(out[:half]), np.concatenate(out[half:]), grid, (width, height)

    def find(self, maps: ImageMaps) -> Kept:
        """Regions of one image: at most as its shape says, none below a score of 0.02."""
        of_class, of_box, grid, canvas = self.features(maps)
        weight, bias = self.last.classify
        logits = of_class @ weight + bias
        top = logits.max(axis=1)
        on_canvas = (grid[:, :2] < canvas).all(axis=1)
        likely = np.flatnonzero(on_canvas & (top > np.log(LEAST_SCORE / (1 - LEAST_SCORE))))
        likely = likely[np.argsort(-top[likely], kind="stable")[: BEFORE * self.shape.regions]]
        level = np.searchsorted(np.array(self.shape.strides), grid[likely, 2])
        boxes, quality, spread = self.boxes(of_box[likely], grid[likely], level)
        boxes = np.clip(boxes / np.array([*canvas, *canvas]), 0.0, 1.0)
        label = logits[likely].argmax(axis=1)
        whole = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=1.0) > 1e-4
        order = np.flatnonzero(whole)
        kept = order[
            non_maximum_suppression(
                boxes[order], top[likely][order], label[order], overlap=self.overlap
            )[: self.shape.regions]
        ]
        rows = likely[kept]
        return Kept(
            boxes=boxes[kept],
            label=label[kept].astype(np.int64),
            scores=sigmoid(logits[rows]),
            quality=quality[kept],
            spread=spread[kept] * np.tile(boxes[kept, 2:] - boxes[kept, :2], 2),
            of_class=of_class[rows],
            of_box=of_box[rows],
            grid=grid[rows],
            level=level[kept],
            canvas=canvas,
        )

    def boxes(self, of_box: F32, grid: F32, level: NDArray[np.int64]) -> tuple[F64, F64, F64]:
        """Boxes ``(..., R, 4)`` in pixels of the canvas, quality and relative spread."""
        weight, bias = self.last.regress
        out = (of_box @ weight + bias).astype(np.float64)
        sides = out[..., :4] + self.last.scale[level][:, None]
        reach = np.exp(np.clip(sides, -LARGEST_LOG, LARGEST_LOG)) * REACH * grid[:, 2:]
        boxes = np.concatenate([grid[:, :2] - reach[..., :2], grid[:, :2] + reach[..., 2:]], -1)
        spread = np.exp(np.clip(out[..., 5:], -LARGEST_LOG, LARGEST_LOG))
        return boxes, sigmoid(out[..., 4]), spread

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the shape, for storing."""
        return {
            "graph": np.frombuffer(self.graph, np.uint8),
            "classify.weight": self.last.classify[0],
            "classify.bias": self.last.classify[1],
            "regress.weight": self.last.regress[0],
            "regress.bias": self.last.regress[1],
            "scale": self.last.scale,
            "overlap": np.array([self.overlap]),
        }

    @classmethod
    def restore(cls, shape: HeadShape, arrays: Mapping[str, NDArray[Any]]) -> Head:
        """From what `arrays` gave."""
        return cls(
            shape,
            arrays["graph"].tobytes(),
            LastLayers(
                (arrays["classify.weight"], arrays["classify.bias"]),
                (arrays["regress.weight"], arrays["regress.bias"]),
                arrays["scale"],
            ),
            overlap=float(arrays["overlap"][0]),
        )
