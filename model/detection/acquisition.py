"""Which images to draw boxes on next: those that settle most doubt about images like them.

An image is described by what the frozen network saw inside the regions found on it, those of rare
and badly found classes first, and is as doubtful as anything on it is likely to be wrong. `auto`
takes the images whose neighbourhoods hold most doubt that no label is near to. Doubt alone asks for
the oddest images: on few labels it is worse than chance.

Source:
    Bae, Oliveira and Sutherland 2025 (arXiv:2412.20644), uncertainty herding, on images.
    Yang et al. 2024, PPAL (arXiv:2211.11612): doubt weighted by how hard a class is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import Pool as Features
from model.acquisition.base import by_score
from model.acquisition.herding import herd
from model.detection.maps import ImageMaps
from model.detection.types import Detections, Floats
from model.errors import ShapeError
from model.registry import Registry

REGIONS = 2  # of each class that count for an image's worth
MISSED_WEIGHT = 0.5  # of an object that is likely missed, against one region in full doubt
DESCRIBING = 12  # regions of an image that describe it
EASIEST = 0.1  # weight of a class that is found perfectly


@dataclass(frozen=True)
class Pool:
    """What the rules read of M images.

    Attributes:
        worth: ``(M,)`` see `worth_of`.
        vectors: ``(M, channels)`` what the regions look like, see `vector_of`.
        p_wrong: ``(M,)`` probability that anything is wrong.
        confidence: ``(M,)`` mean P(right) of the regions shown; 1 without any.
        entropy: ``(M,)`` nats, sum of the entropies of the regions shown.
    """

    worth: Floats
    vectors: NDArray[np.float32]
    p_wrong: Floats
    confidence: Floats
    entropy: Floats

    def __len__(self) -> int:
        return len(self.worth)

    def take(self, rows: NDArray[np.int64]) -> Pool:
        """Some of the images."""
        return Pool(**{name: value[rows] for name, value in vars(self).items()})


def class_weights(counts: NDArray[np.int64], ap50: Sequence[float | None] | None = None) -> Floats:
    """``(C,)`` what doubt about each class counts, 1 on average.

    Args:
        counts: ``(C,)`` objects labelled so far.
        ap50: of each class out of fold, None where it is unknown.
    """
    precision = np.array([0.0 if v is None else v for v in ap50 or [None] * len(counts)])
    weights = (1.0 - precision + EASIEST) / np.sqrt(np.maximum(counts, 1.0))
    found: Floats = weights / weights.mean()
    return found


def doubt_of(found: Detections) -> Floats:
    """``(R,)`` variance of each region being right, 1 in full doubt."""
    return 4.0 * found.p_right * (1.0 - found.p_right)


def worth_of(found: Detections, weights: Floats) -> float:
    """The doubt about an image: a few regions of each class, and what is likely missed."""
    doubt = doubt_of(found)
    value = 0.0
    for label in np.unique(found.label):
        largest = np.sort(doubt[found.label == label])[::-1][:REGIONS]
        value += weights[label] * float(largest.sum())
    return value + MISSED_WEIGHT * min(found.missed, 1.0)


def vector_of(found: Detections, maps: ImageMaps, weights: Floats) -> NDArray[np.float32]:
    """``(channels,)`` mean of the coarsest map inside the regions, each by P(right) and its class.

    Of the whole map where nothing is found.

    Args:
        found: all regions of the image, most trustworthy first.
        maps: of the image.
        weights: see `class_weights`.
    """
    level = maps.levels[-1].astype(np.float32)
    if not len(found):
        return np.asarray(level.mean(axis=(1, 2)))
    rows, columns = level.shape[1:]
    mass = (found.p_right * weights[found.label])[:DESCRIBING]
    total = np.zeros(len(level), np.float64)
    for (left, top, right, bottom), share in zip(found.boxes, mass / mass.sum(), strict=False):
        x, y = int(left * columns), int(top * rows)
        inside = level[:, y : max(int(np.ceil(bottom * rows)), y + 1),
                       x : max(int(np.ceil(right * columns)), x + 1)]  # fmt: skip
        total += share * inside.mean(axis=(1, 2))
    return total.astype(np.float32)


Rule = Callable[[Pool, NDArray[np.float32], int, int], NDArray[np.int64]]
BOX_ACQUISITIONS: Registry[Rule] = Registry("acquisition of images with boxes")


@BOX_ACQUISITIONS.register("auto")
def auto(pool: Pool, known: NDArray[np.float32], n: int, seed: int) -> NDArray[np.int64]:
    """Images that cover most of the pool's doubt, less what labelled images cover already."""
    # Channels differ in scale by far, and distances would be those of a few.
    deviation = pool.vectors.std(axis=0) + 1e-6
    features = Features(pool.vectors / deviation, known / deviation, None, None)
    return herd(features, pool.p_wrong, n, seed=seed).rows


