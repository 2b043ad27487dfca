"""K readings of each kept region, from the last layers alone: what doubt is measured by.

Every pass is read at the locations the plain pass kept, so no boxes have to be matched, and it
costs two small matrix products an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.detection.head import Head, Kept, sigmoid
from model.detection.types import Floats
from model.registry import Registry
from model.uncertainty.measures import decompose

PASSES, DROP, SEED = 10, 0.1, 0
DEFAULT_BOX_ESTIMATOR = "softmax"


@dataclass(frozen=True)
class Readings:
    """K readings of R regions.

    Attributes:
        scores: ``(K, R, C)`` of every class.
        sides: ``(K, R, 4)`` in shares of the image.
    """

    scores: Floats
    sides: Floats


BoxEstimator = Callable[[Head, Kept], Readings]
BOX_ESTIMATORS: Registry[BoxEstimator] = Registry("uncertainty estimator of boxes")


@BOX_ESTIMATORS.register("softmax")
def one_pass(head: Head, kept: Kept) -> Readings:
    """The plain pass alone: all doubt it shows is what the head itself is unsure of."""
    del head
    return Readings(kept.scores[None], kept.boxes[None])


@BOX_ESTIMATORS.register("mc-dropout")
def dropout(head: Head, kept: Kept) -> Readings:
    """Monte-Carlo dropout of the last layers' inputs, with the share they were trained with.

    The same masks for every image, so that each pass is a function.

    Source:
        Gal and Ghahramani 2016, arXiv:1506.02142.
    """
    rng = np.random.default_rng(SEED)
    width = kept.of_class.shape[1]
    masks = (rng.random((2, PASSES, 1, width)) >= DROP).astype(np.float32) / (1 - DROP)
    weight, bias = head.last.classify
    scores = sigmoid((kept.of_class * masks[0]) @ weight + bias)
    boxes, _, _ = head.boxes(kept.of_box * masks[1], kept.grid, kept.level)
    shares = np.clip(boxes / np.array([*kept.canvas, *kept.canvas]), 0.0, 1.0)
    return Readings(scores, shares)


def mean_score(kept: Kept, readings: Readings) -> Floats:
    """``(R,)`` score of each region's class, averaged over the passes."""
    mean: Floats = readings.scores.mean(axis=0)[np.arange(len(kept)), kept.label]
    return mean


def calibrated(scores: Floats, label: NDArray[np.int64], mean: Floats, p_right: Floats) -> Floats:
    """Scores scaled so that each region's own class says what P(right) says.

    The other classes are scaled alike and share what is left of 1 at most: a second class that
    scores as high must not take from the first what it has by calibration.

    Args:
        scores: ``(K, R, C)``.
        label: ``(R,)`` each region's class.
        mean: ``(R,)`` its score over the passes, see `mean_score`.
        p_right: ``(R,)``.

    Returns:
        ``(K, R, C)``, sums of 1 at most. The mean over the passes of the own class is P(right), or
        below where it would be above 1 in some of them.
    """
    rows = np.arange(len(label))
    scaled: Floats = np.clip(scores * (p_right / np.maximum(mean, 1e-6))[None, :, None], 0, 1)
    own = scaled[:, rows, label]
    scaled[:, rows, label] = 0.0
    others = scaled.sum(axis=2)
    scaled *= np.minimum(1.0, (1.0 - own) / np.maximum(others, 1e-12))[:, :, None]
    scaled[:, rows, label] = own
    return scaled


def doubt(scores: Floats) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64], Floats]:
    """Distribution over the classes, and total, aleatoric and epistemic in nats.

    The outcomes are the C classes and "no such object", which has what the classes leave of 1;
    where the classes' scores sum to more than 1, they share it.

    Args:
        scores: ``(K, R, C)``.

    Returns:
        ``(R, C)`` mean probability of each class, then ``(R,)`` each.
    """
    _, regions, classes = scores.shape
    if not regions:
        none = np.zeros(0)
        return np.zeros((0, classes)), none, none, none
    mass = np.maximum(scores.sum(axis=2, keepdims=True), 1.0)
    probs = scores / mass
    rest = np.maximum(1.0 - probs.sum(axis=2, keepdims=True), 0.0)
    outcomes = np.concatenate([probs, rest], axis=2).transpose(1, 0, 2)
    total, aleatoric, epistemic = decompose(outcomes)
    return outcomes[:, :, :classes].mean(axis=1), total, aleatoric, epistemic


def side_spread(kept: Kept, readings: Readings, size: tuple[int, int]) -> Floats:
    """``(R, 4)`` pixels, one standard deviation of each side.

    What the head expects of its own error (a Laplace distribution), and how far the passes differ.
    """
    own = np.sqrt(2.0) * kept.spread
    between = readings.sides.std(axis=0)
    spread: Floats = np.sqrt(own**2 + between**2) * np.array([*size, *size], np.float64)
    return spread
