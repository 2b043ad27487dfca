"""How good a version of the demonstration is, and what random order would have given instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.demo.boxes import average_precision_of, boxes_of, random_order_of_boxes, read_maps
from backend.demo.curve import RandomCurve, checkpoints, random_curve
from backend.demo.data import DemoData, DemoImage, features_of
from backend.kinds.base import Model
from backend.settings import Settings
from model.backbones import load_backbone
from model.bundle import Bundle
from model.detection.bundle import BoxBundle
from model.errors import MissingFeaturesError
from model.features import FeatureStore

Progress = Callable[[str], None]


class Judge(Protocol):
    """Measures versions on the held-out images.

    Attributes:
        task: what kind of project it is, in one word.
        metric: name of what is measured, from 0 to 1; larger is better.
        unit: what is counted as a label.
        backbone: name of the network that reads the images.
        until: labels that a played annotator gives where nobody says how many.
        seeds: random orders to compare with where nobody says how many.
        training_limit_s: longest that a training may take.
    """

    task: str
    metric: str
    unit: str
    backbone: str
    until: int
    seeds: int
    training_limit_s: float

    def prepare(self, progress: Progress) -> int:
        """Read the held-out images where that was not done; returns how many there are."""

    def measure(self, model: Model, progress: Progress) -> float | None:
        """The metric of a version; None where its classes are not those of the data set."""

    def random(
        self, labels: Sequence[int], *, until: int, seeds: int, progress: Progress
    ) -> RandomCurve:
        """The metric of what is trained on images in random order.

        Args:
            labels: numbers of labels at which versions were measured.
            until: the last number.
            seeds: how many random orders.
            progress: called with what is being done, a few times a second.
        """

    def compared(self, random: RandomCurve) -> str:
        """One sentence on what was compared with what."""


class ChoiceJudge:
    """See `Judge`; accuracy of the choices."""

    task = "classification"
    metric = "accuracy"
    unit = "labels"
    until = 200
    seeds = 5
    training_limit_s = 300.0

    def __init__(self, data: DemoData, settings: Settings) -> None:
        self._data, self._settings = data, settings
        self._test: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None
        self.backbone = settings.backbone

    def prepare(self, progress: Progress) -> int:
        """See `Judge`."""
        return len(self._held_out(progress)[1])

    def measure(self, model: Model, progress: Progress) -> float | None:
        """See `Judge`."""
        assert isinstance(model, Bundle)
        if not set(model.classes) <= set(self._data.classes):
            return None
        features, truth = self._held_out(progress)
        said = np.array([self._data.classes.index(c) for c in model.classes])
        return float((said[model.predict(features).label] == truth).mean())

    def random(
        self, labels: Sequence[int], *, until: int, seeds: int, progress: Progress
    ) -> RandomCurve:
        """See `Judge`."""
        del labels  # a fit takes so little that every tenth label is measured
        pool, pool_truth = self._matrix("pool", progress)
        test, test_truth = self._held_out(progress)
        return random_curve(
            pool, pool_truth, test, test_truth, self._data.classes,
            labels=checkpoints(min(until, len(pool))),
            seeds=seeds, estimator=self._settings.estimator,
            progress=lambda done, total: progress(f"random order: {done} of {total} fits"),
        )  # fmt: skip

    def compared(self, random: RandomCurve) -> str:
        """See `Judge`."""
        return ""

    def _held_out(self, progress: Progress) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._test is None:
            self._test = self._matrix("held_out", progress)
        return self._test

    def _matrix(
        self, part: str, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features and classes of the labelled images of a part, computed where missing."""
        images = [i for i in getattr(self._data, part) if i.label is not None]
        try:
            features, readable = self._look(images, progress)
        except MissingFeaturesError:  # the cache was deleted meanwhile, and is made again
            features, readable = self._look(images, progress)
        code = {name: n for n, name in enumerate(self._data.classes)}
        truth = np.array([code[str(i.label)] for i in images], np.int64)
        return features, truth[readable]

    def _look(
        self, images: list[DemoImage], progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        settings = self._settings
        return features_of(
            images,
            FeatureStore(settings.artifacts / "features"),
            settings.backbone,
            lambda: load_backbone(
                settings.backbone, settings.cache_path, threads=settings.thread_count()
            ),
            lambda done, total: progress(f"looking at the held-out images: {done} of {total}"),
        )


class BoxJudge:
    """See `Judge`; average precision of the boxes at IoU 0.5, mean over the classes."""

    task = "detection"
    metric = "AP50"
    unit = "labelled images"
    # A training takes a minute on one core, and ten images have some hundred objects.
    until = 40
    seeds = 1
    training_limit_s = 3600.0

    def __init__(self, data: DemoData, settings: Settings) -> None:
        self._data, self._settings = data, settings
        self._test: list[str] | None = None
        self.backbone = settings.pyramid

    def prepare(self, progress: Progress) -> int:
        """See `Judge`."""
        return len(self._held_out(progress))

    def measure(self, model: Model, progress: Progress) -> float | None:
        """See `Judge`."""
        assert isinstance(model, BoxBundle)
        if model.classes != self._data.classes:
            return None
        keys = self._held_out(progress)
        return average_precision_of(
            model, self._settings, keys, boxes_of(self._data, self._data.held_out), progress
        )

    def random(
        self, labels: Sequence[int], *, until: int, seeds: int, progress: Progress
    ) -> RandomCurve:
        """See `Judge`."""
        del until
        pool = read_maps([i for i in self._data.pool if i.has_truth], self._settings, progress)
        return random_order_of_boxes(
            self._data, self._settings,
            pool=pool, held_out=self._held_out(progress),
            labels=[n for n in labels if n <= len(pool)], seeds=seeds, progress=progress,
        )  # fmt: skip

    def compared(self, random: RandomCurve) -> str:
        """See `Judge`."""
        orders = "one random order" if random.seeds == 1 else f"{random.seeds} random orders"
        once = "; with one run of each, a small difference may be chance" * (random.seeds == 1)
        return (
            f"Compared: this one run through Label Studio with {orders} of the same images, "
            f"trained here afterwards at the same numbers of them{once}."
        )

    def _held_out(self, progress: Progress) -> list[str]:
        if self._test is None:
            images = [i for i in self._data.held_out if i.boxes is not None]
            self._test = read_maps(images, self._settings, progress)
        return self._test


def judge_of(data: DemoData, settings: Settings) -> Judge:
    """The one for a data set."""
    return BoxJudge(data, settings) if data.has_boxes else ChoiceJudge(data, settings)
