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
from pathlib import Path

import numpy as np
from common import FeatureSet, features_of, header, write

from model.acquisition import ACQUISITIONS
from model.simulation.data import LabelledSet
from model.simulation.replay import RANDOM, Plan, Run, replay
from model.simulation.summary import summarise
from model.uncertainty import DEFAULT_ESTIMATOR


def main() -> None:
    arguments = parse()
    data = as_set(features_of(arguments.data, arguments.backbone))
    plan = Plan(
        initial=0,
        batch=arguments.batch,
        rounds=arguments.budget // arguments.batch,
        random_share=arguments.random_share,
        uncertainty=arguments.estimator,
    )
    plan.check(data)
    orders = [RANDOM, *arguments.acquisition.split(",")]
    runs: dict[str, list[Run]] = {name: [] for name in orders}
    for seed in range(arguments.seeds):
        for name in orders:
            run = replay(data, plan, name, seed)
            runs[name].append(run)
            last = run.checkpoints[-1]
            seconds = sum(p.fit_s + p.acquire_s + p.score_pool_s for p in run.checkpoints)
            print(
                f"seed {seed} {name:16} accuracy {last.accuracy:.4f} at {last.labels} "
                f"({seconds:.0f} s)",
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
    result |= summarise(runs)
    for name in orders[1:]:
        spread = result["labels_saved_per_seed"][name]
        print(f"{data.name}: {name} labels saved {result['labels_saved_ratio'][name]} {spread}")
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="'digits' or a labelled folder")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--acquisition", default="auto", help="one or more names, with commas")
    parser.add_argument("--estimator", default=DEFAULT_ESTIMATOR)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--random-share", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.budget % arguments.batch:
        parser.error(f"--budget {arguments.budget} is no multiple of --batch {arguments.batch}")
    for name in arguments.acquisition.split(","):
        ACQUISITIONS[name]
    return arguments


def as_set(data: FeatureSet) -> LabelledSet:
    test = data.split == "test"
    if not test.any():
        raise SystemExit(f"{data.name} has no test split")
    names = tuple(map(str, np.arange(len(test))))
    return LabelledSet(data.name, data.classes, data.features, data.labels, test, names=names)


if __name__ == "__main__":
    main()
