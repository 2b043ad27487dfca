"""Which images to draw boxes on next: doubtful regions of every class, then diversity.

An image is worth its most doubtful regions, a few of each class, so that neither crowded images
nor frequent classes come first for being so; classes that are found badly count more. Among the
images worth most, those are taken that differ in what their doubtful regions look like.

Source:
    Yang et al. 2024, PPAL (arXiv:2211.11612): difficulty-weighted doubt, then k-means++ on regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import by_score, filled, nearest_to_centres
from model.detection.head import Kept
from model.detection.types import Detections, Floats
from model.errors import ShapeError
from model.registry import Registry

REGIONS = 2  # of each class that count
MISSED_WEIGHT = 0.5  # of an object that is likely missed, against one region in full doubt
TOO_MANY = 3  # candidates for each image wanted, before diversity
WORTHIEST = 0.25  # of the pool, beyond which diversity does not reach
EASIEST = 0.1  # weight of a class that is found perfectly


@dataclass(frozen=True)
class Pool:
    """What the rules read of M images.

    Attributes:
        worth: ``(M,)`` see `worth_of`.
        vectors: ``(M, width)`` what the doubtful regions look like, see `vector_of`.
        confidence: ``(M,)`` mean P(right) of the regions shown; 1 without any.
        entropy: ``(M,)`` nats, sum of the entropies of the regions shown.
    """

    worth: Floats
    vectors: NDArray[np.float32]
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


def vector_of(found: Detections, kept: Kept) -> NDArray[np.float32]:
    """``(width,)`` mean of the regions' features, each by its doubt; zeros without a region."""
    if not len(found):
        return np.zeros(kept.of_class.shape[1], np.float32)
    doubt = doubt_of(found)
    mean: NDArray[np.float32] = (doubt @ kept.of_class / max(doubt.sum(), 1e-9)).astype(np.float32)
    return mean


Rule = Callable[[Pool, int, int], NDArray[np.int64]]
BOX_ACQUISITIONS: Registry[Rule] = Registry("acquisition of images with boxes")


@BOX_ACQUISITIONS.register("auto")
def auto(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Worth first, then diversity: the images nearest the centres of `n` clusters.

    Where much of the pool is asked for at once, the worthiest differ enough: clusters would only
    put others in their place.
    """
    order = by_score(pool.worth, len(pool), seed=seed)
    first = order[: max(n, min(TOO_MANY * n, round(WORTHIEST * len(order))))]
    rows = pool.vectors[first]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    weights = np.maximum(pool.worth[first], 1e-6)
    picked = first[nearest_to_centres(rows, weights, n, np.random.default_rng(seed))]
    return filled(picked, order, n)


@BOX_ACQUISITIONS.register("random")
def uniform(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """By chance."""
    return np.random.default_rng(seed).permutation(len(pool))[:n]


@BOX_ACQUISITIONS.register("worth")
def by_worth(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """What `auto` begins with, without diversity."""
    return by_score(pool.worth, n, seed=seed)


@BOX_ACQUISITIONS.register("least-confidence")
def by_mean_confidence(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Lowest mean confidence of the regions first, as most tools do."""
    return by_score(-pool.confidence, n, seed=seed)


@BOX_ACQUISITIONS.register("entropy")
def by_sum_of_entropies(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Largest sum of the regions' entropies first: crowded images."""
    return by_score(pool.entropy, n, seed=seed)


class PoolBuilder:
    """Gathers what the rules read, image by image.

    Args:
        weights: see `class_weights`.
    """

    def __init__(self, weights: Floats) -> None:
        self._weights = weights
        self._rows: list[tuple[float, float, float]] = []
        self._vectors: list[NDArray[np.float32]] = []

    def add(self, found: Detections, kept: Kept, visible: Detections) -> None:
        """One image: all its regions, what the head read of them, and those that are shown."""
        confidence = float(visible.p_right.mean()) if len(visible) else 1.0
        self._rows.append((worth_of(found, self._weights), confidence, float(visible.total.sum())))
        self._vectors.append(vector_of(found, kept))

    def pool(self) -> Pool:
        """Everything that was added."""
        worth, confidence, entropy = np.array(self._rows, np.float64).reshape(-1, 3).T
        vectors = np.stack(self._vectors) if self._vectors else np.zeros((0, 0), np.float32)
        return Pool(worth, vectors, confidence, entropy)


def select_images(name: str, pool: Pool, n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Choose images, in the order in which they should be labelled.

    Args:
        name: one of `BOX_ACQUISITIONS`.
        pool: M images without labels.
        n: how many are wanted.
        seed: of everything random.

    Returns:
        ``min(n, M)`` distinct rows of the pool.

    Raises:
        UnknownNameError: no rule has that name.
        ShapeError: the pool's parts do not belong together.
    """
    rule = BOX_ACQUISITIONS[name]
    if len(pool.vectors) != len(pool):
        raise ShapeError("vectors", expected=f"({len(pool)}, width)", got=pool.vectors.shape)
    n = min(n, len(pool))
    return rule(pool, n, seed) if n > 0 else np.zeros(0, np.int64)
