"""Encoded images to maps, decoding beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import Pyramid
from model.detection.maps import ImageMaps, MapStore
from model.errors import UnreadableImageError
from model.features import FeatureStore
from model.images import decode_image

AHEAD = 4
SHARD_ROWS = 256  # pooled features are written in shards of as many images
Size = tuple[int, int]
Prepared = tuple[str, tuple[NDArray[np.float32], Size] | UnreadableImageError]


def extract_maps(
    pyramid: Pyramid, items: Iterable[tuple[str, bytes]], *, max_megapixels: int = 100
) -> Iterator[tuple[str, ImageMaps | UnreadableImageError]]:
    """Decode, turn upright and run images one by one, in their order.

    While the network runs one image, a thread prepares the next.

    Args:
        pyramid: what computes the maps.
        items: pairs of a name and the image file's bytes; read at most four ahead.
        max_megapixels: see `decode_image`.

    Yields:
        Each name with its maps, or the reason why it cannot be read.
    """

    def prepare(name: str, data: bytes) -> Prepared:
        try:
            image = decode_image(data, max_megapixels=max_megapixels)
        except UnreadableImageError as exc:
            return name, exc
        return name, (pyramid.prepare(image), image.size)

    with ThreadPoolExecutor(1, "decode") as thread:
        source = iter(items)
        waiting: deque[Future[Prepared]] = deque()
        try:
            while True:
                ahead = islice(source, AHEAD - len(waiting))
                waiting.extend(thread.submit(prepare, name, data) for name, data in ahead)
                if not waiting:
                    return
                name, found = waiting.popleft().result()
                if isinstance(found, UnreadableImageError):
                    yield name, found
                else:
                    pixels, size = found
                    yield name, ImageMaps.of(pyramid.forward(pixels), size)
        finally:
            for future in waiting:
                future.cancel()


def cache_maps(
    pyramid: Pyramid,
    items: Iterable[tuple[str, bytes]],
    *,
    code: str,
    maps: MapStore,
    features: FeatureStore,
    max_megapixels: int = 100,
) -> Generator[tuple[list[str], dict[str, str]], None, None]:
    """Keep the maps of images, and their means as features.

    What was read when this is closed, or fails, is kept.

    Args:
        pyramid: what computes the maps.
        items: pairs of an image's SHA-256 and the file's bytes.
        code: what they are kept under, the pyramid's hash.
        maps: where maps are kept.
        features: where their means are kept.
        max_megapixels: see `decode_image`.

    Yields:
        Keys that are done, and the reason for each that cannot be read.
    """
    done: list[str] = []
    rows: list[NDArray[np.float32]] = []

    def write() -> None:
        if done:
            features.add(code, done, np.stack(rows))
        done.clear()
        rows.clear()

    try:
        for key, found in extract_maps(pyramid, items, max_megapixels=max_megapixels):
            if isinstance(found, ImageMaps):
                maps.add(code, key, found)
                done.append(key)
                rows.append(found.pooled())
                if len(done) == SHARD_ROWS:
                    write()
                yield [key], {}
            else:
                yield [], {key: str(found)}
    finally:
        write()
