"""Cached maps on disk: one small file an image, whatever its shape, written by many processes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model.backbones.pyramid import STRIDES, Maps, pooled
from model.errors import MissingFeaturesError, ModelError

LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class ImageMaps:
    """What a pyramid saw of one image.

    Attributes:
        levels: ``(channels, H / stride, W / stride)`` float16, finest first.
        size: width and height of the upright image in pixels.
    """

    levels: tuple[NDArray[np.float16], ...]
    size: tuple[int, int]

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height in pixels at which the pyramid looked at the image."""
        return _canvas_of(self.levels[-1].shape)

    @classmethod
    def of(cls, maps: Maps, size: tuple[int, int]) -> ImageMaps:
        """From a pyramid's maps, at the precision of the cache, so that both give one result."""
        return cls(tuple(to_half(level) for level in maps), size)

    def pooled(self) -> NDArray[np.float32]:
        """``(D,)`` see `model.backbones.pyramid.pooled`."""
        return pooled(tuple(level.astype(np.float32) for level in self.levels))


def means_inside(level: NDArray[np.float16], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """``(B, channels)`` means of a map over the cells that each box touches.

    Args:
        level: ``(channels, rows, columns)``.
        boxes: ``(B, 4)`` shares of the image, none of them empty.
    """
    values = level.astype(np.float32)
    channels, rows, columns = values.shape
    low = (boxes[:, :2] * [columns, rows]).astype(int)
    high = np.maximum(np.ceil(boxes[:, 2:] * [columns, rows]).astype(int), low + 1)
    found = [
        values[:, y:bottom, x:right].mean(axis=(1, 2))
        for (x, y), (right, bottom) in zip(low, high, strict=True)
    ]
    return np.array(found, np.float32).reshape(len(boxes), channels)


def _canvas_of(coarsest: Sequence[int]) -> tuple[int, int]:
    _, rows, columns = coarsest
    return columns * STRIDES[-1], rows * STRIDES[-1]


def to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Float16, what is beyond its range at its end."""
    return np.clip(values, -LARGEST, LARGEST).astype(np.float16)


class MapStore:
    """Maps by the SHA-256 of the image's bytes: ``root/<pyramid hash>/<2 digits>/<key>``.

    Files appear whole or not at all; safe from any number of processes that share the folder.

    Args:
        root: a folder; made when something is first added.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, code: str, key: str) -> Path:
        if len(key) != 64 or not all(c in "0123456789abcdef" for c in key):
            raise ModelError(f"{key[:80]!r} is not a SHA-256; a key has 64 hex digits")
        return self.root / code / key[:2] / f"{key}.safetensors"

    def add(self, code: str, key: str, maps: ImageMaps) -> None:
        """Store one image's maps; adding a key again is harmless.

        Raises:
            ModelError: a value is not finite, or the key is no SHA-256.
        """
        if not all(np.isfinite(level).all() for level in maps.levels):
            raise ModelError(f"maps of image {key} are not finite; is the backbone damaged?")
        path = self._path(code, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{key}-{uuid.uuid4().hex}.tmp")
        arrays = {f"level{n}": np.ascontiguousarray(v) for n, v in enumerate(maps.levels)}
        try:
            save_file(arrays, temporary, metadata={"size": json.dumps(maps.size)})
            handle = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def missing(self, code: str, keys: Iterable[str]) -> list[str]:
        """Give the keys that have no maps yet, in their order, each once."""
        return [key for key in dict.fromkeys(keys) if not self._path(code, key).is_file()]

    def load(self, code: str, key: str, *, coarsest: bool = False) -> ImageMaps:
        """Read one image's maps.

        Args:
            code: see `missing`.
            key: see `missing`.
            coarsest: only the last of them, a quarter of the bytes.

        Raises:
            MissingFeaturesError: they are not in the cache, or damaged; then they are missing now.
        """
        with _opened(self._path(code, key), key) as file:
            names = sorted(file.keys())[-1 if coarsest else 0 :]
            if not names:
                raise ValueError("it holds no maps")
            width, height = json.loads(file.metadata()["size"])
            return ImageMaps(tuple(file.get_tensor(n) for n in names), (width, height))

    def sides(self, code: str, key: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height of an upright image and of its canvas, without reading its maps.

        Raises:
            MissingFeaturesError: they are not in the cache, or damaged; then they are missing now.
        """
        with _opened(self._path(code, key), key) as file:
            width, height = json.loads(file.metadata()["size"])
            return (width, height), _canvas_of(file.get_slice(max(file.keys())).get_shape())

    def load_many(self, code: str, keys: Sequence[str]) -> Iterator[ImageMaps]:
        """Read images one by one, so that memory does not depend on how many there are."""
        for key in keys:
            yield self.load(code, key)


class StoredMaps(Sequence[ImageMaps]):
    """Maps of images in the cache, read when they are asked for.

    Args:
        store: the cache.
        code: see `MapStore.missing`.
        keys: of the images.
        coarsest: only the coarsest map of each.
    """

    def __init__(
        self, store: MapStore, code: str, keys: Sequence[str], *, coarsest: bool = False
    ) -> None:
        self._store, self._code, self._keys, self._coarsest = store, code, keys, coarsest

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, n: int) -> ImageMaps: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[ImageMaps]: ...
    def __getitem__(self, n: int | slice) -> ImageMaps | Sequence[ImageMaps]:
        """One image's maps, or some images' in the same way."""
        if isinstance(n, slice):
            return StoredMaps(self._store, self._code, self._keys[n], coarsest=self._coarsest)
        return self._store.load(self._code, self._keys[n], coarsest=self._coarsest)


@contextmanager
def _opened(path: Path, key: str) -> Iterator[Any]:
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except OSError as exc:
        raise MissingFeaturesError(f"the maps of image {key} cannot be read: {exc}") from exc
    except (SafetensorError, KeyError, ValueError, TypeError) as exc:
        # Were it kept, it would not be missing, and every job that needs it would fail for ever.
        path.unlink(missing_ok=True)
        raise MissingFeaturesError(
            f"the maps of image {key} were damaged, and are gone now: {exc}; read the image again"
        ) from exc
