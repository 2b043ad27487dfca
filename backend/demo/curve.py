"""What choosing saved: accuracy against labels, ours beside random order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.engine import EngineConfig, fit
from model.types import Labelled


@dataclass(frozen=True)
class Point:
    """One version on the held-out images: how many labels it had, and how good it is."""

    labels: int
    value: float
    version: str = ""


@dataclass(frozen=True)
class RandomCurve:
    """Random order with the same model: mean and spread over seeds."""

    labels: list[int]
    mean: list[float]
    std: list[float]
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def random_curve(
    pool: NDArray[np.float32],
    truth: NDArray[np.int64],
    test: NDArray[np.float32],
    test_truth: NDArray[np.int64],
    classes: Sequence[str],
    *,
    labels: Sequence[int],
    seeds: int,
    estimator: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RandomCurve:
    """Accuracy on the held-out images of the head that labels in random order would have given.

    Args:
        pool: ``(M, D)`` features of the imported images.
        truth: ``(M,)`` their classes.
        test: ``(T, D)`` features of the held-out images.
        test_truth: ``(T,)`` their classes.
        classes: their names.
        labels: ascending numbers of labels to measure at.
        seeds: how many random orders.
        estimator: the same as in the versions this is compared with.
        progress: called with (fits done, fits in all).
    """
    found = np.zeros((seeds, len(labels)))
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(pool))
        for column, count in enumerate(labels):
            rows = order[:count]
            data = Labelled(pool[rows], truth[rows], np.ones(len(rows), bool))
            config = EngineConfig(estimator=estimator, seed=seed)
            bundle = fit(data, classes, pool=pool, config=config)
            found[seed, column] = (bundle.predict(test).label == test_truth).mean()
            progress(seed * len(labels) + column + 1, seeds * len(labels))
    return RandomCurve(list(labels), found.mean(axis=0).tolist(), found.std(axis=0).tolist(), seeds)


def labels_to_reach(points: Sequence[Point], value: float) -> float | None:
    """Labels at which a curve first reaches a value, interpolated; ``None`` when never.

    Example:
        >>> labels_to_reach([Point(10, 0.5), Point(20, 0.7)], 0.6)
        15.0
    """
    before: Point | None = None
    for point in points:
        if point.value >= value:
            if before is None or point.value == before.value:
                return float(point.labels)
            share = (value - before.value) / (point.value - before.value)
            return before.labels + share * (point.labels - before.labels)
        if before is None or point.value >= before.value:  # the running maximum
            before = point
        else:
            before = Point(point.labels, before.value)
    return None


def labels_saved_ratio(points: Sequence[Point], random: RandomCurve) -> float | None:
    """How many times more labels random order needs for what it reaches in the end."""
    needed = labels_to_reach(points, random.mean[-1])
    return None if needed is None or needed <= 0 else random.labels[-1] / needed


def mean_gain(points: Sequence[Point], random: RandomCurve) -> float | None:
    """How far versions are above random order with as many labels, on average; None without any.

    Example:
        >>> random = RandomCurve([20], [0.5], [0.0], 1)
        >>> mean_gain([Point(10, 0.5), Point(20, 0.75)], random)
        0.25
    """
    mean = dict(zip(random.labels, random.mean, strict=True))
    gains = [p.value - mean[p.labels] for p in points if p.labels in mean]
    return float(np.mean(gains)) if gains else None


def checkpoints(until: int, step: int = 10) -> list[int]:
    """Numbers of labels to measure random order at: every `step`, and the last."""
    return sorted({*range(step, until + 1, step), until} - {0, 1})


def sparkline(values: Sequence[float]) -> str:
    """A curve in one line of text, from 0 to 1."""
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(blocks[min(7, max(0, math.floor(v * 8)))] for v in values)
