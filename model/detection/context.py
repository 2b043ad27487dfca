"""Where a region is: what a head's score leaves out of the probability that the region is right.

A head says how much a region looks like an object. How often people agree also depends on what
kind of image it is (another camera, another stain, somebody who draws less), on what the region
looks like, where it lies, and what it overlaps. Such effects are learnt from regions that were
found out of fold: one for each image, from images that look alike (a Gaussian process over what
the frozen network saw), and one for each property of a region, half of it the same for all
classes. Far from all labelled images nothing is added for the image, and what is not known of it
draws P(right) towards one half.

Source:
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 3.4 (Laplace's
    approximation), 8.3.1 (a subset of the images as centres). MacKay 1992, The evidence framework
    applied to classification networks (the average over what is not known).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from model.detection.geometry import iou_matrix
from model.detection.head import Kept
from model.detection.maps import ImageMaps, means_inside
from model.detection.types import Floats
from model.errors import ModelError

F32 = NDArray[np.float32]
# Variances of the prior in squared log odds: of an image's effect, of one standard deviation of
# what was seen inside a region, and of one of its place, size or overlap. Of the last two half is
# shared by all classes.
OF_IMAGE, OF_INSIDE, OF_PLACE = 0.5, 0.01, 0.1
DIRECTIONS = 8  # in which images differ most
SHARPNESS = 8.0  # of the kernel: exp(-8) between two images that differ as two mostly do
MOST_CENTRES = 500  # images
# How many objects are missed says less of an image than which of its regions are right: images
# that are less alike are asked as well, and trusted less.
SHARPNESS_OF_RATES, STRENGTH_OF_RATES = 0.5, 0.3
BOLD = 0.3  # score of a head above which a region is a rival to those it overlaps
FAR = 4.0  # standard deviations beyond which a property counts no more
PLACES = 10


@dataclass(frozen=True)
class Seen:
    """What an image and its R regions look like.

    Attributes:
        image: ``(D,)`` mean and standard deviation of every channel of all maps.
        regions: ``(R, F)`` means of the finest map's channels inside each region, then `PLACES`
            columns: width, height, four sides, distance to the image's edge, largest overlap with
            another region, with a better one, and the sum of overlaps with bold ones.
    """

    image: F32
    regions: F32

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Seen:
        """Some of the regions."""
        return Seen(self.image, self.regions[rows])

    @classmethod
    def of(cls, maps: ImageMaps, kept: Kept) -> Seen:
        """Of an image's maps and the regions that a head found on them."""
        levels = [level.astype(np.float32).reshape(len(level), -1) for level in maps.levels]
        image = np.concatenate(
            [level.mean(axis=1) for level in levels] + [level.std(axis=1) for level in levels]
        )
        inside = means_inside(maps.levels[0], kept.boxes)
        places = _places(kept.boxes, kept.score).astype(np.float32)
        return cls(image, np.hstack([inside, places]))


def given(seen: Seen | None) -> Seen:
    """What a calibrator with a context has to be told.

    Raises:
        ModelError: it was not.
    """
    if seen is None:
        raise ModelError("a calibrator with a context needs what was seen: Seen.of(maps, kept)")
    return seen


def _places(boxes: Floats, score: Floats) -> Floats:
    """``(R, PLACES)`` see `Seen`."""
    overlap = iou_matrix(boxes, boxes)
    np.fill_diagonal(overlap, 0.0)
    better = score[None, :] > score[:, None]
    edge = np.minimum(boxes[:, :2], 1 - boxes[:, 2:]).min(axis=1)
    return np.column_stack(
        [
            boxes[:, 2:] - boxes[:, :2],
            boxes,
            edge,
            overlap.max(axis=1, initial=0.0),
            (overlap * better).max(axis=1, initial=0.0),
            (overlap * (score > BOLD)).sum(axis=1),
        ]
    )


