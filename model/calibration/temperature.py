"""One number that makes probabilities match frequencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from model.errors import ShapeError

PRIOR_MEAN, PRIOR_SD = float(np.log(0.9)), 0.35  # of log T
_LOG_RANGE = 3.0
_TINY = 1e-12

Loss = Literal["brier", "likelihood"]


def soften(probs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Raise probabilities to the power of ``1 / temperature`` and normalise.

    Args:
        probs: ``(..., C)`` probabilities.
        temperature: above 1 makes them less certain, below 1 more.

    Returns:
        The same shape; 1 leaves them as they are.

    Source:
        Guo et al. 2017, arXiv:1706.04599, with the log probabilities as logits.
    """
    if temperature == 1.0:
        return probs
    return _softmax(np.log(np.maximum(probs, _TINY)) / temperature)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def fold_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much an out-of-fold prediction says about a head that has all labels: 0 to 1.

    Holding out a label of a class with n of them leaves the head ``(n - 1) / n`` of the class: of
    a single label nothing. Such predictions are far worse than those of the final head, which
    makes every probability look too bold. Weighting by the fourth power of that share took ECE on
    the unlabelled pool from 0.103 to 0.051 (43 classes, 40 to 240 labels) and from 0.058 to 0.050
    and 0.065 to 0.063 (10 classes, 10 to 120 labels).
    """
    counts = np.bincount(labels)[labels].astype(np.float64)
    weights: NDArray[np.float64] = ((counts - 1.0) / counts) ** 4
    return weights


def fit_temperature(
    probs: NDArray[np.float64],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
    *,
    loss: Loss = "brier",
) -> float:
    """Choose the temperature with the least Brier score, or the greatest likelihood.

    By Brier score rather than likelihood: a fold that lacks a class gives its items a probability
    near 0, whose logarithm then outweighs every other label (measured: ECE 0.47 instead of 0.08 at
    100 labels of 43 classes). A prior holds it near 0.9, since heads that cross-validation
    regularised are a little too modest: there it is ``log T ~ N(log 0.9, 0.35)``, about as far as
    the best temperatures of heads, sets and numbers of labels lie apart. Its tails are those of
    Student's t with 3 degrees of freedom, so that a head that is off by a factor of ten is
    followed there (docs/adr/calibration-rule.md).

    Args:
        probs: ``(N, C)`` out-of-fold probabilities. Of an ensemble its mean: members that are
            calibrated each for themselves make a mean that is too modest (Rahaman and Thiery
            2021, arXiv:2007.08792).
        labels: ``(N,)`` true classes.
        weights: ``(N,)`` of each label, at least 0; all 1 without.
        loss: "brier" or "likelihood".

    Returns:
        A temperature between 0.05 and 20; 1 without labels or with one class.

    Raises:
        ShapeError: `probs` is not 2-D, or the lengths differ.
    """
    if probs.ndim != 2:
        raise ShapeError("probs", expected="(N, C)", got=probs.shape)
    if labels.shape != probs.shape[:1]:
        raise ShapeError("labels", expected=f"({len(probs)},)", got=labels.shape)
    count, classes = probs.shape
    if weights is None:
        weights = np.ones(count)
    if weights.shape != labels.shape:
        raise ShapeError("weights", expected=str(labels.shape), got=weights.shape)
    if count == 0 or classes < 2 or weights.sum() <= 0.0:
        return 1.0
    logits = np.log(np.maximum(probs, _TINY))
    rows = np.arange(count)

    def objective(log_temperature: float) -> float:
        scaled = _softmax(logits / np.exp(log_temperature))
        truth = scaled[rows, labels]
        if loss == "brier":
            losses = (scaled**2).sum(axis=1) - 2.0 * truth
        else:
            losses = -np.log(np.maximum(truth, _TINY))
        return float(weights @ losses) + _prior(log_temperature)

    # Two steps, since the curve may have a second minimum far out: a coarse look, then the valley.
    grid = np.linspace(-_LOG_RANGE, _LOG_RANGE, 25)
    best = float(grid[int(np.argmin([objective(value) for value in grid]))])
    return _valley(objective, best, float(grid[1] - grid[0]))


def refit_temperature(
    probs: NDArray[np.float64],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    lowered: NDArray[np.float64],
    near: float,
) -> float:
    """The temperature once it is known that some labels are wrong more often than they look.

    As `fit_temperature` by Brier score, but each item's largest probability is lowered first, and
    the item mixed with ignorance to that end (`model.calibration.base.with_top`). Else a
    temperature fitted on labels that acquisition chose makes up for their errors, and all the
    others are stated too modestly.

    Args:
        probs: ``(N, C)``, C at least 2.
        labels: ``(N,)``.
        weights: ``(N,)`` not all 0.
        lowered: ``(N,)`` by how much, in log odds; not below 0.
        near: a temperature from which the best is at most a factor of e away.
    """
    logits = np.log(np.maximum(probs, _TINY))
    rows, even = np.arange(len(probs)), 1.0 / probs.shape[1]

    def objective(log_temperature: float) -> float:
        scaled = _softmax(logits / np.exp(log_temperature))
        top = np.clip(scaled.max(axis=1), even + _TINY, 1.0 - _TINY)
        stated = expit(np.log(top) - np.log1p(-top) - lowered)
        kept = np.clip((stated - even) / (top - even), 0.0, 1.0)
        squares = kept**2 * (scaled**2).sum(axis=1) + (1.0 - kept**2) * even
        truth = kept * scaled[rows, labels] + (1.0 - kept) * even
        return float(weights @ (squares - 2.0 * truth) + _prior(log_temperature))

    return _valley(objective, float(np.log(near)), 1.0)


def _prior(log_temperature: float) -> float:
    return float(2.0 * np.log1p(((log_temperature - PRIOR_MEAN) / PRIOR_SD) ** 2 / 4.0))


def _valley(objective: Callable[[float], float], middle: float, reach: float) -> float:
    found = minimize_scalar(
        objective,
        bounds=(middle - reach, middle + reach),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(np.clip(found.x, -_LOG_RANGE, _LOG_RANGE)))
