"""Tables of runs in several settings: means over the seeds, and how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from _curves import mean_and_error


def over(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard error of the values that are there, to five places.

    Example:
        >>> over([1.0, None, 3.0])
        {'mean': 2.0, 'se': 1.0}
    """
    mean, error = mean_and_error([value for value in values if value is not None])
    return {"mean": round(mean, 5), "se": None if error is None else round(error, 5)}


def show(
    name: str, methods: Mapping[str, Mapping[str, Any]], only: Collection[str] | None = None
) -> None:
    """The figures of each method in one setting, or some of them, to standard error."""
    print(name, file=sys.stderr)
    for method, row in methods.items():
        parts = [
            f"{key} {value['mean']:.4f} +- {value['se'] or 0.0:.4f}"
            for key, value in row.items()
            if only is None or key in only
        ]
        print(f"  {method}: " + ", ".join(parts), file=sys.stderr, flush=True)
