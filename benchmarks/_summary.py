"""Runs of all methods to tables: means over seeds, bins of scores, the published and the best."""

from __future__ import annotations

from typing import Any

import numpy as np
from _measured import over_seeds, reliability

from model.calibration.metrics import ece
from model.uncertainty import DEFAULT_ESTIMATOR

OURS = "doubtless: "
PUBLISHED = DEFAULT_ESTIMATOR  # the default estimator: its score is the one that is published
OVERFITTED = "overfitted"
PLAIN = "overfitted, plain softmax"


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds by place and method, surest ranking first; bins of the published score."""
    result: dict[str, Any] = {"failed": {}, "places": {}}
    for run in runs:
        result["failed"] |= run["failed"]
    for place in runs[0]["measured"]:
        methods = {name for run in runs for name in run["measured"][place]}
        table = {
            name: over_seeds(
                [run["measured"][place][name] for run in runs if name in run["measured"][place]]
            )
            for name in methods
        }
        order = sorted(table, key=lambda name: -((table[name]["error_auroc"] or {}).get("mean", 0)))
        result["places"][place] = {
            "methods": {name: table[name] for name in order},
            "published_against_best": against(runs, place, order),
            "reliability": {
                name: _pooled([run["scores"][place][name] for run in runs])
                for name in (PUBLISHED, OVERFITTED, PLAIN)
            },
        }
    accuracies = [run["scores"]["overfitted_train_accuracy"] for run in runs]
    result["overfitted_train_accuracy"] = min(accuracies)
    return result


def against(runs: list[dict[str, Any]], place: str, order: list[str]) -> dict[str, Any]:
    """Error-AUROC of the published score less that of the best other estimator, seed by seed."""
    no_rival = {OURS + PUBLISHED, OURS + OVERFITTED, PLAIN}
    best = next(name for name in order if name not in no_rival)
    pairs = [
        tuple(
            run["measured"][place].get(name, {}).get("error_auroc")
            for name in (OURS + PUBLISHED, best)
        )
        for run in runs
    ]
    apart = [{"error_auroc": a - b} for a, b in pairs if a is not None and b is not None]
    return {"best": best} | (over_seeds(apart) if apart else {})


def _pooled(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Bins of a score over all seeds, which share images: intervals are somewhat too narrow."""
    p_right = np.concatenate([np.array(score["p_right"]) for score in scores])
    right = np.concatenate([np.array(score["right"], bool) for score in scores])
    return {
        "items": [len(score["right"]) for score in scores],
        "ece_of_all_seeds_together": round(ece(p_right, right), 4),
        **reliability(p_right, right),
    }


def show(result: dict[str, Any]) -> None:
    """The tables, for people."""
    for n, found in result.items():
        for place, there in found["places"].items():
            print(f"\n{n} labels, {place}")
            for name, row in there["methods"].items():
                cells = [
                    f"{key} {row[key]['mean']:.4f} +- {row[key]['se']}"
                    for key in ("accuracy", "ece", "brier", "nll", "error_auroc", "augrc")
                    if row[key] is not None
                ]
                floor = row["ece_if_perfect"]["mean"]
                print(f"  {name:34} {'  '.join(cells)}  (ece if perfect {floor:.4f})")
            published = there["reliability"][PUBLISHED]
            errors = " ".join(f"{row['observed_error']:.3f}" for row in published["bins"])
            falls = "falls" if published["is_monotone"] else "does NOT fall"
            print(f"  error by bin of the published score: {errors} ({falls})")
            apart = there["published_against_best"]
            print(f"  published error-AUROC less {apart['best']}: {apart.get('error_auroc')}")
        for name, reason in found["failed"].items():
            print(f"  {name:34} failed: {reason}")
