"""Tiny images with boxes, and a pyramid of fixed filters that needs no network."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from model.backbones.pyramid import STRIDES, PyramidSpec
from model.datasets import Box, Item
from model.detection.maps import MapStore
from model.features import FeatureStore
from model.simulation.boxes import box_set
from model.simulation.data import list_images
from model.simulation.detection import DetectionSet, compute_maps

SIDE_PX = 96
SHAPES = {"red": (220, 40, 40), "blue": (50, 60, 220)}


def scene(seed: int, *, empty: bool = False) -> tuple[bytes, tuple[Box, ...]]:
    """Coloured rectangles on grey: one to three in the quarters of an image."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE_PX, SIDE_PX, 3), 128.0) + rng.normal(0, 6, (SIDE_PX, SIDE_PX, 3))
    boxes = []
    quarters = rng.permutation(4)[: 0 if empty else rng.integers(1, 4)]
    for number, quarter in enumerate(quarters):
        name = list(SHAPES)[(seed + number) % len(SHAPES)]
        width, height = rng.integers(24, 40, 2)
        x = 48 * (quarter % 2) + rng.integers(0, 48 - width)
        y = 48 * (quarter // 2) + rng.integers(0, 48 - height)
        pixels[y : y + height, x : x + width] = SHAPES[name]
        boxes.append(Box(name, *(v / SIDE_PX for v in (x, y, x + width, y + height))))
    out = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue(), tuple(boxes)


def box_items(count: int, *, empty_first: int = 0) -> Iterator[Item]:
    """`count` scenes, the first ones without an object; every third is for testing."""
    for number in range(count):
        data, boxes = scene(number, empty=number < empty_first)
        split = "test" if number % 3 == 2 else "train"
        yield Item(f"{number:03}.png", data, None, split, None, boxes)


def write_packed(folder: Path, count: int, *, broken: int | None = None) -> Path:
    """The same as a packed set; one image may be no image."""
    folder.mkdir(parents=True)
    rows = ["file,archive,split,boxes"]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, item in enumerate(box_items(count)):
            assert item.boxes is not None
            data = item.data
            if number == broken:
                data = data[: len(data) // 2]  # its header says what size it has
            archive.writestr(item.name, data)
            corners = [
                {"label": b.label}
                | {
                    k: round(v * SIDE_PX)
                    for k, v in zip(("x0", "y0", "x1", "y1"), b[1:], strict=True)
                }
                for b in item.boxes
            ]
            quoted = json.dumps(corners).replace('"', '""')
            rows.append(f'{item.name},images.zip,{item.split},"{quoted}"')
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def no_export(path: Path) -> float:
    raise AssertionError(f"{path} was to be exported")


TINY = PyramidSpec(name="tiny", channels=(4, 6, 8), weights_sha256="tiny", export=no_export)


class TinyPyramid:
    """Random mixtures of the mean colours below each location; counts images it has seen."""

    name, hash, channels, dim = TINY.name, TINY.hash, TINY.channels, TINY.dim

    def __init__(self) -> None:
        self.seen = 0
        rng = np.random.default_rng(0)
        self._filters = [rng.normal(size=(n, 3)).astype(np.float32) for n in self.channels]

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def prepare(self, image: Image.Image) -> np.ndarray:
        size = tuple(max(n // 32, 1) * 32 for n in image.size)
        pixels = np.asarray(image.convert("RGB").resize(size), np.float32)
        return pixels.transpose(2, 0, 1) / 64.0 - 2.0

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        self.seen += 1
        _, height, width = pixels.shape
        return tuple(
            np.einsum(
                "dc,chw->dhw",
                weights,
                pixels.reshape(3, height // s, s, width // s, s).mean(axis=(2, 4)),
            )
            for weights, s in zip(self._filters, STRIDES, strict=True)
        )


def scenes(folder: Path, count: int = 30, *, empty_first: int = 0) -> DetectionSet:
    """A set that can be played, its caches in `folder`; TINY has to be among `PYRAMIDS`."""

    def read() -> Iterator[Item]:
        return box_items(count, empty_first=empty_first)

    listing = list_images(read)
    maps, features = MapStore(folder / "maps"), FeatureStore(folder / "features")
    problems = compute_maps(
        read, listing.keys, pyramid=TINY.name, maps=maps, features=features,
        load=lambda name: TinyPyramid(),
    )  # fmt: skip
    assert problems == {}
    data = DetectionSet.of(box_set("scenes", listing))
    return data.with_maps(maps, features, TINY.hash)
