"""One trained version that finds boxes: how it predicts, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.detection.calibration import SHOWN, BoxCalibration
from model.detection.context import Seen
from model.detection.head import Head, Kept
from model.detection.maps import ImageMaps
from model.detection.passes import (
    BOX_ESTIMATORS,
    Readings,
    calibrated,
    doubt,
    mean_score,
    side_spread,
)
from model.detection.shape import HeadShape
from model.detection.types import Detections, Floats
from model.errors import BundleError, ShapeError
from model.storage import read_version, write_version

FORMAT = 1


@dataclass(frozen=True)
class BoxBundle:
    """A fitted and calibrated version; immutable.

    Attributes:
        classes: names, in the order of the probabilities.
        head: finds the regions.
        estimator_name: one of `BOX_ESTIMATORS`.
        calibration: turns scores into probabilities.
        metrics: JSON-able facts measured when it was fitted, see `model.detection.engine.fit`.
        out_of_fold_right: ``(n_labels,)`` whether nothing was wrong with what a head that was not
            fitted to the image says of it; only of a version just fitted, not stored.
        out_of_fold_p_right: ``(n_labels,)`` the probability stated for that; likewise.
        out_of_fold_found: n_labels times all that was found there, regions below the threshold
            too, by calibrators not fitted to the image either; likewise.
    """

    KIND: ClassVar[str] = "boxes"

    classes: tuple[str, ...]
    head: Head
    estimator_name: str
    calibration: BoxCalibration
    metrics: Mapping[str, Any] = field(default_factory=dict)
    out_of_fold_right: NDArray[np.bool_] | None = None
    out_of_fold_p_right: NDArray[np.float64] | None = None
    out_of_fold_found: Sequence[Detections] | None = None

    def look(self, maps: ImageMaps) -> tuple[Detections, Kept]:
        """What it says of one image, below the threshold too, and what the head read.

        Raises:
            ShapeError: maps with other channels. Those of another size of the same pyramid are
                read, wrongly: who keeps versions has to know which pyramid each is of.
        """
        channels = tuple(level.shape[0] for level in maps.levels[-len(self.head.shape.inputs) :])
        if channels != self.head.shape.input_channels:
            expected = f"levels of {self.head.shape.input_channels} channels"
            raise ShapeError("maps", expected=expected, got=channels)
        kept = self.head.find(maps)
        readings = BOX_ESTIMATORS[self.estimator_name](self.head, kept)
        seen = Seen.of(maps, kept) if self.calibration.needs_seen else None
        return detections_of(kept, readings, self.calibration, maps.size, seen)

    def predict(self, maps: ImageMaps) -> Detections:
        """The regions worth showing: those that are right with a probability of 1/6 or more."""
        found, _ = self.look(maps)
        return shown(found)

    def save(self, folder: Path) -> None:
        """Write the version as a new folder: complete or not there at all.

        Raises:
            BundleError: the folder exists already, or cannot be written.
        """
        arrays = {f"head.{k}": v for k, v in self.head.arrays().items()}
        arrays |= {f"calibrator.{k}": v for k, v in self.calibration.arrays().items()}
        facts = {
            "format": FORMAT,
            "kind": self.KIND,
            "classes": list(self.classes),
            "estimator": self.estimator_name,
            "shape": asdict(self.head.shape),
            "metrics": dict(self.metrics),
        }
        write_version(folder, arrays, facts)

    @classmethod
    def load(cls, folder: Path) -> BoxBundle:
        """Read a version back.

        Raises:
            BundleError: it is incomplete, damaged, or of another format.
        """

        def build(arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> BoxBundle:
            if facts["format"] != FORMAT or facts.get("kind") != cls.KIND:
                raise BundleError(
                    f"{folder} has format {facts['format']} of kind {facts.get('kind')}, expected "
                    f"{FORMAT} of {cls.KIND}"
                )
            shape: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in facts["shape"].items()
            }
            parts: dict[str, dict[str, NDArray[Any]]] = {"head": {}, "calibrator": {}}
            for name, value in arrays.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            return cls(
                classes=tuple(facts["classes"]),
                head=Head.restore(HeadShape(**shape), parts["head"]),
                estimator_name=facts["estimator"],
                calibration=BoxCalibration.restore(parts["calibrator"]),
                metrics=facts["metrics"],
            )

        return read_version(folder, build)


def detections_of(
    kept: Kept,
    readings: Readings,
    calibration: BoxCalibration,
    size: tuple[int, int],
    seen: Seen | None = None,
) -> tuple[Detections, Kept]:
    """Calibrated detections of an image, by descending P(right), and `kept` in the same order.

    Args:
        kept: what the head found.
        readings: its passes.
        calibration: of the version.
        size: width and height of the image in pixels.
        seen: what the regions look like, where the calibration needs it.
    """
    mean = mean_score(kept, readings)
    p_right = calibration.p_right(kept, mean, seen)
    scores = calibrated(readings.scores, kept.label, mean, p_right)
    probs, total, aleatoric, epistemic = doubt(scores)
    order = np.argsort(-p_right, kind="stable")
    found = Detections(
        boxes=kept.boxes,
        label=kept.label,
        p_right=p_right,
        probs=probs,
        total=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
        spread=side_spread(kept, readings, size),
        p_all_right=calibration.p_all_right(p_right, seen),
        missed=calibration.images.missed(p_right, seen),
        size=size,
    )
    return take(found, order), kept.take(order)


def take(found: Detections, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
    """Some regions of an image; what is said of the image as a whole stays."""
    per_region = ("boxes", "label", "p_right", "probs", "total", "aleatoric", "epistemic", "spread")
    values: dict[str, Any] = dict(vars(found))
    return Detections(**(values | {name: values[name][rows] for name in per_region}))


def shown(found: Detections) -> Detections:
    """The regions that people are shown."""
    return take(found, found.p_right >= SHOWN)


def as_found(found: Detections) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Boxes, labels and P(right), as evaluation takes them."""
    return found.boxes, found.label, found.p_right
