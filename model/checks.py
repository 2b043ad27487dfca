"""What every entry to the model side asks of features."""

from __future__ import annotations

from math import isfinite
from typing import Any

from numpy.typing import NDArray

from model.errors import ModelError

# Squared lengths of float32 rows overflow from 1e17 on; the cache's float16 ends at 65,504.
LARGEST = 1e15


def check_features(features: NDArray[Any], what: str) -> None:
    """Refuse features that have no length.

    Args:
        features: of any shape and number type.
        what: they are, for the message; plural.

    Raises:
        ModelError: a value is not finite, or beyond 1e15.

    Example:
        >>> import numpy as np
        >>> check_features(np.array([0.5, 1e30]), "features")
        Traceback (most recent call last):
        model.errors.ModelError: features reach 1e+30 and may reach 1e+15; scale them down
    """
    if not features.size:
        return
    low, high = float(features.min()), float(features.max())  # NaN if any value is
    if not (isfinite(low) and isfinite(high)):
        raise ModelError(f"{what} are not all finite; extract them again")
    furthest = max(-low, high)
    if furthest > LARGEST:
        raise ModelError(
            f"{what} reach {furthest:.0e} and may reach {LARGEST:.0e}; scale them down"
        )
