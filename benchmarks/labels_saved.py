"""Labels saved: how many labels our order needs for the accuracy a random order ends with.

    python benchmarks/labels_saved.py --data digits
    python benchmarks/labels_saved.py --data ../shared/data/grocery --budget 520 --batch 40

Both orders are fitted by the same engine with the same settings and judged on the same test
images. Each round asks for one batch: a share drawn at random, as in the product, and the rest by
the acquisition named; the first batch has no model and is the cold start. The ratio is the budget
divided by the labels at which the mean curve of our order (running maximum, straight lines between
rounds) first reaches the mean final accuracy of the random order.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import FeatureSet, features_of, header, write
from numpy.typing import NDArray

from model.acquisition import ACQUISITIONS, select
from model.calibration.metrics import augrc, brier, ece, error_auroc
from model.engine import EngineConfig, fit
from model.types import Labelled

Ints = NDArray[np.int64]


def main() -> None:
    arguments = parse()
    data = features_of(arguments.data, arguments.backbone)
    orders = ["random", *arguments.acquisition.split(",")]
    runs: dict[str, list[list[dict[str, float]]]] = {name: [] for name in orders}
    for seed in range(arguments.seeds):
        for name in orders:
            begin = time.perf_counter()
            runs[name].append(replay(data, name, arguments, seed))
            last = runs[name][-1][-1]
            print(
                f"seed {seed} {name:16} accuracy {last['accuracy']:.4f} at {last['labels']:.0f} "
                f"({time.perf_counter() - begin:.0f} s)",
                flush=True,
            )
    result = header(
        benchmark="labels_saved",
        task="classification",
        metric="accuracy",
        data=data.name,
        backbone=arguments.backbone,
        budget=arguments.budget,
        batch=arguments.batch,
        random_share=arguments.random_share,
        seeds=arguments.seeds,
        estimator=arguments.estimator,
    )
    result |= summarise(runs, arguments.budget)
    for name in orders[1:]:
        spread = result["labels_saved_per_seed"][name]
        print(f"{data.name}: {name} labels saved {result['labels_saved_ratio'][name]} {spread}")
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="'digits' or a labelled folder")
    parser.add_argument("--backbone", default="efficientnet-lite2")
    parser.add_argument("--acquisition", default="auto", help="one or more names, with commas")
    parser.add_argument("--estimator", default="softmax")
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--random-share", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for name in arguments.acquisition.split(","):
        ACQUISITIONS[name]
    return arguments


def replay(
    data: FeatureSet, acquisition: str, arguments: argparse.Namespace, seed: int
) -> list[dict[str, float]]:
    """One run: a list of what was measured after each round."""
    train = np.flatnonzero(data.split != "test")
    test = np.flatnonzero(data.split == "test")
    if not len(test):
        raise SystemExit(f"{data.name} has no test split")
    pool, pool_labels = data.features[train], data.labels[train]
    rng = np.random.default_rng(seed)
    labelled = np.zeros(0, np.int64)
    is_random = np.zeros(0, bool)
    bundle = None
    rounds: list[dict[str, float]] = []
    while len(labelled) < min(arguments.budget, len(pool)):
        rest = np.setdiff1d(np.arange(len(pool)), labelled)
        size = min(arguments.batch, arguments.budget - len(labelled), len(rest))
        share = size if acquisition == "random" else round(arguments.random_share * size)
        drawn = rng.permutation(rest)[:share]  # before any score is looked at
        left = np.setdiff1d(rest, drawn)
        begin = time.perf_counter()
        predictions = bundle.predict(pool[left]) if bundle and share < size else None
        middle = time.perf_counter()
        chosen = select(
            acquisition,
            pool=pool[left],
            n=size - share,
            labelled=pool[np.concatenate([labelled, drawn])],
            label_counts=np.bincount(pool_labels[labelled], minlength=len(data.classes)),
            predictions=predictions,
            sample=bundle.estimator.sample if bundle else None,
            seed=seed * 1000 + len(labelled),
        ).rows
        acquired = time.perf_counter()
        labelled = np.concatenate([labelled, drawn, left[chosen]])
        is_random = np.concatenate([is_random, np.ones(share, bool), np.zeros(len(chosen), bool)])
        bundle = fit(
            Labelled(pool[labelled], pool_labels[labelled], is_random),
            data.classes,
            pool=pool,
            config=EngineConfig(estimator=arguments.estimator, seed=seed),
        )
        fitted = time.perf_counter()
        found = bundle.predict(data.features[test])
        right = found.label == data.labels[test]
        rounds.append(
            {
                "labels": len(labelled),
                "accuracy": float(right.mean()),
                "ece": ece(found.p_right, right),
                "brier": brier(found.probs, data.labels[test]),
                "error_auroc": error_auroc(found.p_right, right) or 0.5,
                "augrc": augrc(found.p_right, right),
                "score_pool_s": middle - begin,
                "acquire_s": acquired - middle,
                "fit_s": fitted - acquired,
            }
        )
    return rounds


def summarise(runs: dict[str, list[list[dict[str, float]]]], budget: int) -> dict[str, Any]:
    """Mean curves, ratios, quality and seconds of every order."""
    table = {
        name: {key: np.array([[r[key] for r in run] for run in seeds]) for key in seeds[0][0]}
        for name, seeds in runs.items()
    }
    labels = table["random"]["labels"][0]
    goals = table["random"]["accuracy"][:, -1]
    curves, ratios, per_seed, quality, seconds, means = {}, {}, {}, {}, {}, {}
    for name, values in table.items():
        accuracy = values["accuracy"]
        curves[name] = {
            "labels": labels.astype(int).tolist(),
            "mean": _round(accuracy.mean(axis=0)),
            "std": _round(accuracy.std(axis=0)),
        }
        means[name] = round(float(accuracy.mean()), 4)
        quality[name] = {
            key: _round(values[key].mean(axis=0))
            for key in ("ece", "brier", "error_auroc", "augrc")
        }
        seconds[name] = {
            key: round(float(np.median(values[key + "_s"])), 4)
            for key in ("score_pool", "acquire", "fit")
        }
        if name == "random":
            continue
        ratios[name] = ratio(labels, accuracy.mean(axis=0), float(goals.mean()), budget)
        per_seed[name] = [ratio(labels, curve, float(goals.mean()), budget) for curve in accuracy]
    return {
        "curves": curves,
        "mean_accuracy": means,
        "labels_saved_ratio": ratios,
        "labels_saved_per_seed": per_seed,
        "quality": quality,
        "seconds": seconds,
    }


def ratio(
    labels: NDArray[Any], curve: NDArray[np.float64], goal: float, budget: int
) -> float | None:
    """Budget over the labels at which the running maximum of `curve` reaches `goal`, or None."""
    best = np.maximum.accumulate(curve)
    reached = np.flatnonzero(best >= goal)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return round(budget / float(labels[0]), 3)
    part = (goal - best[at - 1]) / (best[at] - best[at - 1])
    needed = labels[at - 1] + part * (labels[at] - labels[at - 1])
    return round(budget / float(needed), 3)


def _round(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


if __name__ == "__main__":
    main()