@dataclass(frozen=True)
class Likeness:
    """How images and regions are compared; fitted without knowing what was right.

    Attributes:
        middle: ``(D,)`` of images' properties,
        spread: ``(D,)`` their standard deviations.
        directions: ``(K, D)`` in which images differ most.
        centres: ``(M, K)`` images that others are compared with.
        sharpness: of the kernel ``exp(-sharpness * squared distance)``.
        region_middle: ``(F,)`` of regions' properties.
        region_spread: ``(F,)``.
    """

    middle: Floats
    spread: Floats
    directions: Floats
    centres: Floats
    sharpness: float
    region_middle: Floats
    region_spread: Floats

    @classmethod
    def fit(cls, seen: Sequence[Seen], *, seed: int) -> Likeness:
        """From labelled images, at least two; of very many some are the centres."""
        images = np.array([one.image for one in seen], np.float64)
        middle, spread = images.mean(axis=0), images.std(axis=0) + 1e-9
        scaled = (images - middle) / spread
        _, _, directions = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
        directions = directions[:DIRECTIONS]
        places = scaled @ directions.T
        rng = np.random.default_rng(seed)
        centres = places[rng.permutation(len(places))[:MOST_CENTRES]]
        apart = _squared(centres, centres)
        typical = float(np.median(apart[np.triu_indices(len(apart), 1)]))
        regions = np.concatenate([one.regions for one in seen]).astype(np.float64)
        return cls(
            middle=middle,
            spread=spread,
            directions=directions,
            centres=centres,
            sharpness=SHARPNESS / max(typical, 1e-9),
            region_middle=regions.mean(axis=0),
            region_spread=regions.std(axis=0) + 1e-6,
        )

    def of_rates(self) -> Likeness:
        """For `rate_effect`: images that are less alike tell of each other."""
        return replace(self, sharpness=self.sharpness * SHARPNESS_OF_RATES / SHARPNESS)

    def to_centres(self, images: F32) -> Floats:
        """``(N, M)`` kernel between images ``(N, D)`` and the centres."""
        places = ((images - self.middle) / self.spread) @ self.directions.T
        kernel: Floats = np.exp(-self.sharpness * _squared(places, self.centres))
        return kernel

    def scaled(self, regions: F32) -> Floats:
        """``(R, F)`` properties in standard deviations."""
        scaled: Floats = (regions - self.region_middle) / self.region_spread
        return np.clip(scaled, -FAR, FAR)


def _squared(a: Floats, b: Floats) -> Floats:
    apart = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    found: Floats = np.maximum(apart, 0.0)
    return found


