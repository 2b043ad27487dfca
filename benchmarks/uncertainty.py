"""Is the score the probability of being right? Every estimator, ours and other libraries'.

    ./run bench uncertainty --data ../shared/data/grocery --out FILE
    ./run bench uncertainty --costs --out FILE

Labels are chosen as in the product: batches by `auto` with 20 % drawn at random, on the features
of two backbones, by the engine with its defaults. At each number of labels all methods are fitted
on the same labels and judged on the same items: a random half of what is left of the pool (or
another share), and, apart from that, the set's own test images. `--set-aside` adds a third place:
random items of the pool, taken out before anything was chosen; what is left of a pool is easier
than the pool was, since the doubtful images are labelled. The libraries run in an
environment of their own.

With it goes a network that is overfitted on purpose: what its plain confidence is worth, and what
the engine, with its defaults, publishes when that network is the head. `--costs` measures time
instead, on made-up features.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _costs import measure_costs
from _kept import Kept
from _measured import error_auroc_of_parts, judge
from _overfitted import Overfitted
from _plain import fit_plain
from _replay import BATCH, Task, choose_labels
from _summary import OURS, OVERFITTED, PLAIN, PUBLISHED, show, summarise
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray
from peering.environment import peer_python, versions
from peering.estimators import HANDLERS
from peering.process import PeerError, PeerProcess, end_workers_when_terminated

from model.acquisition.base import mean_row
from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.heads.propagated import PropagatedEstimator
from model.heads.softmax import Basis, normalise
from model.types import Labelled
from model.uncertainty import ESTIMATORS

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Places = dict[str, tuple[F32, Ints]]

OWN = ("uncertainty", "_measured", "_overfitted", "_plain", "_replay")
PEERING = tuple(f"peering/{name}" for name in ("environment", "estimators", "strategies"))
CODE = ("model", *(f"benchmarks/{name}.py" for name in OWN + PEERING))


def main() -> None:
    arguments = parse()
    end_workers_when_terminated()
    if arguments.costs:
        facts, found = {"benchmark": "uncertainty-costs"}, measure_costs(arguments.turns)
    else:
        facts, found = quality(arguments)
    write(header(**facts) | found, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="'digits' or a labelled folder")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--labels", default="100,200,400", help="numbers of labels, with commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--random-share", type=float, default=0.2)
    parser.add_argument(
        "--measured-share", type=float, default=0.5, help="of what is left of the pool, at random"
    )
    parser.add_argument(
        "--set-aside", type=float, default=0.0, help="share of the pool to judge on, never chosen"
    )
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a library may take")
    parser.add_argument("--costs", action="store_true", help="measure time instead")
    parser.add_argument("--turns", type=int, default=15, help="of the costs")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def quality(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """All methods at all numbers of labels."""
    ESTIMATORS.setdefault(OVERFITTED, Overfitted())
    whole = Task.of(features_of(arguments.data, arguments.backbone))
    counts = sorted({min(int(n), len(whole.labels) // 2) for n in arguments.labels.split(",")})
    kept = Kept(CACHE / "uncertainty", ROOT)
    runs: dict[int, list[dict[str, Any]]] = {n: [] for n in counts}
    with _worker() as worker:
        for seed in range(arguments.seeds):
            task, aside = set_aside(whole, arguments.set_aside, seed)
            for n, chosen, random in choose_labels(task, counts, arguments.random_share, seed):
                begin = time.perf_counter()
                places = _places(task, aside, chosen, arguments.measured_share, seed)
                make = partial(one_run, task, chosen, random, places, seed, worker, arguments.limit)
                runs[n].append(kept.run(_facts(arguments, n, seed), CODE, make))
                say(f"seed {seed} {n} labels ({time.perf_counter() - begin:.0f} s)")
    result = {str(n): summarise(found) for n, found in runs.items()}
    show(result)
    facts = {
        "benchmark": "uncertainty",
        "task": "classification",
        "data": Path(arguments.data).name,
        "backbone": arguments.backbone,
        "acquisition": "auto",
        "batch": BATCH,
        "random_share": arguments.random_share,
        "measured_share": arguments.measured_share,
        "set_aside": arguments.set_aside,
        "seeds": arguments.seeds,
        "published": PUBLISHED,
        "libraries": versions(),
    }
    return facts, {"labels": result}


def set_aside(task: Task, share: float, seed: int) -> tuple[Task, tuple[F32, Ints]]:
    """Divide the pool at random: what may be chosen, and features and labels to judge on."""
    order = np.random.default_rng(seed + 20_000).permutation(len(task.labels))
    size = round(share * len(order))
    out, kept = np.sort(order[:size]), np.sort(order[size:])
    left = replace(task, features=task.features[kept], labels=task.labels[kept])
    return left, (task.features[out], task.labels[out])


def _places(task: Task, aside: tuple[F32, Ints], chosen: Ints, share: float, seed: int) -> Places:
    """Where all are judged: features and labels by the name of the place."""
    rest = np.setdiff1d(np.arange(len(task.labels)), chosen)
    size = max(1, round(share * len(rest)))
    drawn = np.random.default_rng(seed + 10_000).permutation(rest)[:size]
    places = {"pool": (task.features[drawn], task.labels[drawn])}
    if len(aside[1]):
        places["aside"] = aside
    return places | {"test": (task.test_features, task.test_labels)}


def one_run(
    task: Task,
    chosen: Ints,
    random: Any,
    places: Places,
    seed: int,
    worker: PeerProcess,
    limit_s: float,
) -> dict[str, Any]:
    """All methods on one set of labels: measures by method and place, and the scores published."""
    data = Labelled(task.features[chosen], task.labels[chosen], random)
    measured: dict[str, Any] = {place: {} for place in places}
    scores: dict[str, Any] = {}
    for name in ESTIMATORS:
        config = EngineConfig(estimator=name, seed=seed)
        bundle = fit(data, task.classes, pool=task.features, config=config)
        for place, (features, labels) in places.items():
            found = bundle.predict(features)
            own = judge(found.probs, found.p_right, labels) | error_auroc_of_parts(found, labels)
            measured[place][OURS + name] = own
            kept = {name: (found.p_right, found.label == labels)}
            if name == OVERFITTED:
                raw = network_alone(bundle, features)
                measured[place][PLAIN] = judge(raw, raw.max(axis=1), labels)
                kept[PLAIN] = raw.max(axis=1), raw.argmax(axis=1) == labels
            if name in (PUBLISHED, OVERFITTED):
                scores.setdefault(place, {}).update(
                    (each, {"p_right": p_right.round(6).tolist(), "right": right.tolist()})
                    for each, (p_right, right) in kept.items()
                )
        if name == OVERFITTED:
            on_itself = network_alone(bundle, data.features).argmax(axis=1)
            scores["overfitted_train_accuracy"] = float((on_itself == data.labels).mean())
    failed = _peers(task, data, places, seed, worker, limit_s, measured)
    return {"measured": measured, "scores": scores, "failed": failed}


def network_alone(bundle: Bundle, features: F32) -> NDArray[np.float64]:
    """``(N, C)`` what a version's estimator says without calibration and label propagation."""
    estimator = bundle.estimator
    head = estimator.head if isinstance(estimator, PropagatedEstimator) else estimator
    return replace(bundle, estimator=head).sample(features).mean(axis=1)


