"""Calibrators that scale all log probabilities: none, temperature, vector scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from model.calibration.base import TINY, Calibrator, OutOfFold
from model.calibration.temperature import Loss, fit_temperature, soften

F64 = NDArray[np.float64]

SCALE_SD = 0.25
SHIFT_SD = 1.0


@dataclass(frozen=True)
class Softened:
    """Probabilities to the power of ``1 / temperature``; 1 leaves them as they are."""

    temperature: float = 1.0

    def probs(self, raw: F64) -> F64:
        """See `Calibrator.probs`."""
        return soften(raw, self.temperature)

    def p_right(self, raw: F64) -> F64:
        """See `Calibrator.p_right`."""
        result: F64 = self.probs(raw).max(axis=1)
        return result

    def arrays(self) -> dict[str, F64]:
        """See `Calibrator.arrays`."""
        return {"temperature": np.array([self.temperature])}


class Identity:
    """Believes the head: right for one that is calibrated by construction, and for comparison."""

    def fit(self, data: OutOfFold) -> Calibrator:
        """See `CalibratorFamily.fit`."""
        del data
        return Softened()

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """See `CalibratorFamily.restore`."""
        return Softened(float(arrays["temperature"][0]))


@dataclass(frozen=True)
class Temperature:
    """One number for all classes; see `fit_temperature` for the two losses.

    Source:
        Guo et al. 2017, arXiv:1706.04599.
    """

    loss: Loss = "brier"

    def fit(self, data: OutOfFold) -> Calibrator:
        """See `CalibratorFamily.fit`."""
        return Softened(fit_temperature(data.probs, data.labels, data.weights, loss=self.loss))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """See `CalibratorFamily.restore`."""
        return Softened(float(arrays["temperature"][0]))


@dataclass(frozen=True)
class Scaled:
    """Softened, then each class's log probability times `scale` plus `shift`."""

    temperature: float
    scale: F64
    shift: F64

    def probs(self, raw: F64) -> F64:
        """See `Calibrator.probs`."""
        result: F64 = softmax(_logs(raw, self.temperature) * self.scale + self.shift, axis=1)
        return result

    def p_right(self, raw: F64) -> F64:
        """See `Calibrator.p_right`."""
        result: F64 = self.probs(raw).max(axis=1)
        return result

    def arrays(self) -> dict[str, F64]:
        """See `Calibrator.arrays`."""
        return {
            "temperature": np.array([self.temperature]),
            "scale": self.scale,
            "shift": self.shift,
        }


class VectorScaling:
    """A scale and a shift of each class, for heads that over- or underrate some classes.

    By likelihood (convex), with priors ``scale ~ N(1, 0.25)`` and ``shift ~ N(0, 1)`` around the
    temperature: a class with few labels keeps the common one. May change the predicted class.

    Source:
        Guo et al. 2017, arXiv:1706.04599 (section 4.2).
    """

    def fit(self, data: OutOfFold) -> Calibrator:
        """See `CalibratorFamily.fit`."""
        classes = data.probs.shape[1]
        temperature = fit_temperature(data.probs, data.labels, data.weights)
        logs, rows = _logs(data.probs, temperature), np.arange(len(data))

        def loss(flat: F64) -> tuple[float, F64]:
            scale, shift = flat[:classes], flat[classes:]
            scores = log_softmax(logs * scale + shift, axis=1)
            slope = np.exp(scores)
            slope[rows, data.labels] -= 1.0
            slope *= data.weights[:, None]
            off, pull = (scale - 1.0) / SCALE_SD, shift / SHIFT_SD
            value = 0.5 * (off @ off + pull @ pull) - data.weights @ scores[rows, data.labels]
            return float(value), np.concatenate(
                [(slope * logs).sum(axis=0) + off / SCALE_SD, slope.sum(axis=0) + pull / SHIFT_SD]
            )

        start = np.concatenate([np.ones(classes), np.zeros(classes)])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
        return Scaled(temperature, found.x[:classes], found.x[classes:])

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Calibrator:
        """See `CalibratorFamily.restore`."""
        return Scaled(float(arrays["temperature"][0]), arrays["scale"], arrays["shift"])


def _logs(raw: F64, temperature: float) -> F64:
    result: F64 = np.log(np.maximum(raw, TINY)) / temperature
    return result
