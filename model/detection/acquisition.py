"""Which images to draw boxes on next: those whose boxes would settle most doubt about all others.

Regions are compared by what the frozen network saw inside them, and each is as doubtful as what is
said of it is likely wrong, those of rare classes more so. `auto` takes the images after whose boxes
least variance is left where there is doubt. Doubt alone asks for the oddest images: on few labels
it is worse than chance.

Source:
    Yu, Bi and Tresp 2006; Ji and Han 2012 (V-optimality), as `model.acquisition.variance`, here
    with images that tell of several regions at once.
    Yang et al. 2024, PPAL (arXiv:2211.11612): worth by how hard a class is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import F32, assign, by_score, filled, mean_row, unit_rows
from model.acquisition.herding import drawn_for_sums
from model.acquisition.variance import (
    LEAST_RADIUS,
    least_variance_of_groups,
    left_by_labels,
    nearest_to_most,
)
from model.detection.calibration import SHOWN
from model.detection.maps import ImageMaps, means_inside
from model.detection.types import Detections, Floats
from model.errors import ShapeError
from model.registry import Registry

COUNTED = 2  # regions of each class that count for an image's worth
MISSED_WEIGHT = 0.5  # of an object that is likely missed, against one region in full doubt
EASIEST = 0.1  # weight of a class that is found perfectly
DESCRIBING = 12  # regions that an image is described by, at most, and as many sure objects
# Looked at together: the covariance has that many squared values.
MOST_REGIONS, MOST_IMAGES = 4_000, 1_000
MOST_KNOWN, MOST_OBJECTS = 2_000, 8_000  # labelled images, and objects on them
MOST_CHOSEN = 300  # each choice costs a product with the covariance; beyond, by doubt alone


@dataclass(frozen=True)
class Regions:
    """What stands for an image: its most doubtful regions, r of them, at least one.

    Attributes:
        boxes: ``(r, 4)`` shares of the image.
        doubt: ``(r,)`` above 0, probability that what is said of each is wrong, by its class.
        shown: ``(r,)`` bool, whether it is thought to be an object.
        sure: ``(s, 4)`` as `boxes`, the least doubtful others that are shown: most objects of a
            labelled image are such.
    """

    boxes: Floats
    doubt: Floats
    shown: NDArray[np.bool_]
    sure: Floats

    @property
    def objects(self) -> Floats:
        """``(o, 4)`` all that is thought to be an object."""
        return np.concatenate([self.boxes[self.shown], self.sure])


@dataclass(frozen=True)
class Pool:
    """What the rules read of M images.

    Attributes:
        worth: ``(M,)`` see `worth_of`.
        confidence: ``(M,)`` mean P(right) of the regions shown; 1 without any.
        entropy: ``(M,)`` nats, sum of the entropies of the regions shown.
        regions: M, what each is described by.
        number: ``(M,)`` which of `images` each is.
        images: read when they are needed and not kept, as only some of a large pool ever are; of
            their maps the coarsest.
    """

    worth: Floats
    confidence: Floats
    entropy: Floats
    regions: Sequence[Regions]
    number: NDArray[np.int64]
    images: Sequence[ImageMaps]

    def __len__(self) -> int:
        return len(self.worth)

    def take(self, rows: NDArray[np.int64]) -> Pool:
        """Some of the images."""
        return Pool(
            self.worth[rows],
            self.confidence[rows],
            self.entropy[rows],
            [self.regions[n] for n in rows],
            self.number[rows],
            self.images,
        )

    def seen(self, row: int, boxes: Floats) -> F32:
        """``(B, channels)`` what the network saw inside boxes of one of the images."""
        return means_inside(self.images[int(self.number[row])].levels[-1], boxes)


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
        largest = np.sort(doubt[found.label == label])[::-1][:COUNTED]
        value += weights[label] * float(largest.sum())
    return value + MISSED_WEIGHT * min(found.missed, 1.0)


def regions_of(found: Detections, weights: Floats) -> Regions:
    """What stands for an image: the whole of it where nothing at all is found.

    Args:
        found: all its regions, those that are not shown as well.
        weights: see `class_weights`.
    """
    if not len(found):
        whole = np.array([[0.0, 0.0, 1.0, 1.0]])
        doubt = np.array([np.clip(found.missed, 1e-4, 1.0)])
        return Regions(whole, doubt, np.zeros(1, bool), whole[:0])
    shown = found.p_right >= SHOWN
    # Of a region that is not shown it is said that there is no object.
    doubt = np.where(shown, 1 - found.p_right, found.p_right) * weights[found.label]
    order = np.argsort(-doubt, kind="stable")
    most, others = order[:DESCRIBING], order[DESCRIBING:]
    surest = others[shown[others]][::-1][:DESCRIBING]
    return Regions(found.boxes[most], doubt[most], shown[most], found.boxes[surest])


Rule = Callable[[Pool, Pool, int, int], NDArray[np.int64]]
BOX_ACQUISITIONS: Registry[Rule] = Registry("acquisition of images with boxes")


@BOX_ACQUISITIONS.register("auto")
def auto(pool: Pool, known: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Greedily the images after whose boxes least variance is left where there is doubt.

    As `model.acquisition.variance.variance_reduction`; an image tells of all its regions. Of a
    large pool as many images are looked at, drawn in proportion to their doubt, and of each as many
    regions as can be in some seconds; of very many labelled images as many by chance.
    """
    rng = np.random.default_rng(seed)
    mass = np.array([one.doubt.sum() for one in pool.regions])
    order = by_score(mass, len(mass), seed=seed)
    looked_at, drawn = drawn_for_sums(mass, max(4 * min(n, MOST_CHOSEN), MOST_IMAGES), rng)
    turn = rng.permutation(len(looked_at))  # so that not always the first of equal ones is taken
    looked_at, drawn = looked_at[turn], drawn[turn]
    each = max(MOST_REGIONS // len(looked_at), 1)
    some = [pool.regions[image] for image in looked_at]
    counts = [min(len(one.doubt), each) for one in some]
    doubt = np.concatenate(
        [
            one.doubt[:each] * (share / one.doubt.sum())
            for one, share in zip(some, drawn, strict=True)
        ]
    )
    raw = np.concatenate(
        [pool.seen(image, one.boxes[:each]) for image, one in zip(looked_at, some, strict=True)]
    )
    asked = rng.permutation(len(known))[:MOST_KNOWN]
    objects = {image: known.regions[image].objects for image in asked}
    told = [known.seen(image, boxes) for image, boxes in objects.items() if len(boxes)]
    labels = np.concatenate([raw[:0], *told])
    if len(labels) > MOST_OBJECTS:
        labels = labels[np.sort(rng.permutation(len(labels))[:MOST_OBJECTS])]
    # Channels differ in scale by far, and distances would be those of a few.
    deviation = raw.std(axis=0) + 1e-6
    raw, labels = raw / deviation, labels / deviation
    centre = mean_row(raw)
    rows, labels = unit_rows(raw, centre), unit_rows(labels, centre)
    nearest, squares = assign(rows, labels if len(labels) else rows[rng.permutation(len(rows))[:n]])
    radius = max(float(np.median(squares)), LEAST_RADIUS)
    if len(labels):
        labels = nearest_to_most(labels, nearest, doubt)
    covariance = left_by_labels(rows, labels, radius)
    first = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.int64)
    picked = least_variance_of_groups(covariance, doubt / doubt.sum(), first, min(n, MOST_CHOSEN))
    return filled(looked_at[np.array(picked, np.int64)], order, n)


