"""Scenes whose objects are known: orange rectangles and blue discs on grey noise."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from model.datasets import Box

CLASSES = ("disc", "rectangle")
SIZE = (320, 240)
_COLOURS = {"disc": (40, 80, 220), "rectangle": (230, 120, 30)}
# How the image that a camera stores comes from the upright one, by EXIF orientation.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(seed: int) -> tuple[Image.Image, tuple[Box, ...]]:
    """One to three objects that do not touch, and where they are."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    image = Image.fromarray(rng.integers(90, 170, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    found = []
    # In the cells of a grid of two rows and three columns, so that they keep apart.
    for cell in rng.permutation(6)[: rng.integers(1, 4)]:
        label = CLASSES[int(rng.integers(2))]
        across = int(rng.integers(50, 90))
        down = across if label == "disc" else int(rng.integers(50, 90))
        x = int(cell % 3 * 106 + rng.integers(0, 106 - across + 1))
        y = int(cell // 3 * 120 + rng.integers(0, 120 - down + 1))
        shape = draw.ellipse if label == "disc" else draw.rectangle
        shape((x, y, x + across - 1, y + down - 1), fill=_COLOURS[label])
        sides = x / width, y / height, (x + across) / width, (y + down) / height
        found.append(Box(label, *sides))
    return image, tuple(found)


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    """A file that shows the image upright, stored as a camera held that way stores it."""
    if orientation in _STORED:
        image = image.transpose(_STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def write_packed(folder: Path, count: int) -> Path:
    """A packed set of scenes, every fourth for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(folder / "images.zip", "w") as archive,
        (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["file", "archive", "split", "boxes"])
        for seed in range(count):
            image, boxes = scene(seed)
            archive.writestr(f"{seed}.jpg", jpeg(image))
            width, height = SIZE
            pixels = [
                {"label": label, "x0": x0 * width, "y0": y0 * height, "x1": x1 * width,
                 "y1": y1 * height}
                for label, x0, y0, x1, y1 in boxes
            ]  # fmt: skip
            split = "test" if seed % 4 == 3 else "train"
            rows.writerow([f"{seed}.jpg", "images.zip", split, json.dumps(pixels)])
    return folder
