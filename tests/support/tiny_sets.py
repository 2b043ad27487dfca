"""Tiny labelled sets and a backbone that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from model.backbones.base import BackboneSpec
from model.datasets import Item
from model.simulation.data import LabelledSet

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}


def png(colour: tuple[int, int, int], seed: int, noise: float = 45.0) -> bytes:
    """A coloured image with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.array(colour, float) + rng.normal(0, noise, (6, 6, 3)) + rng.normal(0, noise, 3)
    out = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def items(count: int) -> Iterator[Item]:
    """`count` images of three colours in turn."""
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        yield Item(f"{name}/{number:03}.png", png(COLOURS[name], number), name, "")


def write_folders(folder: Path, count: int) -> Path:
    """The same on disk, a folder for each class."""
    for item in items(count):
        path = folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.data)
    return folder


class ColourBackbone:
    """Features are the mean colours of the quarters of an image; counts images it has seen."""

    name, dim, size_px, hash = "colour", 12, 8, "c0"

    def __init__(self) -> None:
        self.seen = 0

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1) / 255.0

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.seen += len(inputs)
        return inputs.reshape(-1, 3, 2, 4, 2, 4).mean(axis=(3, 5)).reshape(len(inputs), 12)

    def features(self, images: list[Image.Image]) -> np.ndarray:
        return self.forward(np.stack([self.prepare(image) for image in images]))


def colour_spec(name: str) -> BackboneSpec:
    """What a registry holds of it; it cannot be exported."""

    def no_export(path: Path) -> float:
        raise AssertionError(f"{path} was to be exported")

    return BackboneSpec(
        name=name, dim=12, size_px=8, mean=0.0, scale=255.0, weights_sha256=name, export=no_export
    )


def blobs(count: int = 120, classes: int = 3, *, plain: bool = True, seed: int = 0) -> LabelledSet:
    """Overlapping clouds as a set; every third is for testing."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes).astype(np.int64)
    centres = rng.normal(size=(classes, 8))
    features = (centres[labels] + 1.2 * rng.normal(size=(count, 8))).astype(np.float32)
    return LabelledSet(
        name="blobs",
        classes=tuple("abcdefgh"[:classes]),
        features=features,
        labels=labels,
        test=np.arange(count) % 3 == 2,
        plain=features if plain else None,
        names=tuple(f"image {n}" for n in range(count)),
        digest="d",
        split="every third",
    )
