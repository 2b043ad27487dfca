"""Query strategies of other libraries and ours: same classifier, features, seeds, initial labels.

    ./run bench peers --data ../shared/data/grocery --budget 520 --batch 40 --out FILE
    ./run bench peers --data ../shared/data/sign_digits --budget 200 --batch 20 --random-share 0.2

Part "plain": every strategy is driven with one classifier, logistic regression with a fixed prior
on EfficientNet-Lite2 features. The libraries run in an environment of their own, made on first use.
Part "full": our engine on two backbones with `auto` and with random selection, against random
selection and the plain classifier. Labels saved: the budget over the labels that the running
maximum of a strategy's mean curve needs for the mean final accuracy of plain random.

Every run of a strategy and a seed is kept in the benchmarks' cache, so that an interrupted
benchmark goes on where it stopped; a run counts only for the code that made it. A strategy that
fails, or takes longer for a query than `--limit`, is reported as such.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _curves import areas, describe, paired
from _kept import Kept
from _plain import PlainHead, as_predictions, fit_plain, posterior, sampler
from _replay import Ask, Plan, Task, ask_ours, replay
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray
from peering.environment import peer_python, versions
from peering.process import PeerError, PeerProcess, end_workers_when_terminated
from peering.strategies import NEEDS_SAMPLES, STRATEGIES

from model.acquisition import ACQUISITIONS, Needs, Sample
from model.engine import EngineConfig, fit
from model.types import Labelled, Predictions

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OURS, FULL, SHARE = "doubtless: ", "full: ", " + random share"
RANDOM = OURS + "random"
OUR_CODE = ("model", "benchmarks/peers.py", "benchmarks/_replay.py", "benchmarks/_plain.py")
PEERING = "benchmarks/peering/"
PEER_CODE = (
    "model/heads/softmax.py",
    PEERING + "strategies.py",
    PEERING + "environment.py",
    *OUR_CODE[2:],
)


Job = Callable[[int], dict[str, Any]]  # a seed to its curve


class StrategyError(Exception):
    """A strategy did not get to the end; the message says why."""


def main() -> None:
    arguments = parse()
    end_workers_when_terminated()
    plain = Task.of(features_of(arguments.data, arguments.backbone)).normalised()
    with _worker(plain) as worker:
        jobs = _plain_jobs(plain, arguments, worker)
        if arguments.full_backbone:
            jobs |= _full_jobs(arguments)
        rows, failures = run_all(jobs, arguments)
    result = header(
        benchmark="peers",
        task="classification",
        metric="accuracy",
        data=Path(arguments.data).name,
        backbone=arguments.backbone,
        full_backbone=arguments.full_backbone,
        pool=len(plain.labels),
        test=len(plain.test_labels),
        classes=len(plain.classes),
        initial=arguments.initial,
        batch=arguments.batch,
        budget=arguments.budget,
        seeds=arguments.seeds,
        random_share=arguments.random_share,
        limit_s=arguments.limit,
        libraries=versions(),
        posterior="20 joint samples, Kronecker-factored last-layer Laplace, prior precision 1",
    )
    result |= summarise(rows, failures, arguments.budget)
    show(result)
    write(result, arguments.out)


def run_all(
    jobs: dict[str, Job], arguments: argparse.Namespace
) -> tuple[dict[str, dict[int, dict[str, Any]]], dict[str, str]]:
    """All seeds of all strategies; one that failed is not tried with the seeds that follow."""
    kept = Kept(CACHE / "peers", ROOT)
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    failures = {name: "skipped by --skip" for name in jobs if _is_named(name, arguments.skip)}
    for seed in range(arguments.seeds):
        for name in [name for name in jobs if name not in failures]:
            code = PEER_CODE if name in STRATEGIES else OUR_CODE
            begin = time.perf_counter()
            try:
                run = kept.run(_facts(arguments, name, seed), code, partial(jobs[name], seed))
            except StrategyError as exc:
                failures[name] = f"seed {seed}: {exc}"
                say(f"seed {seed} {name:36} {exc}")
                continue
            rows.setdefault(name, {})[seed] = run
            say(
                f"seed {seed} {name:36} area {np.mean(run['accuracy']):.4f} final "
                f"{run['accuracy'][-1]:.4f} query {np.median(run['query_s'] or [0]):.2f} s "
                f"({time.perf_counter() - begin:.0f} s)"
            )
    return rows, failures


def predictions_for(name: str, head: PlainHead, features: F32, sample: Sample) -> Predictions:
    """What rule `name` is given: with samples' disagreement where it lives from that."""
    disagrees = ACQUISITIONS[name].needs >= Needs.DISAGREEMENT
    return as_predictions(head.probs(features), sample(features) if disagrees else None)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="'digits' or a labelled folder")
    parser.add_argument("--backbone", default="efficientnet-lite2")
    parser.add_argument("--full-backbone", default="efficientnet-lite2+lite0", help="'' for none")
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--initial", type=int, default=20, help="random labels to start with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--random-share",
        type=float,
        default=0.0,
        help="adds rows of `auto` in which this share of every batch is drawn at random",
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a query may take")
    parser.add_argument("--strategies", help="names with commas, parts of names do; all without")
    parser.add_argument("--skip", default="", help="likewise; reported as skipped")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plain_jobs(task: Task, arguments: argparse.Namespace, worker: PeerProcess) -> dict[str, Job]:
    plan = _plan(arguments)

    def fit_model(labelled: Ints, random: Bools, seed: int) -> PlainHead:
        del random, seed
        return fit_plain(task.features[labelled], task.labels[labelled], len(task.classes))

    def judge(model: PlainHead) -> float:
        return _accuracy(model.probs(task.test_features), task)

    def ours(name: str, share: float = 0.0) -> Job:
        def choose(ask: Ask) -> tuple[Ints, float]:
            begin = time.perf_counter()
            sample = sampler(ask.model, task.features[ask.labelled], seed=ask.seed)
            found = predictions_for(name, ask.model, task.features[ask.rest], sample)
            chosen = ask_ours(name, task, ask, found, sample)
            return chosen, time.perf_counter() - begin

        return lambda seed: replay(task, plan, seed, fit_model, judge, choose, share)

    def theirs(name: str) -> Job:
        def choose(ask: Ask) -> tuple[Ints, float]:
            return ask_peer(worker, name, task, ask, arguments.limit)

        return lambda seed: replay(task, plan, seed, fit_model, judge, choose)

    jobs = {OURS + name: ours(name) for name in ACQUISITIONS}
    if arguments.random_share > 0:
        jobs[OURS + "auto" + SHARE] = ours("auto", arguments.random_share)
    jobs |= {name: theirs(name) for name in STRATEGIES}
    wanted = _wanted(arguments, [*jobs])
    return {name: jobs[name] for name in (RANDOM, *wanted)}  # random is what all are compared with


