"""Drawn boxes in, a calibrated version out: the one way the rest of the program fits detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.metrics import ece, error_auroc, proportion_interval
from model.detection.bundle import BoxBundle, as_found, detections_of, take
from model.detection.calibration import SHOWN, BoxCalibration, ImageCalibrator, RegionCalibrator
from model.detection.evaluate import (
    average_precision,
    detection_ece,
    match,
    recall_of_missed,
    region_error_auroc,
)
from model.detection.geometry import iou_matrix
from model.detection.graph import last_layers, write_head
from model.detection.head import Head, Kept
from model.detection.maps import ImageMaps
from model.detection.passes import BOX_ESTIMATORS, DEFAULT_BOX_ESTIMATOR, Readings, mean_score
from model.detection.shape import HeadShape, Standard, shape_for
from model.detection.types import BoxLabels, Detections, Floats
from model.errors import ModelError, NotEnoughLabelsError, ShapeError

METRIC = "images right as they are"
FOLDS = 2
STANDARD_IMAGES = 200  # enough for means and deviations of channels
MOST_OVERLAP, LEAST_OVERLAP = 0.7, 0.5

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class LabelledImages:
    """What people have drawn so far.

    Attributes:
        maps: of N images; read one by one, so a lazy sequence will do.
        sizes: N times width and height of the upright image in pixels.
        drawn: N.
        random: ``(N,)`` bool, True where the image was drawn uniformly from the pool.
    """

    maps: Sequence[ImageMaps]
    sizes: Sequence[tuple[int, int]]
    drawn: Sequence[BoxLabels]
    random: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.drawn)


@dataclass(frozen=True, kw_only=True)
class BoxConfig:
    """What an engineer may choose by name.

    Attributes:
        estimator: one of `BOX_ESTIMATORS`.
        steps: of the optimiser; None leaves it to the labels.
        seed: of everything random.
    """

    estimator: str = DEFAULT_BOX_ESTIMATOR
    steps: int | None = None
    seed: int = 0


def _silent(share: float, what: str) -> None:
    del share, what


def fit(
    data: LabelledImages,
    classes: Sequence[str],
    *,
    config: BoxConfig | None = None,
    progress: Progress = _silent,
) -> BoxBundle:
    """Fit, calibrate and measure one version.

    Calibrated and measured on regions that heads found on images they were not fitted to: two of
    them, each fitted to half of the images, and where steps are dear with half of them.

    Args:
        data: the labels.
        classes: all classes of the project, also those without an object.
        config: the choices; the defaults without.
        progress: called with a share from 0 to 1 and what is being done.

    Raises:
        NotEnoughLabelsError: fewer than 2 images, or no object in any of them.
        ShapeError: lengths that differ.
        ModelError: a label outside the classes.
        UnknownNameError: no estimator has that name.
    """
    config = config or BoxConfig()
    begin = time.perf_counter()
    recipe = _recipe(data, classes, config)
    rng = np.random.default_rng(config.seed)
    fold = rng.permutation(len(data)) % FOLDS
    seen: dict[int, tuple[Kept, Readings]] = {}
    for number in range(FOLDS):
        what = f"training to calibrate, {number + 1} of {FOLDS}"
        first, part = number * 0.45 / FOLDS, 0.45 / FOLDS

        def say(share: float, first: float = first, part: float = part, what: str = what) -> None:
            progress(first + part * share, what)

        head = recipe.train(data, np.flatnonzero(fold != number), recipe.calibrating_steps, say)
        for n in np.flatnonzero(fold == number).tolist():
            kept = head.find(data.maps[n])
            seen[n] = kept, BOX_ESTIMATORS[config.estimator](head, kept)
    trained = time.process_time()
    head = recipe.train(
        data,
        np.arange(len(data)),
        recipe.steps,
        lambda share: progress(0.45 + share / 2, "training"),
    )
    head_cpu_s = time.process_time() - trained
    progress(0.95, "calibrating")
    found = OutOfFold(
        [seen[n][0] for n in range(len(data))], [seen[n][1] for n in range(len(data))], data
    )
    calibration = found.calibrated()
    metrics = found.measure(classes, seed=config.seed)
    stated, right = metrics.pop("stated"), metrics.pop("right")
    metrics |= {
        "levels": list(recipe.shape.strides),
        "steps": recipe.steps,
        "overlap": recipe.overlap,
        "head_cpu_seconds": head_cpu_s,
        "seconds": time.perf_counter() - begin,
    }
    progress(1.0, "fitted")
    return BoxBundle(
        classes=tuple(classes),
        head=head,
        estimator_name=config.estimator,
        calibration=calibration,
        metrics=metrics,
        out_of_fold_right=right,
        out_of_fold_p_right=stated,
    )


def fit_head(
    data: LabelledImages, classes: Sequence[str], *, config: BoxConfig | None = None
) -> Head:
    """Only the head of a version: what it finds, without P(right) and without metrics.

    Raises:
        NotEnoughLabelsError, ShapeError, ModelError: as `fit`.
    """
    recipe = _recipe(data, classes, config or BoxConfig())
    return recipe.train(data, np.arange(len(data)), recipe.steps, lambda share: None)


@dataclass(frozen=True)
class _Recipe:
    """What all heads of one fit share."""

    shape: HeadShape
    standard: Standard
    overlap: float
    steps: int
    calibrating_steps: int
    seed: int

    def train(
        self,
        data: LabelledImages,
        rows: NDArray[np.int64],
        steps: int,
        progress: Callable[[float], None],
    ) -> Head:
        """A head fitted to some of the images."""
        from model.detection.training import Example, train_head

        network = train_head(
            _Examples(data, rows, Example),
            self.shape,
            self.standard,
            seed=self.seed,
            steps=steps,
            progress=progress,
        )
        graph, last = write_head(network, self.standard), last_layers(network)
        return Head(self.shape, graph, last, overlap=self.overlap)


def _recipe(data: LabelledImages, classes: Sequence[str], config: BoxConfig) -> _Recipe:
    _check(data, classes)
    BOX_ESTIMATORS[config.estimator]
    try:
        from model.detection.training import standard_of, steps_for, steps_to_calibrate
    except ImportError as exc:
        raise ModelError(
            f"detectors are trained with PyTorch, which cannot be imported here ({exc}); "
            "install it with: pip install 'doubtless[train]'"
        ) from exc

    channels = [level.shape[0] for level in data.maps[0].levels]
    shape = shape_for(data.drawn, data.sizes, len(classes), channels)
    some = np.random.default_rng(config.seed).permutation(len(data))[:STANDARD_IMAGES]
    steps = config.steps or steps_for(len(data), shape)
    return _Recipe(
        shape=shape,
        standard=standard_of([data.maps[n] for n in some], shape.strides),
        overlap=overlap_of(data.drawn),
        steps=steps,
        calibrating_steps=steps_to_calibrate(steps, shape),
        seed=config.seed,
    )


def overlap_of(drawn: Sequence[BoxLabels]) -> float:
    """IoU above which two boxes of a class are taken for one object: from those people drew.

    Objects that lie over each other need room; elsewhere 0.5 is enough.
    """
    most = [0.0]
    for one in drawn:
        rivals = iou_matrix(one.boxes, one.boxes)
        rivals[(one.labels[:, None] != one.labels[None, :]) | np.eye(len(one), dtype=bool)] = 0.0
        most.extend(rivals.max(axis=1, initial=0.0))
    return float(np.clip(np.quantile(most, 0.99) + 0.1, LEAST_OVERLAP, MOST_OVERLAP))


@dataclass(frozen=True)
class OutOfFold:
    """Regions of N labelled images, found by heads that were not fitted to them.

    Attributes:
        kept: N.
        readings: N, the passes of each image's regions.
        data: the labels.
    """

    kept: Sequence[Kept]
    readings: Sequence[Readings]
    data: LabelledImages

    @cached_property
    def mean(self) -> list[Floats]:
        """N times ``(R,)``, score of each region's class over the passes."""
        return [mean_score(k, r) for k, r in zip(self.kept, self.readings, strict=True)]

    def calibrated(self, rows: NDArray[np.int64] | None = None) -> BoxCalibration:
        """Both calibrators, fitted to some of the images, or to all."""
        chosen = range(len(self.kept)) if rows is None else rows.tolist()
        n_classes = self.kept[0].scores.shape[1]
        parts = []
        for n in chosen:
            k, mean = self.kept[n], self.mean[n]
            found = match(k.boxes, k.label, mean, self.data.drawn[n])
            known = ~found.ignored
            parts.append((mean[known], k.quality[known], k.label[known], found.right[known]))
        score, quality, label, right = (np.concatenate(p) for p in zip(*parts, strict=True))
        regions = RegionCalibrator.fit(score, quality, label, right, n_classes)
        p_right, missed, all_right = [], [], []
        for n in chosen:
            k = self.kept[n]
            p = regions.p_right(self.mean[n], k.quality, k.label)
            gone, wrong, _ = self._outcome(n, p)
            p_right.append(p)
            missed.append(gone)
            all_right.append(not gone and not wrong)
        images = ImageCalibrator.fit(p_right, np.array(missed, np.int64), np.array(all_right, bool))
        return BoxCalibration(regions, images)

    def _outcome(self, n: int, p_right: Floats) -> tuple[int, int, int]:
        """Objects missed, shown regions that are wrong, and shown ones, of one image."""
        k, truth = self.kept[n], self.data.drawn[n]
        visible = p_right >= SHOWN
        found = match(k.boxes[visible], k.label[visible], p_right[visible], truth)
        wrong = int((~found.right & ~found.ignored).sum())
        return len(truth) - int(found.right.sum()), wrong, int(visible.sum())

    def measure(self, classes: Sequence[str], *, seed: int) -> dict[str, Any]:
        """Metrics of calibrators that were not fitted to the image they are judged on."""
        count = len(self.kept)
        half = np.random.default_rng(seed + 1).permutation(count) % 2
        said: list[Detections | None] = [None] * count
        for part in (0, 1):
            others = np.flatnonzero(half != part)
            calibration = self.calibrated(others)
            for n in np.flatnonzero(half == part).tolist():
                kept, readings, size = self.kept[n], self.readings[n], self.data.sizes[n]
                said[n] = detections_of(kept, readings, calibration, size)[0]
        found = [d for d in said if d is not None]
        right = np.array([self._outcome_of(d, n)[:2] == (0, 0) for n, d in enumerate(found)])
        stated = np.array([d.p_all_right for d in found])
        metrics = judge(found, self.data, classes)
        metrics |= {"right": right, "stated": stated}
        random = self.data.random
        n_random = int(random.sum())
        metrics |= {
            "metric": METRIC,
            "oof_accuracy": float(right.mean()),
            "n_random": n_random,
            "random_accuracy": float(right[random].mean()) if n_random else None,
            "random_accuracy_interval": (
                list(proportion_interval(int(right[random].sum()), n_random)) if n_random else None
            ),
            "ece": ece(stated, right),
            "error_auroc": error_auroc(stated, right),
            "random": (
                judge(
                    [d for n, d in enumerate(found) if random[n]],
                    _some(self.data, np.flatnonzero(random)),
                    classes,
                )
                if n_random
                else None
            ),
        }
        return metrics

    def _outcome_of(self, found: Detections, n: int) -> tuple[int, int]:
        visible = take(found, found.p_right >= SHOWN)
        matches = match(visible.boxes, visible.label, visible.p_right, self.data.drawn[n])
        wrong = int((~matches.right & ~matches.ignored).sum())
        return len(self.data.drawn[n]) - int(matches.right.sum()), wrong


