"""Drawn boxes in, a calibrated version out: the one way the rest of the program fits detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.detection.bundle import BoxBundle
from model.detection.context import Seen
from model.detection.copy_paste import Example
from model.detection.geometry import iou_matrix
from model.detection.graph import last_layers, write_head
from model.detection.head import Head, Kept
from model.detection.outcomes import LEAST_IMAGES, LabelledImages, OutOfFold
from model.detection.passes import BOX_ESTIMATORS, DEFAULT_BOX_ESTIMATOR, Readings
from model.detection.schedule import Schedule, schedule_for
from model.detection.shape import HeadShape, Standard, log_sides, shape_for, small_objects
from model.detection.types import BoxLabels
from model.detection.views import MOST_VIEWED
from model.errors import ModelError, NotEnoughLabelsError, ShapeError

MEMBER_SEED = 7919  # between the networks of a head
STANDARD_IMAGES = 200  # enough for means and deviations of channels
MOST_OVERLAP, LEAST_OVERLAP = 0.7, 0.5

Progress = Callable[[float, str], None]


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
    them, each fitted to half of the images, or five, each fitted to four fifths (see `Schedule`).

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
    data = _with_few_views(data)
    rng = np.random.default_rng(config.seed)
    folds = min(recipe.schedule.folds, len(data))
    fold = rng.permutation(len(data)) % folds
    read: dict[int, tuple[Kept, Readings]] = {}
    seen: dict[int, Seen] = {}
    for number in range(folds):
        what = f"training to calibrate, {number + 1} of {folds}"
        first, part = number * 0.45 / folds, 0.45 / folds

        def say(share: float, first: float = first, part: float = part, what: str = what) -> None:
            progress(first + part * share, what)

        head = recipe.to_calibrate().train(data, np.flatnonzero(fold != number), say)
        for n in np.flatnonzero(fold == number).tolist():
            maps = data.maps[n]
            kept = head.find(maps)
            read[n] = kept, BOX_ESTIMATORS[config.estimator](head, kept)
            if len(data) >= LEAST_IMAGES:
                seen[n] = Seen.of(maps, kept)
    trained = time.process_time()
    head = recipe.train(
        data,
        np.arange(len(data)),
        lambda share: progress(0.45 + share / 2, "training"),
    )
    head_cpu_s = time.process_time() - trained
    progress(0.95, "calibrating")
    found = OutOfFold(
        kept=[read[n][0] for n in range(len(data))],
        readings=[read[n][1] for n in range(len(data))],
        data=data,
        seen=[seen[n] for n in sorted(seen)],
        seed=config.seed,
    )
    calibration = found.calibrated()
    progress(0.98, "measuring")
    metrics = found.measure(classes, seed=config.seed)
    stated, right, regions = (metrics.pop(name) for name in ("stated", "right", "found"))
    metrics |= {
        "levels": list(recipe.shape.strides),
        "steps": recipe.steps,
        "members": recipe.networks,
        "overlap": recipe.overlap,
        "context": found.strength,
        "small_objects": small_objects(log_sides(data.drawn, data.canvases, len(classes))),
        "made_smaller": _made_smaller(data),
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
        out_of_fold_found=regions,
    )


def fit_head(
    data: LabelledImages, classes: Sequence[str], *, config: BoxConfig | None = None
) -> Head:
    """Only the head of a version: what it finds, without P(right) and without metrics.

    Raises:
        NotEnoughLabelsError, ShapeError, ModelError: as `fit`.
    """
    recipe = _recipe(data, classes, config or BoxConfig())
    return recipe.train(_with_few_views(data), np.arange(len(data)), lambda share: None)


def _made_smaller(data: LabelledImages) -> float:
    """Median over images of how many times as long a side is as that of the canvas."""
    areas = np.array([data.sizes, data.canvases], np.float64).prod(axis=2)
    return float(np.median(np.sqrt(areas[0] / areas[1])))


def _with_few_views(data: LabelledImages) -> LabelledImages:
    """Without views where so many images are labelled that they do not help."""
    return data if len(data) <= MOST_VIEWED else replace(data, views=())


@dataclass(frozen=True)
class _Recipe:
    """What all heads of one fit share; a head may be the mean of several networks."""

    shape: HeadShape
    schedule: Schedule
    networks: int
    standard: Standard
    overlap: float
    steps: int
    seed: int

    def to_calibrate(self) -> _Recipe:
        """The recipe of the heads that calibration is fitted to."""
        steps = self.schedule.steps_to_calibrate(self.steps)
        return replace(self, networks=self.schedule.calibrating_networks, steps=steps)

    def train(
        self,
        data: LabelledImages,
        rows: NDArray[np.int64],
        progress: Callable[[float], None],
    ) -> Head:
        """A head fitted to some of the images."""
        from model.detection.training import train_head

        networks = []
        for member in range(self.networks):

            def say(share: float, member: int = member) -> None:
                progress((member + share) / self.networks)

            networks.append(
                train_head(
                    _Examples(data, rows),
                    self.shape,
                    self.standard,
                    seed=self.seed + MEMBER_SEED * member,
                    steps=self.steps,
                    progress=say,
                )
            )
        graph, last = write_head(networks, self.standard), last_layers(networks)
        return Head(self.shape, graph, last, overlap=self.overlap)


def _recipe(data: LabelledImages, classes: Sequence[str], config: BoxConfig) -> _Recipe:
    _check(data, classes)
    BOX_ESTIMATORS[config.estimator]
    try:
        from model.detection.training import standard_of
    except ImportError as exc:
        raise ModelError(
            f"detectors are trained with PyTorch, which cannot be imported here ({exc}); "
            "install it with: pip install 'doubtless[train]'"
        ) from exc

    channels = [level.shape[0] for level in data.maps[0].levels]
    shape = shape_for(data.drawn, data.canvases, len(classes), channels)
    some = np.random.default_rng(config.seed).permutation(len(data))[:STANDARD_IMAGES]
    schedule = schedule_for(shape)
    steps = config.steps or schedule.steps_for(len(data))
    return _Recipe(
        shape=shape,
        schedule=schedule,
        networks=schedule.networks,
        standard=standard_of([data.maps[n] for n in some], shape.inputs),
        overlap=overlap_of(data.drawn),
        steps=steps,
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


class _Examples(Sequence[Example]):
    """Some of the labelled images, read when they are needed."""

    def __init__(self, data: LabelledImages, rows: NDArray[np.int64]) -> None:
        self._data, self._rows = data, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n: Any) -> Any:
        row = int(self._rows[n])
        views = self._data.views[row] if self._data.views else ()
        return Example(self._data.maps[row], self._data.drawn[row], views)


def _check(data: LabelledImages, classes: Sequence[str]) -> None:
    count = len(data.drawn)
    for name, given in (("maps", data.maps), ("sizes", data.sizes), ("canvases", data.canvases)):
        if len(given) != count:
            raise ShapeError(name, expected=f"({count},)", got=(len(given),))
    if len(data.views) not in (0, count):
        raise ShapeError("views", expected=f"({count},) or none", got=(len(data.views),))
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
