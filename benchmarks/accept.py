"""Auto-accept: is the bound kept, and how much of the pool may be accepted?

    ./run bench accept --data ../shared/data/grocery --labels 400 --out FILE
    ./run bench accept --data ../shared/data/bccd --labels 100 --out FILE

Several models are fitted to labels chosen as in the product (of sets with boxes: to random
images). What each says of the set's test part is the pool to accept: images, or with boxes the
regions shown on images that are accepted whole. Its labels are hidden; an audit is drawn from it
and certified, many times over, and each time the truth is looked up: how much was accepted, and is
more of it wrong than promised? Beside it stand the threshold that the same audit labels suggest
without a test ("point estimate"), P(right) taken at its word without any audit ("stated"), and what
an oracle could accept. Of images also a promise for each predicted class ("by class": broken if
that of any class is).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _kept import Kept
from _replay import Task, choose_labels
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray

from model.acceptance.by_class import ClassPlan, plan_by_class
from model.acceptance.certificate import certify
from model.acceptance.plan import ACCEPTED, OF, STEPS, AuditPlan, Promise, plan_audit
from model.acceptance.regions import rank_images
from model.calibration.metrics import proportion_interval
from model.datasets import read_dataset
from model.detection.bundle import as_found, shown
from model.detection.evaluate import match
from model.engine import EngineConfig, fit
from model.types import Labelled

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What the predictions depend on; how they are accepted is quick, and never kept.
PARTS = (
    "acquisition", "backbones", "calibration", "detection", "heads", "uncertainty",
    "bundle.py", "engine.py",
)  # fmt: skip
CODE = (*(f"model/{part}" for part in PARTS), "benchmarks/_replay.py")
# Audits beside the planned one: labels, and the largest part they are drawn from.
FIXED = {"200 in 40 %": (200, 0.4), "400 in 40 %": (400, 0.4), "200": (200, 1.0), "400": (400, 1.0)}
PLANNED, BY_CLASS = "planned", "by class"


def main() -> None:
    arguments = parse()
    pools = list(pools_of(arguments))
    rows = []
    for max_error in map(float, arguments.max_error.split(",")):
        for confidence in map(float, arguments.confidence.split(",")):
            for of in OF:
                promise = Promise(max_error, confidence, of)
                rows += table(pools, promise, arguments.draws)
                say(f"{of} {max_error:g} with {confidence:g}: done")
    facts = {
        "benchmark": "accept",
        "data": Path(arguments.data).name,
        "labels": arguments.labels,
        "models": len(pools),
        "draws_a_model": arguments.draws,
        "pool": [len(pool.wrong) for pool in pools],
        "wrong_share": [round(float(pool.wrong.mean()), 4) for pool in pools],
    }
    write(header(**facts) | {"rows": rows}, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="'digits', a labelled folder or a set")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--labels", type=int, default=400, help="labels, or images, to fit to")
    parser.add_argument("--models", type=int, default=5, help="fitted to labels of other seeds")
    parser.add_argument("--draws", type=int, default=50, help="audits drawn for each model")
    parser.add_argument("--max-error", default="0.02,0.05", help="bounds, with commas")
    parser.add_argument("--confidence", default="0.9,0.95", help="confidences, with commas")
    parser.add_argument("--random-share", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Pool:
    """Predictions in the order in which they would be accepted, and which are wrong.

    Attributes:
        p_right: ``(N,)``.
        wrong: ``(N,)``.
        ends: ``(G,)`` where a part of them may end: after each, or after the regions of an image.
        said: ``(N,)`` the classes; none where no class is promised anything.
        by_image: regions are accepted with all others on their image.
    """

    p_right: Floats
    wrong: Bools
    ends: Ints
    said: Sequence[str] = ()
    by_image: bool = False

    @classmethod
    def of_images(
        cls, p_right: Sequence[float], right: Sequence[bool], said: Sequence[str]
    ) -> Pool:
        """Of images in any order."""
        stated, wrong = np.array(p_right, np.float64), ~np.array(right, bool)
        order = np.argsort(-stated, kind="stable")
        every = np.arange(1, len(order) + 1)
        return cls(stated[order], wrong[order], every, [said[n] for n in order])

    @classmethod
    def of_regions(
        cls,
        p_right: Sequence[Sequence[float]],
        right: Sequence[Sequence[bool]],
        p_all_right: Sequence[float],
    ) -> Pool:
        """Of the regions of images in any order."""
        stated = [np.array(p, np.float64) for p in p_right]
        ranked = rank_images(stated, np.array(p_all_right))
        wrong = ~np.concatenate([np.array(right[n], bool) for n in ranked.images])
        return cls(ranked.p_right, wrong, ranked.ends, by_image=True)

    def loss(self, size: int, of: str) -> float:
        """The share that a promise bounds, if the first `size` are accepted."""
        wrong = int(self.wrong[:size].sum())
        return wrong / max(size, 1) if of == ACCEPTED else wrong / len(self.wrong)

    def oracle(self, promise: Promise) -> int:
        """The largest part that keeps the promise."""
        return self._largest(self.wrong.astype(np.float64), promise)

    def stated(self, promise: Promise) -> int:
        """The largest part that keeps the promise if P(right) is taken at its word."""
        return self._largest(1.0 - self.p_right, promise)

    def _largest(self, wrong: Floats, promise: Promise) -> int:
        bad = np.cumsum(wrong)[self.ends - 1]
        share = bad / (self.ends if promise.of == ACCEPTED else len(wrong))
        return int(max(self.ends[share <= promise.max_error], default=0))


def pools_of(arguments: argparse.Namespace) -> Iterator[Pool]:
    """What each model says of the test part."""
    kept = Kept(CACHE / "accept", ROOT)
    first = next(iter(read_dataset(arguments.data)))
    runs = boxes(arguments, kept) if first.boxes is not None else choices(arguments, kept)
    for number, run in enumerate(runs):
        if first.boxes is not None:
            pool = Pool.of_regions(run["p_right"], run["right"], run["p_all_right"])
        else:
            pool = Pool.of_images(run["p_right"], run["right"], run["said"])
        say(f"model {number}: {len(pool.wrong)} predictions")
        yield pool


def choices(arguments: argparse.Namespace, kept: Kept) -> Iterator[dict[str, Any]]:
    """Images with one label each."""
    task = Task.of(features_of(arguments.data, arguments.backbone))
    for seed in range(arguments.models):

        def run(seed: int = seed) -> dict[str, Any]:
            counts = [arguments.labels]
            ((_, chosen, random),) = choose_labels(task, counts, arguments.random_share, seed)
            data = Labelled(task.features[chosen], task.labels[chosen], random)
            bundle = fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))
            found = bundle.predict(task.test_features)
            right = found.right(task.test_labels)
            said = [task.classes[n] for n in found.probs.argmax(axis=1)]
            return {"p_right": found.p_right.tolist(), "right": right.tolist(), "said": said}

        facts = {
            "data": arguments.data, "labels": arguments.labels, "seed": seed,
            "share": arguments.random_share, "backbone": arguments.backbone, "said": True,
        }  # fmt: skip
        yield kept.run(facts, CODE, run)


def boxes(arguments: argparse.Namespace, kept: Kept) -> Iterator[dict[str, Any]]:
    """Regions that are shown on each image, of images with boxes."""
    from detection import DEFAULT_PYRAMID, Images, fitted

    data = Images.of(arguments.data, DEFAULT_PYRAMID)
    for seed in range(arguments.models):

        def run(seed: int = seed) -> dict[str, Any]:
            rows = np.random.default_rng(seed).permutation(data.set.pool)[: arguments.labels]
            bundle, _ = fitted(data, rows, seed)
            test = data.test
            facts: dict[str, Any] = {"p_right": [], "right": [], "p_all_right": []}
            for maps, truth in zip(test.maps, test.drawn, strict=True):
                found, _ = bundle.look(maps)
                seen = shown(found)
                facts["p_right"].append(seen.p_right.tolist())
                facts["right"].append(match(*as_found(seen), truth).right.tolist())
                facts["p_all_right"].append(float(found.p_all_right))
            return facts

        yield kept.run(
            {"data": data.set.digest, "n": arguments.labels, "seed": seed, "by": "image"}, CODE, run
        )


@dataclass(frozen=True)
class Trial:
    """What one way to accept did after one audit: shares of the pool, of what is promised."""

    coverage: float
    loss: float
    broken: bool

    @classmethod
    def of(cls, size: int, pool: Pool, promise: Promise) -> Trial:
        """The first `size` items were accepted."""
        loss = pool.loss(size, promise.of)
        return cls(size / len(pool.wrong), loss, loss > promise.max_error + 1e-12)


def table(pools: Sequence[Pool], promise: Promise, draws: int) -> list[dict[str, Any]]:
    """All ways to accept under one promise, over models and draws."""
    audits = {PLANNED: (None, None), **FIXED}
    found = {
        "oracle": [[Trial.of(pool.oracle(promise), pool, promise)] for pool in pools],
        "stated": [[Trial.of(pool.stated(promise), pool, promise)] for pool in pools],
    }
    labels: dict[str, list[int]] = {}
    for name, (audit, reach) in audits.items():
        for number, pool in enumerate(pools):
            plan = planned(pool, promise, audit, reach)
            labels.setdefault(name, []).append(0 if plan is None else plan.audit)
            trials: dict[str, list[Trial]] = {}
            for draw in range(draws):
                sizes = accept(plan, pool, promise, seed=number * draws + draw)
                for method, size in sizes.items():
                    trials.setdefault(method, []).append(Trial.of(size, pool, promise))
            for method, mine in trials.items():
                found.setdefault(f"{method}: {name}", []).append(mine)
    if all(len(pool.said) for pool in pools):
        for number, pool in enumerate(pools):
            plans = plan_by_class(pool.p_right, pool.said, promise)
            labels.setdefault(BY_CLASS, []).append(sum(part.plan.audit for part in plans))
            mine = [accept_by_class(plans, pool, [number, draw]) for draw in range(draws)]
            found.setdefault(f"certified: {BY_CLASS}", []).append(mine)
    return [
        row(promise, name, trials, labels.get(name.split(": ")[-1], [0]))
        for name, trials in found.items()
    ]


def accept_by_class(plans: Sequence[ClassPlan], pool: Pool, seed: Sequence[int]) -> Trial:
    """One audit of each class; broken if what was promised of any is."""
    size = bad = 0
    worst = 0.0
    for number, part in enumerate(plans):
        ranks = part.plan.draw([*seed, number])
        wrong = pool.wrong[part.rows]
        mine = certify(part.plan, ranks, wrong[ranks]).size
        of = mine if part.plan.promise.of == ACCEPTED else part.plan.pool
        size, bad = size + mine, bad + int(wrong[:mine].sum())
        worst = max(worst, float(wrong[:mine].sum()) / max(of, 1))
    promise = plans[0].plan.promise if plans else None
    of_all = promise is not None and promise.of != ACCEPTED
    return Trial(
        coverage=size / len(pool.wrong),
        loss=bad / (len(pool.wrong) if of_all else max(size, 1)),
        broken=promise is not None and worst > promise.max_error + 1e-12,
    )


def planned(
    pool: Pool, promise: Promise, audit: int | None, reach: float | None
) -> AuditPlan | None:
    """The plan, with no more labels than the part has items."""
    if audit is not None and reach is not None:
        audit = min(audit, int(reach * len(pool.wrong)))
    groups = {}
    if pool.by_image:  # one label of the audit takes as long as an image
        groups = {"ends": pool.ends, "price": len(pool.wrong) / len(pool.ends)}
    return plan_audit(pool.p_right, promise, audit=audit, reach=reach, **groups)


def accept(plan: AuditPlan | None, pool: Pool, promise: Promise, *, seed: int) -> dict[str, int]:
    """Items that each way accepts after one audit."""
    if plan is None:
        return {"certified": 0, "point estimate": 0}
    ranks = plan.draw(seed)
    wrong = pool.wrong[ranks]
    return {
        "certified": certify(plan, ranks, wrong).size,
        "point estimate": point_estimate(plan, pool, ranks, wrong, promise),
    }


def point_estimate(plan: AuditPlan, pool: Pool, ranks: Ints, wrong: Bools, promise: Promise) -> int:
    """The largest part on which the audit's own share of errors is within the bound."""
    best = 0
    steps = np.ceil(np.arange(1, STEPS + 1) / STEPS * plan.reach).astype(int)
    for size in pool.ends[np.searchsorted(pool.ends, steps)].tolist():
        inside = ranks < size
        if inside.any():
            share = float(wrong[inside].mean())
            scale = 1.0 if promise.of == ACCEPTED else size / plan.pool
            best = size if share * scale <= promise.max_error else best
    return best