def judge(
    found: Sequence[Detections], data: LabelledImages, classes: Sequence[str]
) -> dict[str, Any]:
    """What detections, regions below the threshold included, are worth on labelled images.

    Returns:
        ``n_labels`` images; ``class_counts`` objects of each class; ``ap50``, ``map``,
        ``ap50_per_class``; ``region_ece`` and ``region_error_auroc`` of the regions shown;
        ``regions`` shown, ``missed_images`` with an object that no shown region covers,
        ``missed_expected`` and ``missed_objects``, and ``missed_recall``: the share of these images
        among the fifth that is expected to miss most.
    """
    truths = list(data.drawn)
    stated, happened, missed = shown_regions(found, truths)
    expected = np.array([d.missed for d in found])
    precision = average_precision(
        [as_found(d) for d in found], truths, [d.size for d in found], len(classes)
    )
    counts = np.bincount(np.concatenate([t.labels for t in truths]), minlength=len(classes))
    return {
        "n_labels": len(truths),
        "class_counts": {name: int(n) for name, n in zip(classes, counts, strict=True)},
        "ap50": precision["ap50"],
        "map": precision["map"],
        "ap50_per_class": dict(zip(classes, precision["ap50_per_class"], strict=True)),
        "regions": len(stated),
        "region_ece": detection_ece(stated, happened),
        "region_error_auroc": region_error_auroc(stated, happened, threshold=SHOWN),
        "missed_objects": int(missed.sum()),
        "missed_expected": float(expected.sum()),
        "missed_images": int((missed > 0).sum()),
        "missed_recall": recall_of_missed(np.argsort(-expected, kind="stable"), missed > 0),
    }


