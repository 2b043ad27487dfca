"""Learning curves of several strategies and seeds, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.simulation.summary import ratio

F64 = NDArray[np.float64]


def mean_and_error(values: Sequence[float] | F64) -> tuple[float, float | None]:
    """Mean and its standard error; no error from a single value.

    Example:
        >>> mean_and_error([1.0, 2.0, 3.0])
        (2.0, 0.5773502691896258)
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return float(array.mean()), None
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, Any] | None:
    """Difference ``ours - theirs`` over the seeds that both have; None without any.

    Pairing takes out what the initial labels of a seed do to everybody.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    mean, error = mean_and_error([ours[seed] - theirs[seed] for seed in seeds])
    return {"mean": _round(mean), "se": _round(error), "seeds": len(seeds)}


def area(curve: Sequence[float]) -> float:
    """Area under a learning curve: the mean accuracy over all rounds."""
    return float(np.mean(curve))


def describe(
    runs: Mapping[int, Mapping[str, Any]], random: Mapping[int, Mapping[str, Any]], budget: int
) -> dict[str, Any]:
    """One strategy's row.

    ``labels_saved`` is for what random selection reaches in the end, ``labels_saved_at`` for what
    it reaches after every round but the first: where curves flatten, one point says little.

    Args:
        runs: seed -> ``labels``, ``accuracy``, ``query_s``, ``fit_s`` of every round.
        random: the same of random selection, whose mean final accuracy is the goal.
        budget: labels at the end.
    """
    labels = np.array(next(iter(runs.values()))["labels"])
    curves = np.array([run["accuracy"] for run in runs.values()])
    goal = float(np.mean([run["accuracy"][-1] for run in random.values()]))
    of_random = np.maximum.accumulate(np.mean([run["accuracy"] for run in random.values()], axis=0))
    mean, error = mean_and_error([area(curve) for curve in curves])
    return {
        "seeds": len(runs),
        "labels": labels.tolist(),
        "mean": [_round(value) for value in curves.mean(axis=0)],
        "sd": [_round(value) for value in curves.std(axis=0, ddof=min(1, len(curves) - 1))],
        "auc": _round(mean),
        "auc_se": _round(error),
        "final": _round(float(curves[:, -1].mean())),
        "labels_saved": ratio(labels, curves.mean(axis=0), goal, budget),
        "labels_saved_at": [
            ratio(labels, curves.mean(axis=0), float(reached), int(count))
            for count, reached in zip(labels[1:], of_random[1:], strict=True)
        ],
        "labels_saved_per_seed": [ratio(labels, curve, goal, budget) for curve in curves],
        "query_s": _median(runs, "query_s"),
        "fit_s": _median(runs, "fit_s"),
    }


def areas(runs: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """Seed -> area."""
    return {seed: area(run["accuracy"]) for seed, run in runs.items()}


def _median(runs: Mapping[int, Mapping[str, Any]], key: str) -> float | None:
    values = [value for run in runs.values() for value in run[key]]
    return round(float(np.median(values)), 4) if values else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