@BOX_ACQUISITIONS.register("random")
def uniform(pool: Pool, known: NDArray[np.float32], n: int, seed: int) -> NDArray[np.int64]:
    """By chance."""
    del known
    return np.random.default_rng(seed).permutation(len(pool))[:n]


@BOX_ACQUISITIONS.register("worth")
def by_worth(pool: Pool, known: NDArray[np.float32], n: int, seed: int) -> NDArray[np.int64]:
    """The doubt about a few regions of each class, and nothing else."""
    del known
    return by_score(pool.worth, n, seed=seed)


@BOX_ACQUISITIONS.register("least-confidence")
def by_mean_confidence(
    pool: Pool, known: NDArray[np.float32], n: int, seed: int
) -> NDArray[np.int64]:
    """Lowest mean confidence of the regions first, as most tools do."""
    del known
    return by_score(-pool.confidence, n, seed=seed)


@BOX_ACQUISITIONS.register("entropy")
def by_sum_of_entropies(
    pool: Pool, known: NDArray[np.float32], n: int, seed: int
) -> NDArray[np.int64]:
    """Largest sum of the regions' entropies first: crowded images."""
    del known
    return by_score(pool.entropy, n, seed=seed)


class PoolBuilder:
    """Gathers what the rules read, image by image.

    Args:
        weights: see `class_weights`.
    """

    def __init__(self, weights: Floats) -> None:
        self._weights = weights
        self._rows: list[tuple[float, float, float, float]] = []
        self._vectors: list[NDArray[np.float32]] = []

    def add(self, found: Detections, visible: Detections, maps: ImageMaps) -> None:
        """One image: all its regions, those that are shown, and what they were found in."""
        worth, wrong = worth_of(found, self._weights), 1 - found.p_all_right
        confidence = float(visible.p_right.mean()) if len(visible) else 1.0
        self._rows.append((worth, wrong, confidence, float(visible.total.sum())))
        self._vectors.append(vector_of(found, maps, self._weights))

    def pool(self) -> Pool:
        """Everything that was added."""
        worth, wrong, confidence, entropy = np.array(self._rows, np.float64).reshape(-1, 4).T
        vectors = np.stack(self._vectors) if self._vectors else np.zeros((0, 0), np.float32)
        return Pool(worth, vectors, wrong, confidence, entropy)


def select_images(
    name: str,
    pool: Pool,
    n: int,
    *,
    known: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Choose images, in the order in which they should be labelled.

    Args:
        name: one of `BOX_ACQUISITIONS`.
        pool: M images without labels.
        n: how many are wanted.
        known: ``(L, channels)`` vectors of the labelled images, see `vector_of`.
        seed: of everything random.

    Returns:
        ``min(n, M)`` distinct rows of the pool.

    Raises:
        UnknownNameError: no rule has that name.
        ShapeError: the pool's parts do not belong together.
    """
    rule = BOX_ACQUISITIONS[name]
    if len(pool.vectors) != len(pool):
        raise ShapeError("vectors", expected=f"({len(pool)}, channels)", got=pool.vectors.shape)
    known = pool.vectors[:0] if known is None else known
    if known.shape[1:] != pool.vectors.shape[1:]:
        raise ShapeError("known", expected=f"(L, {pool.vectors.shape[1]})", got=known.shape)
    n = min(n, len(pool))
    return rule(pool, known, n, seed) if n > 0 else np.zeros(0, np.int64)
