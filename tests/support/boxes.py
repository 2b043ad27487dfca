"""Small images with boxes, and what a network might see of them, painted by hand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from model.backbones.pyramid import STRIDES, pooled
from model.detection.maps import ImageMaps
from model.detection.shape import HeadShape
from model.detection.types import BoxLabels

CHANNELS = (8, 12, 16)
NOTHING = BoxLabels.of([], [])


def head_shape(
    levels: int = 3, *, n_classes: int = 2, width: int = 16, coarser: int = 0
) -> HeadShape:
    """A tiny head on the coarsest maps, which reads the one below them as well."""
    detail = (0, *CHANNELS)[-levels - 1]
    strides = STRIDES[-levels:] + tuple(STRIDES[-1] * 2**n for n in range(1, coarser + 1))
    channels = CHANNELS[-levels:] + CHANNELS[-1:] * coarser
    return HeadShape(strides, channels, width, 1, n_classes, detail, coarser)


def standard(shape: HeadShape, *, seed: int | None = None):
    """Means 0 and deviations 1, or random ones."""
    if seed is None:
        return tuple(
            (np.zeros(c, np.float32), np.ones(c, np.float32)) for c in shape.input_channels
        )
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(size=c).astype(np.float32), rng.uniform(0.5, 2, c).astype(np.float32))
        for c in shape.input_channels
    )


def painted(drawn: BoxLabels, *, rows: int = 3, columns: int = 4, seed: int = 0) -> ImageMaps:
    """Maps of a canvas of ``rows x columns`` coarse cells whose first channels hold the boxes.

    Channel c is 1 where a cell's centre lies in a box of class c; the others are noise.
    """
    rng = np.random.default_rng(seed)
    levels = []
    for stride, count in zip(STRIDES, CHANNELS, strict=True):
        height, width = rows * STRIDES[-1] // stride, columns * STRIDES[-1] // stride
        level = rng.normal(0, 0.1, (count, height, width))
        y, x = np.mgrid[:height, :width]
        x, y = (x + 0.5) / width, (y + 0.5) / height
        for (x0, y0, x1, y1), label in zip(drawn.boxes, drawn.labels, strict=True):
            level[label][(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)] += 2.0
        levels.append(level.astype(np.float16))
    return ImageMaps(tuple(levels), (columns * 64, rows * 64))


def random_drawing(rng: np.random.Generator, *, n_classes: int = 2, most: int = 3) -> BoxLabels:
    """Up to `most` boxes of a fifth to a half of the image, apart from each other."""
    boxes: list[list[float]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        for _ in range(20):
            side = rng.uniform(0.2, 0.5, 2)
            corner = rng.uniform(0, 1 - side)
            box = [*corner, *(corner + side)]
            if all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in boxes):
                boxes.append(box)
                break
    return BoxLabels.of(boxes, rng.integers(n_classes, size=len(boxes)).tolist())


class ColourPyramid:
    """A pyramid whose maps are colours of cells: fast, and objects of one colour are found."""

    name, hash, channels, dim = "colours", "0123456789ab", (6, 6, 6), 18
    side_px = 96

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        return self.side_px, self.side_px

    def prepare(self, image: Image.Image) -> np.ndarray:
        small = image.convert("RGB").resize((self.side_px, self.side_px))
        return np.asarray(small, np.float32).transpose(2, 0, 1) / 255.0

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        maps = []
        for stride in STRIDES:
            n = self.side_px // stride
            cells = pixels.reshape(3, n, stride, n, stride)
            maps.append(np.concatenate([cells.mean((2, 4)), cells.std((2, 4))]).astype(np.float32))
        return tuple(maps)

    def maps(self, image: Image.Image) -> tuple[np.ndarray, ...]:
        return self.forward(self.prepare(image))

    def vector(self, image: Image.Image) -> np.ndarray:
        return pooled(self.maps(image))


COLOURS = ((250, 40, 40), (40, 60, 250))


def picture_of(drawn: BoxLabels, *, seed: int = 0, side_px: int = 96) -> bytes:
    """A dark noisy PNG with a rectangle of its class's colour for each box."""
    noise = np.random.default_rng(seed).integers(0, 60, (side_px, side_px, 3))
    image = Image.fromarray(noise.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for box, label in zip(drawn.boxes, drawn.labels, strict=True):
        pen.rectangle((box * side_px).round().tolist(), fill=COLOURS[label])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def rectangle(name: str, box: Any, *, origin: str = "manual", side_px: int = 96) -> dict[str, Any]:
    """A region of ``<RectangleLabels name="box" toName="image">`` as Label Studio stores it."""
    x0, y0, x1, y1 = (float(v) * 100 for v in box)
    return {
        "id": f"{name}{x0:.3f}{y0:.3f}", "from_name": "box", "to_name": "image",
        "type": "rectanglelabels", "origin": origin,
        "original_width": side_px, "original_height": side_px, "image_rotation": 0,
        "value": {
            "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0,
            "rectanglelabels": [name],
        },
    }  # fmt: skip