def _peers(
    task: Task,
    data: Labelled,
    places: Places,
    seed: int,
    worker: PeerProcess,
    limit_s: float,
    measured: dict[str, Any],
) -> dict[str, str]:
    """Add what the libraries give to `measured`; returns which failed and why."""
    centre = mean_row(task.features)
    rows = normalise(data.features, centre)
    judged = normalise(np.concatenate([features for features, _ in places.values()]), centre)
    head = fit_plain(rows, data.labels, len(task.classes))
    axes = Basis.of(rows).axes.astype(np.float32)
    arrays = {
        "rows": rows,
        "labels": data.labels,
        "n_classes": np.array(len(task.classes)),
        "seed": np.array(seed),
        "judged": judged,
        "span_rows": in_span(rows, axes),
        "span_judged": in_span(judged, axes),
        "span_weights": np.vstack([axes.T @ head.weights, np.zeros_like(head.weights[:1])]),
        "weights": head.weights,
        "biases": head.biases,
    }
    failed: dict[str, str] = {}
    for name in HANDLERS:
        try:
            answer, _ = worker.call(name, arrays, limit_s=limit_s)
        except PeerError as exc:
            failed[name] = str(exc)
            continue
        start = 0
        for place, (_, labels) in places.items():
            probs = answer["probs"][start : start + len(labels)]
            measured[place][name] = judge(probs, probs.max(axis=1), labels)
            start += len(labels)
    return failed


def in_span(rows: F32, axes_DR: F32) -> F32:
    """Coordinates along orthonormal axes, and the length of what they leave: ``(N, R + 1)``."""
    inside = rows @ axes_DR
    left = np.einsum("nd,nd->n", rows, rows) - np.einsum("nr,nr->n", inside, inside)
    return np.column_stack([inside, np.sqrt(np.maximum(left, 0.0))]).astype(np.float32)


def _worker() -> PeerProcess:
    search = f"{ROOT}:{ROOT / 'benchmarks'}"
    return PeerProcess(
        [peer_python(CACHE / "peers-environment"), "-m", "peering.worker"],
        environment={"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )


def _facts(arguments: argparse.Namespace, n: int, seed: int) -> dict[str, Any]:
    return {
        "data": str(Path(arguments.data).resolve()),
        "backbone": arguments.backbone,
        "labels": n,
        "share": arguments.random_share,
        "measured": arguments.measured_share,
        "aside": arguments.set_aside,
        "seed": seed,
    }


if __name__ == "__main__":
    main()