def _full_jobs(arguments: argparse.Namespace) -> dict[str, Job]:
    task = Task.of(features_of(arguments.data, arguments.full_backbone))
    plan = _plan(arguments)

    def fit_model(labelled: Ints, random: Bools, seed: int) -> Any:
        data = Labelled(task.features[labelled], task.labels[labelled], random)
        return fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))

    def judge(model: Any) -> float:
        return _accuracy(model.predict(task.test_features).probs, task)

    def job(name: str, share: float = 0.0) -> Job:
        def choose(ask: Ask) -> tuple[Ints, float]:
            begin = time.perf_counter()
            found = ask.model.predict(task.features[ask.rest])
            chosen = ask_ours(name, task, ask, found, ask.model.sample)
            return chosen, time.perf_counter() - begin

        return lambda seed: replay(task, plan, seed, fit_model, judge, choose, share)

    jobs = {FULL + "random": job("random"), FULL + "auto": job("auto")}
    if arguments.random_share > 0:
        jobs[FULL + "auto" + SHARE] = job("auto", arguments.random_share)
    return {name: jobs[name] for name in _wanted(arguments, [*jobs])}


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(arguments.initial, arguments.batch, arguments.budget)


def _wanted(arguments: argparse.Namespace, names: list[str]) -> list[str]:
    return [name for name in names if _is_named(name, arguments.strategies or name)]


def _is_named(name: str, parts: str) -> bool:
    """Whether one of the parts, with commas between, is in the name."""
    return any(part.strip() in name for part in parts.split(",") if part.strip())


