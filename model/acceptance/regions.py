"""Regions in the order in which the images they are on would be accepted, whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import ShapeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ranked(NamedTuple):
    """Images with a region, the surest first, and their regions.

    Attributes:
        images: ``(G,)`` which of the images.
        p_right: ``(R,)`` of the regions, image by image.
        ends: ``(G,)`` how many regions each image and those before it have.
    """

    images: Ints
    p_right: Floats
    ends: Ints


def rank_images(p_right: Sequence[Floats], p_all_right: Floats) -> Ranked:
    """Order images by the mean P(right) of their regions, what is promised of these.

    Args:
        p_right: of N images, ``(R_n,)`` of the regions that are shown. An image without one has
            nothing that could be proved, and is left out.
        p_all_right: ``(N,)`` P(nothing on the image is wrong or missed); decides between equals.

    Raises:
        ShapeError: not one of the latter for each image.
    """
    if p_all_right.shape != (len(p_right),):
        raise ShapeError("p_all_right", expected=f"({len(p_right)},)", got=p_all_right.shape)
    kept = np.array([n for n, p in enumerate(p_right) if len(p)], np.int64)
    means = np.array([np.mean(p_right[n]) for n in kept])
    images = kept[np.lexsort((-p_all_right[kept], -means))]
    counts = [len(p_right[n]) for n in images]
    every = [p_right[n] for n in images]
    return Ranked(
        images, np.concatenate(every) if every else np.empty(0), np.cumsum(counts, dtype=np.int64)
    )