@dataclass(frozen=True)
class ImageEffect:
    """A number for an image, learnt from labelled images that look alike; 0 far from all of them.

    Attributes:
        likeness: how images are compared.
        of_centres: ``(M,)`` weights of the kernel.
    """

    likeness: Likeness
    of_centres: Floats

    def of(self, seen: Seen) -> float:
        """The number of one image."""
        return float(self.likeness.to_centres(seen.image[None])[0] @ self.of_centres)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, for storing."""
        parts = {name: np.asarray(value) for name, value in vars(self.likeness).items()}
        return parts | {"of_centres": self.of_centres}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> ImageEffect:
        """From what `arrays` gave."""
        parts: dict[str, Any] = dict(arrays)
        of_centres = parts.pop("of_centres")
        parts["sharpness"] = parts["sharpness"].item()
        return cls(Likeness(**parts), of_centres)


@dataclass(frozen=True)
class Context:
    """Log odds of being right, added to those of the score.

    Attributes:
        of_image: what is added for an image.
        of_regions: ``(C, F)`` weights of the properties of regions of each class.
        variance: prior variance of an image's effect.
        known: ``(M, M)`` what labels took from it: ``k @ known @ k`` of an image's kernel ``k``.
    """

    of_image: ImageEffect
    of_regions: Floats
    variance: float
    known: Floats

    def log_odds(self, seen: Seen, label: NDArray[np.int64]) -> Floats:
        """``(R,)`` of one image's regions, which have these classes ``(R,)``."""
        weighed = self.of_image.likeness.scaled(seen.regions) * self.of_regions[label]
        found: Floats = self.of_image.of(seen) + weighed.sum(axis=1)
        return found

    def doubt(self, seen: Seen) -> float:
        """Variance of what is added for an image: little where similar ones are labelled."""
        kernel = self.of_image.likeness.to_centres(seen.image[None])[0]
        return max(self.variance - float(kernel @ self.known @ kernel), 0.0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, for storing."""
        return self.of_image.arrays() | {
            "of_regions": self.of_regions,
            "variance": np.asarray(self.variance),
            "known": self.known,
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Context:
        """From what `arrays` gave."""
        parts = dict(arrays)
        of_regions, known, variance = (parts.pop(n) for n in ("of_regions", "known", "variance"))
        return cls(ImageEffect.restore(parts), of_regions, variance.item(), known)


class Surroundings:
    """Properties of N images and all their regions, scaled so that each weight's prior is N(0, 1).

    Args:
        seen: of the images.
        likeness: fitted to these, or to more.
        strength: factor of the prior's variances, above 0.
    """

    def __init__(self, seen: Sequence[Seen], likeness: Likeness, strength: float) -> None:
        self.seen = seen
        self._likeness = likeness
        centres = np.exp(-likeness.sharpness * _squared(likeness.centres, likeness.centres))
        values, vectors = np.linalg.eigh(centres)
        # Of centres that are copies of each other one says what all do.
        root = vectors / np.sqrt(np.maximum(values, 1e-6)) @ vectors.T
        self._variance = strength * OF_IMAGE
        self._root = root * np.sqrt(self._variance)
        self.images = likeness.to_centres(np.array([one.image for one in seen])) @ self._root
        regions = np.concatenate([one.regions for one in seen])
        variance = np.full(regions.shape[1], OF_INSIDE)
        variance[-PLACES:] = OF_PLACE
        self._scale = np.sqrt(strength * variance / 2)
        self.regions = likeness.scaled(regions) * self._scale
        self.image_of = np.repeat(np.arange(len(seen)), [len(one.regions) for one in seen])

    def effect(self, of_images: Floats) -> ImageEffect:
        """From ``(M,)`` weights of the columns of `images`."""
        return ImageEffect(self._likeness, self._root @ of_images)

    def context(self, of_images: Floats, of_regions: Floats, told: Floats) -> Context:
        """What was learnt.

        Args:
            of_images: ``(M,)`` weights of the columns of `images`.
            of_regions: ``(C, F)`` weights of the columns of `regions`, by class.
            told: ``(N,)`` what each image's regions tell of its effect: curvature of the loss.
        """
        # Laplace's approximation: of each direction this share of the prior's variance is left.
        left = np.linalg.inv(np.eye(self.images.shape[1]) + (self.images.T * told) @ self.images)
        return Context(
            self.effect(of_images),
            self._scale * of_regions,
            self._variance,
            self._root @ (np.eye(len(left)) - left) @ self._root,
        )


def shrinkage(doubt: float) -> float:
    """By what log odds are divided to average P over a normal effect of that variance.

    Source:
        MacKay 1992; Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.153.
    """
    return float(np.sqrt(1 + np.pi / 8 * doubt))


def rate_effect(around: Surroundings, counts: NDArray[np.int64], expected: Floats) -> ImageEffect:
    """By how much more is counted in an image than expected: the logarithm of a factor.

    The mode of a Gaussian process under Poisson's distribution.

    Args:
        around: N images.
        counts: ``(N,)`` what was there.
        expected: ``(N,)`` how much was expected, above 0.
    """
    images = around.images

    def loss(weights: Floats) -> tuple[float, Floats]:
        log_factor = images @ weights
        rate = expected * np.exp(log_factor)
        value = float((rate - counts * log_factor).sum()) + 0.5 * float(weights @ weights)
        return value, images.T @ (rate - counts) + weights

    found = minimize(loss, np.zeros(images.shape[1]), jac=True, method="L-BFGS-B").x
    return around.effect(found)
