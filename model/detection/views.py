"""Other views of labelled images: zoomed, moved and recoloured before the frozen network sees them.

Cached maps can be flipped and pasted, but neither scaled nor recoloured: what the network would say
of a smaller or darker object it has to be asked. Few labelled images show objects in few sizes and
lights; a few views of each cost seconds and stand for many labels. What a view shows follows from
its key alone, so that only its maps are kept.

Source:
    Zoom and colour as in SSD (Liu et al. 2016, arXiv:1512.02325, section 2.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from PIL import Image, ImageEnhance

from model.backbones.pyramid import Pyramid
from model.detection.maps import ImageMaps, MapStore
from model.detection.types import BoxLabels, Floats
from model.errors import UnreadableImageError
from model.images import decode_image

VIEWS = 6  # of each image
MOST_VIEWED = 40  # labelled images; more show enough by themselves
ZOOM = (0.7, 1.5)
STRETCH = 0.1  # log of a side's own zoom
BRIGHTNESS, CONTRAST, SATURATION = 0.35, 0.35, 0.4
HUE = 8  # of 256
STILL_THERE, GONE = 0.4, 0.05  # share of an object within the view


@dataclass(frozen=True)
class Window:
    """The part of an image that a view shows, in shares of it; it may reach beyond the edge."""

    left: float
    top: float
    width: float
    height: float

    def drawn(self, labels: BoxLabels) -> BoxLabels:
        """What people drew, as the view shows it.

        Objects mostly within it stay, cut at its edge; of which less is seen are unclear.
        """
        boxes, seen = self._moved(labels.boxes)
        ignored, part = self._moved(labels.ignored)
        there = seen > STILL_THERE
        unclear = (seen > GONE) & ~there
        return replace(
            labels,
            boxes=boxes[there],
            labels=labels.labels[there],
            accepted=labels.accepted[there],
            ignored=np.concatenate([ignored[part > 0], boxes[unclear]]),
        )

    def _moved(self, boxes: Floats) -> tuple[Floats, Floats]:
        """Boxes in shares of the view, and the share of each that is seen."""
        start = np.array([self.left, self.top] * 2)
        moved = (boxes - start) / np.array([self.width, self.height] * 2)
        cut = np.clip(moved, 0.0, 1.0)
        whole = np.prod(moved[:, 2:] - moved[:, :2], axis=1)
        return cut, np.prod(cut[:, 2:] - cut[:, :2], axis=1) / np.maximum(whole, 1e-12)


@dataclass(frozen=True)
class View:
    """What a pyramid saw through a window."""

    window: Window
    maps: ImageMaps


def view_keys(key: str) -> list[str]:
    """Keys of an image's views, by the image's own SHA-256; SHA-256 themselves."""
    return [hashlib.sha256(f"{key} view {n}".encode()).hexdigest() for n in range(VIEWS)]


def images_to_view(keys: Sequence[str]) -> list[str]:
    """Of the images that a head is to be trained on, those whose views help: all, or none."""
    return list(dict.fromkeys(keys)) if len(keys) <= MOST_VIEWED else []


def window_of(view_key: str) -> Window:
    """The window of a view."""
    return _window(_chance(view_key))


def shown_through(image: Image.Image, view_key: str, canvas: tuple[int, int]) -> Image.Image:
    """An upright image as a view shows it, in the image's shape.

    Beyond the image's edge is its mean colour.

    Args:
        image: upright.
        view_key: see `view_keys`.
        canvas: width and height at which it will be looked at.
    """
    rng = _chance(view_key)
    window = _window(rng)
    width, height = (round(ZOOM[1] * side) for side in canvas)
    if width < image.width and height < image.height:
        # Bilinear sampling of a much larger image would skip pixels.
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    width, height = image.size
    mean = np.asarray(image.resize((8, 8))).reshape(-1, 3).mean(axis=0)
    seen = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (window.width, 0, window.left * width, 0, window.height, window.top * height),
        Image.Resampling.BILINEAR,
        fillcolor=(int(mean[0]), int(mean[1]), int(mean[2])),
    )
    for change, most in (
        (ImageEnhance.Brightness, BRIGHTNESS),
        (ImageEnhance.Contrast, CONTRAST),
        (ImageEnhance.Color, SATURATION),
    ):
        seen = change(seen).enhance(1 + rng.uniform(-most, most))
    turn = int(rng.integers(-HUE, HUE + 1))
    hue, saturation, value = seen.convert("HSV").split()
    turned = hue.point([(n + turn) % 256 for n in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _chance(view_key: str) -> np.random.Generator:
    return np.random.default_rng(int(view_key[:16], 16))


def _window(rng: np.random.Generator) -> Window:
    zoom = np.exp(rng.uniform(*np.log(ZOOM)) + rng.uniform(-STRETCH, STRETCH) * np.array([1, -1]))
    width, height = (1 / zoom).tolist()
    left, top = (rng.uniform(min(0.0, 1 - side), max(0.0, 1 - side)) for side in (width, height))
    return Window(float(left), float(top), width, height)


def extract_views(
    pyramid: Pyramid, items: Iterable[tuple[str, bytes]], *, max_megapixels: int = 100
) -> Iterator[tuple[str, list[tuple[str, ImageMaps]]]]:
    """Maps of all views of images, one image after the other.

    Args:
        pyramid: what computes the maps.
        items: pairs of an image's SHA-256 and the file's bytes.
        max_megapixels: see `decode_image`.

    Yields:
        Each image's key, and its views' keys and maps; none where it cannot be read.
    """
    for key, data in items:
        try:
            image = decode_image(data, max_megapixels=max_megapixels)
        except UnreadableImageError:
            yield key, []
            continue
        found = []
        for name in view_keys(key):
            pixels = pyramid.prepare(shown_through(image, name, pyramid.canvas(*image.size)))
            found.append((name, ImageMaps.of(pyramid.forward(pixels), image.size)))
        yield key, found


def missing_views(maps: MapStore, code: str, keys: Iterable[str]) -> list[str]:
    """Images some of whose views are not in the cache, each once."""
    return [key for key in dict.fromkeys(keys) if maps.missing(code, view_keys(key))]


def cache_views(
    pyramid: Pyramid,
    items: Iterable[tuple[str, bytes]],
    *,
    code: str,
    maps: MapStore,
    max_megapixels: int = 100,
) -> Iterator[str]:
    """Keep the maps of images' views; see `extract_views`.

    Yields:
        Each image's key when it is done.
    """
    for key, found in extract_views(pyramid, items, max_megapixels=max_megapixels):
        for name, seen in found:
            maps.add(code, name, seen)
        yield key


class StoredViews(Sequence[Sequence[View]]):
    """The views of images that are in the cache, read when they are asked for."""

    def __init__(self, store: MapStore, code: str, keys: Sequence[str]) -> None:
        self._store, self._code = store, code
        self._names = []
        for key in keys:
            names = view_keys(key)
            lost = set(store.missing(code, names))
            self._names.append([name for name in names if name not in lost])

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, n: int) -> Sequence[View]: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[Sequence[View]]: ...
    def __getitem__(self, n: int | slice) -> Sequence[View] | Sequence[Sequence[View]]:
        """One image's views, or some images'."""
        if isinstance(n, slice):
            return [self[i] for i in range(*n.indices(len(self)))]
        return _ViewsOfImage(self._store, self._code, self._names[n])


def views_for(store: MapStore, code: str, keys: Sequence[str]) -> Sequence[Sequence[View]]:
    """What a head that is trained on these images sees besides; none where it does not help."""
    return StoredViews(store, code, keys) if images_to_view(keys) else ()


class _ViewsOfImage(Sequence[View]):
    def __init__(self, store: MapStore, code: str, names: Sequence[str]) -> None:
        self._store, self._code, self._names = store, code, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, n: int) -> View: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[View]: ...
    def __getitem__(self, n: int | slice) -> View | Sequence[View]:
        if isinstance(n, slice):
            return _ViewsOfImage(self._store, self._code, self._names[n])
        name = self._names[n]
        return View(window_of(name), self._store.load(self._code, name))