def shown_regions(
    found: Sequence[Detections], truths: Sequence[BoxLabels]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """P(right) and truth of every region shown in N images, and ``(N,)`` objects missed in each.

    Regions of which it is not known whether they are right are left out.
    """
    p_right, right, gone = [np.zeros(0)], [np.zeros(0, bool)], []
    for one, truth in zip(found, truths, strict=True):
        visible = take(one, one.p_right >= SHOWN)
        matches = match(visible.boxes, visible.label, visible.p_right, truth)
        p_right.append(visible.p_right[~matches.ignored])
        right.append(matches.right[~matches.ignored])
        gone.append(len(truth) - int(matches.right.sum()))
    return np.concatenate(p_right), np.concatenate(right), np.array(gone, np.int64)


class _Examples(Sequence[Any]):
    """Some of the labelled images, read when they are needed."""

    def __init__(self, data: LabelledImages, rows: NDArray[np.int64], example: Any) -> None:
        self._data, self._rows, self._example = data, rows, example

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n: Any) -> Any:
        row = int(self._rows[n])
        return self._example(self._data.maps[row], self._data.drawn[row])


def _some(data: LabelledImages, rows: NDArray[np.int64]) -> LabelledImages:
    return replace(
        data,
        maps=[],
        sizes=[data.sizes[n] for n in rows],
        drawn=[data.drawn[n] for n in rows],
        random=data.random[rows],
    )


def _check(data: LabelledImages, classes: Sequence[str]) -> None:
    count = len(data.drawn)
    for name, given in (("maps", data.maps), ("sizes", data.sizes)):
        if len(given) != count:
            raise ShapeError(name, expected=f"({count},)", got=(len(given),))
    if data.random.shape != (count,):
        raise ShapeError("random", expected=f"({count},)", got=data.random.shape)
    if count < 2:
        raise NotEnoughLabelsError(
            f"{count} labelled images are too few to fit anything; label at least 2"
        )
    labels = np.concatenate([one.labels for one in data.drawn])
    if not len(labels):
        raise NotEnoughLabelsError(
            f"none of the {count} labelled images has an object; draw at least one"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        bad = int(labels.max() if labels.min() >= 0 else labels.min())
        raise ModelError(f"label {bad} is outside the {len(classes)} classes")
