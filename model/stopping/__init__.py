"""When to stop labelling: accuracy today, the gain of more labels, labels still needed."""

from __future__ import annotations

from model.stopping.accuracy import accuracy_assisted, accuracy_from_share, accuracy_lure
from model.stopping.base import Estimate
from model.stopping.curve import LearningCurve, fit_curve

__all__ = [
    "Estimate",
    "LearningCurve",
    "accuracy_assisted",
    "accuracy_from_share",
    "accuracy_lure",
    "fit_curve",
]
