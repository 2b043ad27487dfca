"""Encoded images to maps, decoding beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.backbones.pyramid import Pyramid
from model.detection.maps import ImageMaps
from model.errors import UnreadableImageError
from model.images import decode_image

AHEAD = 4
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
