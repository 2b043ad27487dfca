"""How good is it on the whole pool, and how much longer to label? From versions, in words too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from backend.kinds import Fitted
from backend.records import Score, Version
from model.stopping import Estimate, accuracy_assisted, fit_curve

MORE = 100
# Half the width of a 95 % interval in standard errors.
WIDTH = 1.96


def pool_accuracy(
    fitted: Fitted, scores: Sequence[Score], labels: Mapping[int, str]
) -> dict[str, Any]:
    """Accuracy of a version just fitted on the whole pool, with its interval, as JSON.

    Args:
        fitted: the version.
        scores: what it says of every task.
        labels: the labelled tasks, which are left out of the pool.
    """
    right, p_right = fitted.model.out_of_fold_right, fitted.model.out_of_fold_p_right
    if right is None or p_right is None:
        raise ValueError("the bundle was read from disk; its out-of-fold predictions are gone")
    open_p = [s.p_right for s in scores if s.p_right is not None and s.task_id not in labels]
    estimate = accuracy_assisted(
        right[fitted.random],
        p_right[fitted.random],
        np.array(open_p, np.float64),
    )
    return asdict(estimate)


def forecast(versions: Sequence[Version], *, target: float, open_tasks: int) -> dict[str, Any]:
    """What the versions so far say about stopping, as JSON.

    Args:
        versions: of one project, oldest first.
        target: accuracy on the whole pool that is wanted.
        open_tasks: images nobody has labelled.

    Returns:
        ``accuracy`` (the newest trained version's), ``gain`` (of the next 100 labels) and
        ``labels_needed`` (to `target`), each as `model.stopping.Estimate`; and ``target``.
    """
    judged = _comparable(versions)
    if not judged:
        why = "No version has been judged on the whole pool yet."
        unknown = asdict(Estimate.unknown(why))
        return {
            "target": target, "accuracy": unknown, "gain": unknown, "labels_needed": unknown,
        }  # fmt: skip
    found = [v.metrics["pool_accuracy"] for v in judged]
    curve = fit_curve(
        np.array([v.labels for v in judged], np.int64),
        np.array([a["value"] for a in found]),
        np.array([(a["high"] - a["low"]) / (2 * WIDTH) for a in found]),
    )
    return {
        "target": target,
        "accuracy": found[-1],
        "gain": asdict(curve.gain(MORE)),
        "labels_needed": asdict(curve.labels_needed(target, most=open_tasks)),
    }


def _comparable(versions: Sequence[Version]) -> list[Version]:
    """Versions with an estimate, for the classes and the backbone of the newest of them."""
    judged = [
        v
        for v in versions
        if v.kind == "trained" and v.metrics.get("pool_accuracy", {}).get("value") is not None
    ]
    if not judged:
        return []
    newest = judged[-1]
    backbone = newest.metrics.get("backbone")
    return [
        v
        for v in judged
        if v.config_hash == newest.config_hash and v.metrics.get("backbone") == backbone
    ]
