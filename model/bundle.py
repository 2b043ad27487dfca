"""One trained version: what it was fitted on, how to predict with it, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.choose import Published
from model.calibration.sets import PublishedSets
from model.checks import check_features
from model.errors import BundleError, ShapeError
from model.heads.propagated import restore
from model.heads.roots import signed_root
from model.storage import read_version, write_version
from model.types import Predictions
from model.uncertainty import ESTIMATORS, Estimator
from model.uncertainty.measures import entropy, set_entropy

FORMAT = 2
BLOCK_ROWS = 4096
BLOCK_VALUES = 2**24  # probabilities of all passes in memory at once: 128 MB
_CALIBRATOR = "calibrator."  # before the names of its arrays


@dataclass(frozen=True)
class Bundle:
    """A fitted and calibrated version; immutable.

    Attributes:
        classes: names, in the order of the probabilities.
        published: turns the estimator's probabilities into calibrated ones; which of the two
            says whether an image may have several classes.
        roots: the estimator is given the roots of the features, see `model.heads.roots`.
        metrics: JSON-able facts measured when it was fitted, see `model.engine.fit`.
        out_of_fold_right: ``(n_labels,)`` whether each label was predicted right by a head that
            was not fitted on it; only of a version just fitted, not stored.
        out_of_fold_p_right: ``(n_labels,)`` the P(right) stated for these predictions; likewise.
        out_of_fold_probs: ``(n_labels, C)`` of every class by the estimator, calibrated by one
            temperature whatever calibrator was chosen; where an image may have several classes the
            published ones. What people's labels are weighed with; likewise.
        out_of_fold_plain: ``(n_labels, C)`` the same of plain logistic regressions, whatever the
            estimator: what `model.label_errors.choices` finds most by. None where an image may
            have several classes; likewise.
    """

    classes: tuple[str, ...]
    estimator_name: str
    estimator: Estimator
    published: Published | PublishedSets
    dim: int
    roots: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)
    out_of_fold_right: NDArray[np.bool_] | None = None
    out_of_fold_p_right: NDArray[np.float64] | None = None
    out_of_fold_probs: NDArray[np.float64] | None = None
    out_of_fold_plain: NDArray[np.float64] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes, or none."""
        return self.published.multi_label

    def predict(self, features: NDArray[np.float32]) -> Predictions:
        """Predict from cached features, in blocks, so that memory grows with N times C only.

        Args:
            features: ``(N, D)`` of the backbone the version was fitted with; N may be 0.

        Raises:
            ShapeError: features of another length, that is of another backbone.
            ModelError: a feature is not finite, or beyond 1e15.
        """
        if features.ndim != 2 or (len(features) and features.shape[1] != self.dim):
            raise ShapeError("features", expected=f"(N, {self.dim})", got=features.shape)
        count, classes = len(features), len(self.classes)
        probs = np.empty((count, classes))
        p_right = np.empty(count)
        parts = np.empty((3, count))
        size = min(max(BLOCK_VALUES // (self.estimator.passes * classes), 64), BLOCK_ROWS)
        for start in range(0, count, size):
            block = features[start : start + size].astype(np.float32, copy=False)
            check_features(block, f"features of rows {start} to {start + len(block)}")
            passes = self.sample(block)
            stop = start + len(block)
            mean = passes.sum(axis=1) / passes.shape[1]  # for one row a fifth of what `mean` takes
            probs[start:stop] = self.published.probs(mean)
            p_right[start:stop] = self.published.p_right(mean)
            parts[:, start:stop] = _parts(passes, mean, probs[start:stop], self.multi_label)
        label = self.published.decide(probs)
        return Predictions(probs, label, p_right, self.published.margin(probs), *parts)

    def sample(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(N, D)`` features as the backbone gives them to the passes ``(N, K, C)``, uncalibrated.

        What acquisition is given: the estimator itself may have been fitted on their roots.
        """
        return self.estimator.sample(signed_root(features) if self.roots else features)

    def save(self, folder: Path) -> None:
        """Write the version as a new folder: complete or not there at all.

        Raises:
            BundleError: the folder exists already, or cannot be written.
        """
        arrays = dict(self.estimator.arrays())
        arrays |= {_CALIBRATOR + k: v for k, v in self.published.arrays().items()}
        facts = {
            "format": FORMAT,
            "classes": list(self.classes),
            "estimator": self.estimator_name,
            "calibrator": self.published.name,
            "dim": self.dim,
            "roots": self.roots,
            "multi_label": self.multi_label,
            "metrics": dict(self.metrics),
        }
        write_version(folder, arrays, facts)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a version back.

        Raises:
            BundleError: it is incomplete, damaged, or of another format.
        """

        def build(arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> Bundle:
            if facts["format"] != FORMAT or "kind" in facts:
                raise BundleError(f"{folder} has format {facts['format']}, expected {FORMAT}")
            of_calibrator = {
                k.removeprefix(_CALIBRATOR): arrays.pop(k)
                for k in [*arrays]
                if k.startswith(_CALIBRATOR)
            }
            publishing = PublishedSets if facts.get("multi_label", False) else Published
            return cls(
                classes=tuple(facts["classes"]),
                estimator_name=facts["estimator"],
                estimator=restore(ESTIMATORS[facts["estimator"]], arrays),
                published=publishing.restore(facts["calibrator"], of_calibrator),
                dim=int(facts["dim"]),
                roots=bool(facts.get("roots", False)),
                metrics=facts["metrics"],
            )

        return read_version(folder, build)


def _parts(
    passes_NKC: NDArray[np.float64],
    mean_NC: NDArray[np.float64],
    probs_NC: NDArray[np.float64],
    multi_label: bool,
) -> tuple[NDArray[np.float64], ...]:
    """Total, aleatoric and epistemic ``(N,)`` in nats of the calibrated mean.

    Calibration acts on the mean, so its entropy is split as the passes split theirs, which is what
    `model.uncertainty.measures.decompose` says of them.
    """
    of = set_entropy if multi_label else entropy
    total, raw_total = of(probs_NC), of(mean_NC)
    raw_aleatoric = of(passes_NKC).sum(axis=1) / passes_NKC.shape[1]
    raw_epistemic = np.maximum(raw_total - raw_aleatoric, 0.0)
    share = raw_epistemic / np.maximum(raw_total, 1e-12) * (raw_total > 1e-12)
    epistemic = total * np.minimum(share, 1.0)
    return total, total - epistemic, epistemic
