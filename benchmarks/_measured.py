"""Numbers that say how good stated probabilities were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _curves import mean_and_error
from numpy.typing import NDArray

from model.calibration.metrics import (
    augrc,
    brier,
    ece,
    error_auroc,
    nll,
    proportion_interval,
)
from model.types import Predictions

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BINS = 15
DRAWS = 100


def judge(probs: F64, p_right: F64, labels: Ints) -> dict[str, float | None]:
    """Everything measured of one method on one set of items.

    Args:
        probs: ``(N, C)``.
        p_right: ``(N,)`` stated probability that the most probable class is right.
        labels: ``(N,)``.

    Returns:
        ``ece_if_perfect`` among others: what the ECE of so many items would be if every stated
        probability were true. An ECE cannot be expected below it.
    """
    right = probs.argmax(axis=1) == labels
    return {
        "accuracy": float(right.mean()),
        "ece": ece(p_right, right, bins=BINS),
        "ece_if_perfect": ece_if_perfect(p_right),
        "brier": brier(probs, labels),
        "nll": nll(probs, labels),
        "error_auroc": error_auroc(p_right, right),
        "augrc": augrc(p_right, right),
    }


def error_auroc_of_parts(found: Predictions, labels: Ints) -> dict[str, float | None]:
    """Error-AUROC, as in `judge`, of what was not made to find errors."""
    right = found.label == labels
    parts = {
        "total": -found.total,
        "aleatoric": -found.aleatoric,
        "epistemic": -found.epistemic,
        "margin": found.margin,
    }
    return {f"error_auroc_{name}": error_auroc(part, right) for name, part in parts.items()}


def ece_if_perfect(p_right: F64) -> float:
    """Mean ECE of outcomes drawn with the stated probabilities themselves."""
    rng = np.random.default_rng(0)
    draws = [ece(p_right, rng.random(len(p_right)) < p_right, bins=BINS) for _ in range(DRAWS)]
    return float(np.mean(draws))


def over_seeds(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Mean and standard error of each measure; of those seeds in which it is defined."""
    result: dict[str, Any] = {"seeds": len(rows)}
    for key in rows[0]:
        values = [row[key] for row in rows]
        defined = [value for value in values if value is not None]
        if not defined:
            result[key] = None
            continue
        mean, error = mean_and_error(defined)
        result[key] = {"mean": round(mean, 4), "se": None if error is None else round(error, 4)}
    return result


def reliability(p_right: F64, right: Bools, *, bins: int = 10) -> dict[str, Any]:
    """Observed error rate in bins of equal mass, least sure first, with 95 % intervals.

    Returns:
        ``bins`` and ``is_monotone``: whether no bin has an error rate surely above that of a bin
        of lower scores, that is an interval wholly above the other's.
    """
    order = np.argsort(p_right, kind="stable")
    table = []
    for part in np.array_split(order, min(bins, len(order))):
        wrong = int((~right[part]).sum())
        low, high = proportion_interval(wrong, len(part))
        table.append(
            {
                "items": len(part),
                "stated_error": round(float(1.0 - p_right[part].mean()), 4),
                "observed_error": round(wrong / len(part), 4),
                "interval": [round(low, 4), round(high, 4)],
            }
        )
    lowest_so_far = np.minimum.accumulate([row["interval"][1] for row in table])
    lows = np.array([row["interval"][0] for row in table])
    return {"bins": table, "is_monotone": bool((lows[1:] <= lowest_so_far[:-1]).all())}