def ask_peer(
    worker: PeerProcess, name: str, task: Task, ask: Ask, limit_s: float
) -> tuple[Ints, float]:
    """A library's choice and the seconds that its own code took."""
    head: PlainHead = ask.model
    arrays = {
        "labelled": ask.labelled,
        "labels": task.labels[ask.labelled],
        "candidates": ask.rest,
        "n": np.array(ask.n),
        "n_classes": np.array(len(task.classes)),
        "weights": head.weights,
        "biases": head.biases,
        "seed": np.array(ask.seed),
    }
    if name in NEEDS_SAMPLES:
        weights, biases = posterior(head, task.features[ask.labelled], seed=ask.seed)
        arrays |= {"sample_weights": weights, "sample_biases": biases}
    try:
        answer, seconds = worker.call(name, arrays, limit_s=limit_s)
    except PeerError as exc:
        raise StrategyError(f"with {len(ask.labelled)} labels: {exc}") from exc
    return check_choice(answer["chosen"], ask), seconds


def check_choice(chosen: Ints, ask: Ask) -> Ints:
    """Refuse a batch that is short, repeats itself, or names what has a label already."""
    if len(np.unique(chosen)) != ask.n or not np.isin(chosen, ask.rest).all():
        raise StrategyError(
            f"with {len(ask.labelled)} labels: gave {len(np.unique(chosen))} distinct items of the "
            f"pool where {ask.n} were asked for"
        )
    return chosen


def _accuracy(probs: NDArray[np.float64], task: Task) -> float:
    return float((probs.argmax(axis=1) == task.test_labels).mean())


def _worker(task: Task) -> PeerProcess:
    python = peer_python(CACHE / "peers-environment")
    search = f"{ROOT}:{ROOT / 'benchmarks'}"
    return PeerProcess(
        [python, "-m", "peering.worker"],
        {"rows": task.features},
        {"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )


def _facts(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Everything that a run depends on besides code."""
    return {
        "strategy": name,
        "seed": seed,
        "data": str(Path(arguments.data).resolve()),
        "backbone": arguments.full_backbone if name.startswith(FULL) else arguments.backbone,
        "initial": arguments.initial,
        "batch": arguments.batch,
        "budget": arguments.budget,
        "share": arguments.random_share if name.endswith(SHARE) else 0.0,
    }


def summarise(
    rows: dict[str, dict[int, dict[str, Any]]], failures: dict[str, str], budget: int
) -> dict[str, Any]:
    """Both parts, best row first; what did not get through is named with its reason.

    Each row has its paired difference to the best library strategy, and those of the plain part to
    the best row of all that choose without a random share.
    """
    complete = {name: runs for name, runs in rows.items() if name not in failures}
    table = {name: describe(runs, rows[RANDOM], budget) for name, runs in complete.items()}
    ordered = sorted(table, key=lambda name: -table[name]["auc"])
    plain = [name for name in ordered if not name.startswith(FULL)]
    library = next((name for name in plain if name in STRATEGIES), None)
    first = next(name for name in plain if not name.endswith(SHARE))
    for name, row in table.items():
        if library is not None:
            row["auc_minus_best_library"] = paired(areas(rows[name]), areas(rows[library]))
        if name in plain:
            row["auc_minus_first"] = paired(areas(rows[name]), areas(rows[first]))
    return {
        "best_library": library,
        "first": first,
        "plain": {name: table[name] for name in plain},
        "full": {name: table[name] for name in ordered if name not in plain},
        "failed": failures,
    }


def show(result: dict[str, Any]) -> None:
    """The tables, for people."""
    best = result["best_library"]
    print(f"{result['data']}, {result['seeds']} seeds; best strategy of a library: {best}")
    for part in ("full", "plain"):
        for name, row in result[part].items():
            gap = row.get("auc_minus_best_library")
            beside = "" if gap is None else f" {gap['mean']:+.4f} +- {gap['se']}"
            reached = [value for value in row["labels_saved_per_seed"] if value is not None]
            spread = f"{min(reached)} to {max(reached)}" if reached else "never reached"
            if 0 < len(reached) < row["seeds"]:
                spread += f", reached by {len(reached)} of {row['seeds']} seeds"
            print(
                f"{name:36} area {row['auc']:.4f} +- {row['auc_se']} final {row['final']:.4f} "
                f"saved {row['labels_saved']} ({spread}){beside} "
                f"{row['query_s']} s"
            )
    for name, reason in result["failed"].items():
        print(f"{name:36} no result: {reason}")


if __name__ == "__main__":
    main()