def row(
    promise: Promise, name: str, found: Sequence[Sequence[Trial]], audit: Sequence[int]
) -> dict[str, Any]:
    """One way to accept, over models and all trials with each."""
    trials = [trial for mine in found for trial in mine]
    broken = sum(trial.broken for trial in trials)
    low, high = proportion_interval(broken, len(trials))
    losses = [trial.loss for trial in trials if trial.coverage > 0]
    by_model = [float(np.mean([trial.coverage for trial in mine])) for mine in found]
    return {
        "max_error": promise.max_error,
        "confidence": promise.confidence,
        "of": promise.of,
        "method": name,
        "trials": len(trials),
        "audit_labels": round(float(np.mean(audit)), 1),
        "coverage": round(float(np.mean([trial.coverage for trial in trials])), 4),
        "coverage_se": round(float(np.std(by_model, ddof=1) / np.sqrt(len(by_model))), 4)
        if len(by_model) > 1
        else None,
        "accepts_something": round(len(losses) / len(trials), 4),
        "error": round(float(np.mean([trial.loss for trial in trials])), 4),
        "error_when_any": round(float(np.mean(losses)), 4) if losses else None,
        "broken": round(broken / len(trials), 4),
        "broken_interval": [round(low, 4), round(high, 4)],
    }


if __name__ == "__main__":
    main()
