"""How far a measured number may be off: the bootstrap, for any metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError, ShapeError

_BLOCK_DRAWS = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A measured value and where the true one lies with the confidence asked for."""

    value: float
    low: float
    high: float


def with_interval(
    metric: Callable[..., float | None],
    *arrays: NDArray[Any],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, np.inf),
) -> Interval | None:
    """Measure, and say how far it may be off by drawing the items again with replacement.

    The interval is the basic one, ``2 * value - quantile``, not the percentiles: a metric such as
    ECE grows by the noise of every resample, its percentiles can lie wholly above the value, and
    reflecting takes that bias off twice, as it should be. It always contains the value.

    Args:
        metric: of `model.calibration.metrics` or like them; called with one resample of `arrays`.
        arrays: ``(N, ...)`` each; row i of all of them belongs to item i.
        resamples: how often items are drawn again.
        level: confidence, between 0 and 1.
        seed: of the draws.
        bounds: least and largest value that the metric can have.

    Returns:
        None when the metric is None (say, error-AUROC without an error). Resamples in which it is
        None are left out.

    Raises:
        ShapeError: no array, no items, or arrays of different lengths.
        ModelError: `level` or `resamples` out of range.

    Source:
        Davison and Hinkley 1997, Bootstrap Methods and their Application, section 2.4.

    Example:
        >>> from model.calibration.metrics import ece
        >>> with_interval(ece, np.ones(50), np.ones(50, bool))
        Interval(value=0.0, low=0.0, high=0.0)
    """
    count = _check(arrays, resamples, level)
    value = metric(*arrays)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    found: list[float] = []
    rows = max(1, _BLOCK_DRAWS // count)
    for start in range(0, resamples, rows):
        draws = rng.integers(0, count, (min(rows, resamples - start), count))
        again = (metric(*(array[draw] for array in arrays)) for draw in draws)
        found += [measured for measured in again if measured is not None]
    if not found:
        return Interval(value, *bounds)
    tail = (1.0 - level) / 2.0
    upper, lower = np.quantile(found, [1.0 - tail, tail])
    return Interval(
        value,
        low=float(np.clip(min(2.0 * value - upper, value), *bounds)),
        high=float(np.clip(max(2.0 * value - lower, value), *bounds)),
    )


def _check(arrays: tuple[NDArray[Any], ...], resamples: int, level: float) -> int:
    if not arrays or not len(arrays[0]):
        raise ShapeError("arrays", expected="(N>=1, ...) each", got=np.shape(arrays))
    count = len(arrays[0])
    for array in arrays[1:]:
        if len(array) != count:
            raise ShapeError("arrays", expected=f"({count}, ...)", got=array.shape)
    if resamples < 1:
        raise ModelError(f"resamples is {resamples}; at least 1 is needed")
    if not 0.0 < level < 1.0:
        raise ModelError(f"level is {level}; give a confidence between 0 and 1, such as 0.95")
    return count