@BOX_ACQUISITIONS.register("random")
def uniform(pool: Pool, known: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """By chance."""
    del known
    return np.random.default_rng(seed).permutation(len(pool))[:n]


@BOX_ACQUISITIONS.register("worth")
def by_worth(pool: Pool, known: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """The doubt about a few regions of each class, and nothing else."""
    del known
    return by_score(pool.worth, n, seed=seed)


@BOX_ACQUISITIONS.register("least-confidence")
def by_mean_confidence(pool: Pool, known: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Lowest mean confidence of the regions first, as most tools do."""
    del known
    return by_score(-pool.confidence, n, seed=seed)


@BOX_ACQUISITIONS.register("entropy")
def by_sum_of_entropies(pool: Pool, known: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Largest sum of the regions' entropies first: crowded images."""
    del known
    return by_score(pool.entropy, n, seed=seed)


class PoolBuilder:
    """Gathers what the rules read, image by image.

    Args:
        counts: ``(C,)`` objects of each class labelled so far.
        ap50: of each class out of fold, None where it is unknown.
        images: that will be added, in that order; see `Pool`.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        ap50: Sequence[float | None] | None = None,
        *,
        images: Sequence[ImageMaps],
    ) -> None:
        self._rare, self._hard = class_weights(counts), class_weights(counts, ap50)
        self._images = images
        self._rows: list[tuple[float, float, float]] = []
        self._regions: list[Regions] = []

    def add(self, found: Detections, visible: Detections) -> None:
        """One image: all its regions, and those that are shown."""
        confidence = float(visible.p_right.mean()) if len(visible) else 1.0
        worth = worth_of(found, self._hard)
        self._rows.append((worth, confidence, float(visible.total.sum())))
        self._regions.append(regions_of(found, self._rare))

    def pool(self) -> Pool:
        """Everything that was added.

        Raises:
            ShapeError: not as many as there are images.
        """
        if len(self._regions) != len(self._images):
            given = (len(self._regions),)
            raise ShapeError("images", expected=f"({len(self._images)},)", got=given)
        worth, confidence, entropy = np.array(self._rows, np.float64).reshape(-1, 3).T
        number = np.arange(len(self._regions))
        return Pool(worth, confidence, entropy, list(self._regions), number, self._images)


def select_images(
    name: str, pool: Pool, n: int, *, known: Pool | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """Choose images, in the order in which they should be labelled.

    Args:
        name: one of `BOX_ACQUISITIONS`.
        pool: M images without labels.
        n: how many are wanted.
        known: the labelled images.
        seed: of everything random.

    Returns:
        ``min(n, M)`` distinct rows of the pool.

    Raises:
        UnknownNameError: no rule has that name.
        ShapeError: the pool's parts do not belong together.
    """
    rule = BOX_ACQUISITIONS[name]
    if len(pool.regions) != len(pool):
        raise ShapeError("regions", expected=f"({len(pool)},)", got=(len(pool.regions),))
    n = min(n, len(pool))
    if n <= 0:
        return np.zeros(0, np.int64)
    return rule(pool, pool.take(np.zeros(0, np.int64)) if known is None else known, n, seed)
