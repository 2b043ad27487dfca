"""Errors put into labels on purpose, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.detection.types import BoxLabels

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
F64 = NDArray[np.float64]

SHIFTS = (1 / 3, 1 / 2)  # of width and height


def flip(labels: Ints, n_classes: int, share: float, seed: int) -> tuple[Ints, Bools]:
    """Labels ``(N,)`` of which a share is another class at random, and ``(N,)`` which."""
    rng = np.random.default_rng(seed)
    is_wrong = np.zeros(len(labels), bool)
    is_wrong[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    other = (labels + rng.integers(1, n_classes, len(labels))) % n_classes
    return np.where(is_wrong, other, labels), is_wrong


@dataclass(frozen=True)
class Planted:
    """What was done to one image.

    Attributes:
        drawn: what is left of its labels.
        shifted: ``(B,)`` bool, which of these boxes were moved.
        swapped: ``(B,)`` bool, which were given another class.
        dropped: ``(D, 4)`` shares of those that were taken away.
    """

    drawn: BoxLabels
    shifted: Bools
    swapped: Bools
    dropped: F64


def spoil(drawn: Sequence[BoxLabels], n_classes: int, share: float, seed: int) -> list[Planted]:
    """Of all boxes of N images drop, shift and swap a share each, no box twice."""
    rng = np.random.default_rng(seed)
    total = sum(len(one) for one in drawn)
    count = round(share * total)
    what = np.zeros(total, np.int64)  # 1 dropped, 2 shifted, 3 swapped
    what[rng.permutation(total)[: 3 * count]] = np.repeat([1, 2, 3], count)
    result, start = [], 0
    for one in drawn:
        of_image = what[start : start + len(one)]
        start += len(one)
        boxes, labels = one.boxes.copy(), one.labels.copy()
        for n in np.flatnonzero(of_image == 2):
            boxes[n] = _shifted(boxes[n], rng)
        for n in np.flatnonzero(of_image == 3):
            labels[n] = (labels[n] + rng.integers(1, n_classes)) % n_classes
        kept = of_image != 1
        left = BoxLabels(boxes[kept], labels[kept], one.accepted[kept], one.ignored)
        result.append(
            Planted(left, of_image[kept] == 2, of_image[kept] == 3, one.boxes[~kept])
        )  # fmt: skip
    return result


def _shifted(box: F64, rng: np.random.Generator) -> F64:
    """Moved in any direction by a third to half of its size, and cut at the edges of the image.

    A box is at most half outside then, so something of it is always left.
    """
    angle, far = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*SHIFTS)
    by = far * np.array([np.cos(angle), np.sin(angle)]) * (box[2:] - box[:2])
    moved: F64 = np.clip(box + np.tile(by, 2), 0.0, 1.0)
    return moved


def ranking_precision(score: F64, is_wrong: Bools) -> float | None:
    """Average precision of looking at the lowest scores first; None where nothing is wrong.

    Equal scores are looked at together, so a score that says nothing gets the share of what is
    wrong, as a random order does.

    Example:
        >>> ranking_precision(np.array([0.1, 0.2, 0.3, 0.3]), np.array([True, False, True, False]))
        0.75
    """
    if not is_wrong.any():
        return None
    values, level = np.unique(score, return_inverse=True)
    hits = np.bincount(level, weights=is_wrong, minlength=len(values))
    seen = np.cumsum(np.bincount(level, minlength=len(values)))
    return float((hits * np.cumsum(hits) / seen).sum() / hits.sum())


def verdict(is_issue: Bools, is_wrong: Bools) -> dict[str, float]:
    """How many issues there are said to be, their precision and recall, and F1, the mean of both.

    Precision of no issue at all is 0.
    """
    said, hit, wrong = int(is_issue.sum()), int((is_issue & is_wrong).sum()), int(is_wrong.sum())
    return {
        "issues": said,
        "precision": hit / max(said, 1),
        "recall": hit / max(wrong, 1),
        "f1": 2 * hit / max(said + wrong, 1),
    }
