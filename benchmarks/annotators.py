"""Is it told how good people are, and what is right where they differ? Ours beside cleanlab.

    ./run bench annotators --data ../shared/data/grocery --out FILE

Five simulated people label the training part of a set with one label an image: three good ones, one
careless one, and one who takes two classes for each other. All images are labelled by two or three,
or a fifth of them are; people err independently, or are misled by the same hard images, towards the
class they look like, as a model is.

The engine is fitted on the majority's labels. All methods are given its out-of-fold probabilities
and the labels: ours, CROWDLAB as the paper has it, and cleanlab's CROWDLAB, which runs in the
environment of the other libraries. A vote by quality is what the next training starts from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _kept import Kept
from _people import Answers, ask, misleading
from _replay import Task
from _settings import over, show
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray
from peering.environment import peer_python, versions
from peering.process import PeerProcess, end_workers_when_terminated

from model.annotators.base import Crowd, vote_weight
from model.annotators.crowdlab import crowdlab
from model.annotators.likelihood import weigh
from model.engine import EngineConfig, fit
from model.errors import ModelError
from model.types import Labelled

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = dict[str, float | None]
Rows = dict[str, Row]

SHARED = {"all shared": 1.0, "a fifth shared": 0.2}
ERRORS = ("independent", "misled")
OURS, PAPER, THEIRS = "doubtless", "CROWDLAB (ours)", "cleanlab (CROWDLAB)"
NEWEST, VOTE = "majority, newest of equals", "vote by quality"
SHOWN = ("consensus_error", "quality_error", "brier", "covered")
LIMIT_S = 600.0
CODE = (
    "model",
    *(f"benchmarks/{name}.py" for name in ("annotators", "_people", "_replay")),
    *(f"benchmarks/peering/{name}.py" for name in ("environment", "annotators")),
)


def main() -> None:
    arguments = parse()
    end_workers_when_terminated()
    task = Task.of(features_of(arguments.data, arguments.backbone))
    kept = Kept(CACHE / "annotators", ROOT)
    facts = {
        "backbone": arguments.backbone, "images": len(task.labels), "classes": len(task.classes),
    }  # fmt: skip
    about = {"data": str(Path(arguments.data).resolve()), **facts}
    result = header(
        benchmark="annotators", data=Path(arguments.data).name, seeds=arguments.seeds,
        libraries={"cleanlab": versions()["cleanlab"]}, **facts,
    )  # fmt: skip
    result["settings"] = {}
    with peer_worker() as worker:
        for shared in SHARED:
            for errors in ERRORS:
                runs = []
                for seed in range(arguments.seeds):
                    given = {**about, "shared": shared, "errors": errors, "seed": seed}
                    run = partial(one, task, worker, shared, errors, seed)
                    runs.append(kept.run(given, CODE, run))
                name = f"{shared}, {errors}"
                result["settings"][name] = {"methods": summarise(runs), "runs": runs}
                show(name, result["settings"][name]["methods"], SHOWN)
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set with one label an image")
    parser.add_argument("--seeds", type=int, default=5, help="of the people and of the engine")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--out", type=Path, help="JSON file; without it the result is printed")
    return parser.parse_args()


def one(task: Task, worker: PeerProcess, shared: str, errors: str, seed: int) -> Rows:
    """What every method makes of the labels of one draw."""
    truth, classes = task.labels, len(task.classes)
    hard = misleading(task.features, truth, classes) if errors == "misled" else None
    given = ask(truth, classes, shared=SHARED[shared], misleading=hard, seed=seed)
    newest = vote(given, np.ones(int(given.person.max()) + 1), classes, len(truth))
    data = Labelled(task.features, newest, np.ones(len(truth), bool))
    bundle = fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))
    probs = bundle.out_of_fold_probs
    assert probs is not None
    people = given.quality(truth)
    several = np.bincount(given.task, minlength=len(truth)) > 1
    rows: Rows = {
        NEWEST: {
            "consensus_error": _error(newest, truth, several),
            "model_error": float((probs.argmax(axis=1) != truth).mean()),
            "images_shared": int(several.sum()),
        }
    }
    for name, method in ((OURS, weigh), (PAPER, crowdlab)):
        found = method(probs, given.task, given.person, given.label)
        quality = np.array([one.quality for one in found.annotators], np.float64)
        rows[name] = _measured(found.consensus, found.p_right, quality, truth, several, people)
        rows[name]["covered"] = _covered(found, people)
        weights = np.array([vote_weight(q, classes) for q in quality])
        chosen = vote(given, weights, classes, len(truth))
        rows[f"{VOTE}, {name}"] = {"consensus_error": _error(chosen, truth, several)}
    arrays = {"probs": probs, "labels": given.table(len(truth))}
    theirs, _ = worker.call("cleanlab: annotators", arrays, limit_s=LIMIT_S)
    rows[THEIRS] = _measured(
        theirs["consensus"], theirs["p_right"], theirs["quality"], truth, several, people
    )
    return rows


def vote(given: Answers, weights: F64, classes: int, n: int) -> Ints:
    """``(n,)`` the label with most weight, the newest among equals."""
    votes = np.zeros((n, classes))
    np.add.at(votes, (given.task, given.label), weights[given.person])
    newest = np.zeros((n, classes))
    newest[given.task, given.label] = np.arange(1, len(given.task) + 1)
    best = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    return np.where(best, newest, -1.0).argmax(axis=1)


def _error(consensus: Ints, truth: Ints, where: NDArray[np.bool_]) -> float:
    return float((consensus != truth)[where].mean())


def _measured(
    consensus: Ints, p_right: F64, quality: F64, truth: Ints, where: NDArray[np.bool_], people: F64
) -> Row:
    is_right = (consensus == truth)[where]
    p = p_right[where]
    return {
        "consensus_error": float(1.0 - is_right.mean()),
        "brier": float(((p - is_right) ** 2).mean()),
        "wrong_expected_less_wrong": float(is_right.mean() - p.mean()),
        "quality_error": float(np.abs(quality - people).mean()),
        "quality_bias": float((quality - people).mean()),
        "careless_is_last": float(quality.argmin() == people.argmin()),
    }


def _covered(found: Crowd, people: F64) -> float:
    """Share of people whose interval holds the share of their labels that is right."""
    pairs = zip(found.annotators, people, strict=True)
    return float(np.mean([(p.low or 0.0) <= q <= (p.high or 0.0) for p, q in pairs]))


def summarise(runs: Sequence[Rows]) -> dict[str, Any]:
    """Mean and standard error over the seeds; of other methods' error also ours less theirs."""
    result: dict[str, Any] = {}
    for name in runs[0]:
        result[name] = {key: over([run[name][key] for run in runs]) for key in runs[0][name]}
        if name in (PAPER, THEIRS):
            for key in ("consensus_error", "quality_error", "brier"):
                pairs = [(run[OURS][key], run[name][key]) for run in runs]
                result[name][f"{key}_ours_less"] = over(
                    [a - b for a, b in pairs if a is not None and b is not None]
                )
    return result


def peer_worker() -> PeerProcess:
    search = f"{ROOT}:{ROOT / 'benchmarks'}"
    return PeerProcess(
        [peer_python(CACHE / "peers-environment"), "-m", "peering.worker"],
        environment={"PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
    )


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench annotators: {exc}") from None
