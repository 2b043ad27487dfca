"""What every question about stopping is answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError, ShapeError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An answer with its interval, or the reason why there is none.

    Attributes:
        value: the estimate; None when the data do not suffice, and then `sentence` says why.
        low: lower end of the interval; None where `value` is.
        high: upper end; None where `value` is, and where nothing bounds it.
        sentence: the same in words, to be shown as it is.
    """

    value: float | None
    low: float | None
    high: float | None
    sentence: str

    @classmethod
    def unknown(cls, why: str) -> Estimate:
        """No number, and the reason."""
        return cls(None, None, None, why)


def check_level(level: float) -> None:
    """Refuse what is not a confidence."""
    if not 0.0 < level < 1.0:
        raise ModelError(f"level is {level}; give a confidence between 0 and 1, such as 0.95")


def check_probabilities(name: str, values: NDArray[np.float64], count: int | None = None) -> None:
    """Refuse what is not a row of probabilities, of `count` items if that is known."""
    if values.ndim != 1 or (count is not None and len(values) != count):
        raise ShapeError(name, expected=f"({'N' if count is None else count},)", got=values.shape)
    if not np.isfinite(values).all() or (values < 0.0).any() or (values > 1.0).any():
        raise ModelError(f"{name} holds values that are not probabilities; all must be in [0, 1]")


def percent(value: float) -> str:
    """One decimal, as people read accuracies."""
    return f"{100.0 * value:.1f} %"
