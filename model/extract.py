"""Encoded images to features, decoding beside the network: what every feature job runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.backbones.base import Backbone
from model.errors import UnreadableImageError
from model.images import decode_image

Prepared = tuple[str, NDArray[np.float32] | UnreadableImageError]


def extract(
    backbone: Backbone,
    items: Iterable[tuple[str, bytes]],
    *,
    batch: int = 16,
    decode_threads: int = 1,
    max_megapixels: int = 100,
) -> Iterator[tuple[list[str], NDArray[np.float32], dict[str, str]]]:
    """Decode, prepare and run images batch by batch, in their order.

    While the network runs one batch, `decode_threads` threads prepare the next. `items` is read in
    the caller's thread, at most two batches ahead, so memory does not depend on how many there are.

    Args:
        backbone: what computes the features.
        items: pairs of a name and the image file's bytes.
        batch: images a forward pass.
        decode_threads: threads that decode; more than one helps only where there are idle cores.
        max_megapixels: see `decode_image`.

    Yields:
        The names of a batch's readable images, their features ``(len(names), dim)``, and the
        reason for each image that could not be read.
    """
    with ThreadPoolExecutor(max(1, decode_threads), "decode") as threads:

        def prepare(name: str, data: bytes) -> Prepared:
            try:
                image = decode_image(
                    data, max_megapixels=max_megapixels, size_hint=backbone.size_px
                )
            except UnreadableImageError as exc:
                return name, exc
            return name, backbone.prepare(image)

        source = iter(items)
        waiting: deque[Future[Prepared]] = deque()
        try:
            while True:
                ahead = islice(source, 2 * batch - len(waiting))
                waiting.extend(threads.submit(prepare, name, data) for name, data in ahead)
                if not waiting:
                    return
                ready = [waiting.popleft().result() for _ in range(min(batch, len(waiting)))]
                # Refill before the forward pass, so that the decoders never wait for it.
                ahead = islice(source, 2 * batch - len(waiting))
                waiting.extend(threads.submit(prepare, name, data) for name, data in ahead)
                yield _run(backbone, ready)
        finally:
            for future in waiting:
                future.cancel()


def _run(
    backbone: Backbone, ready: list[Prepared]
) -> tuple[list[str], NDArray[np.float32], dict[str, str]]:
    errors = {name: str(value) for name, value in ready if isinstance(value, UnreadableImageError)}
    good = [(name, value) for name, value in ready if not isinstance(value, UnreadableImageError)]
    if not good:
        return [], np.zeros((0, backbone.dim), np.float32), errors
    features = backbone.forward(np.stack([value for _, value in good]))
    return [name for name, _ in good], features, errors
