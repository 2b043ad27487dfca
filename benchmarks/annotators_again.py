"""Are the right images labelled once more, by the right people? Ours beside cleanlab's ActiveLab.

    ./run bench annotators_again --data ../shared/data/grocery --out FILE

The people of `annotators` label some images of the training part of a set; the engine is fitted on
the majority's labels. A fifth of the images then get one more label: those that are least sure to
be right by people and model together, as `doubtless annotators --again` has them; those of the
lowest ActiveLab score, by cleanlab in the environment of the other libraries; or any. It is given
by somebody who has not labelled the image: anybody, or the one of the best quality, by the lower
end of its interval. Reported is the share of all images whose most probable label, estimated anew
from all labels and the same model, is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _kept import Kept
from _people import Answers, ask, everybody, misleading
from _replay import Task
from _settings import over
from annotators import ERRORS, LIMIT_S, SHARED, peer_worker, vote
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray
from peering.environment import versions
from peering.process import PeerProcess, end_workers_when_terminated

from model.annotators.base import Crowd
from model.annotators.likelihood import weigh
from model.engine import EngineConfig, fit
from model.errors import ModelError
from model.types import Labelled

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = dict[str, float]

LABELS, AGAIN = 400, 80
BEFORE, OURS, THEIRS, ANY = "before", "least sure", "ActiveLab (cleanlab)", "any images"
ANYBODY, BEST = "anybody", "the best"
CODE = (
    "model",
    *(f"benchmarks/{name}.py" for name in ("annotators", "annotators_again", "_people")),
    *(f"benchmarks/peering/{name}.py" for name in ("environment", "annotators")),
)


def main() -> None:
    arguments = parse()
    end_workers_when_terminated()
    task = Task.of(features_of(arguments.data, arguments.backbone))
    kept = Kept(CACHE / "annotators_again", ROOT)
    facts = {
        "backbone": arguments.backbone, "images": len(task.labels), "classes": len(task.classes),
        "labels": LABELS, "again": AGAIN,
    }  # fmt: skip
    about = {"data": str(Path(arguments.data).resolve()), **facts}
    result = header(
        benchmark="annotators_again", data=Path(arguments.data).name, seeds=arguments.seeds,
        libraries={"cleanlab": versions()["cleanlab"]}, **facts,
    )  # fmt: skip
    result["settings"] = {}
    with peer_worker() as peer:
        for shared, errors in product(SHARED, ERRORS):
            runs = []
            for seed in range(arguments.seeds):
                run = partial(one, task, peer, shared, errors, seed)
                case = {"shared": shared, "errors": errors, "seed": seed}
                runs.append(kept.run({**about, **case}, CODE, run))
            name = f"{shared}, {errors}"
            result["settings"][name] = {"wrong": summarise(runs), "runs": runs}
            show(name, result["settings"][name]["wrong"])
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set with one label an image")
    parser.add_argument("--seeds", type=int, default=20, help="of images, people and engine")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--out", type=Path, help="JSON file; without it the result is printed")
    return parser.parse_args()


def one(task: Task, peer: PeerProcess, shared: str, errors: str, seed: int) -> Row:
    """Share of wrong labels before, and after each way to ask again."""
    classes = len(task.classes)
    rng = np.random.default_rng(seed)
    used = rng.permutation(len(task.labels))[:LABELS]
    truth, features = task.labels[used], task.features[used]
    hard = misleading(task.features, task.labels, classes)[used] if errors == "misled" else None
    given = ask(truth, classes, shared=SHARED[shared], misleading=hard, seed=seed)
    more = everybody(truth, classes, misleading=hard, seed=10_000 + seed)
    majority = vote(given, np.ones(more.shape[1]), classes, LABELS)
    data = Labelled(features, majority, np.ones(LABELS, bool))
    bundle = fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))
    probs = bundle.out_of_fold_probs
    assert probs is not None
    found = weigh(probs, given.task, given.person, given.label)
    arrays = {"probs": probs, "labels": given.table(LABELS)}
    theirs, _ = peer.call("cleanlab: again", arrays, limit_s=LIMIT_S)
    orders = {
        OURS: np.argsort(found.p_right, kind="stable"),
        THEIRS: np.argsort(theirs["score"], kind="stable"),
        ANY: rng.permutation(LABELS),
    }
    asked = {ANYBODY: by_chance(given, more.shape[1], rng), BEST: best(given, found)}
    wrong: Row = {BEFORE: float((found.consensus != truth).mean())}
    for (order, images), (whom, people) in product(orders.items(), asked.items()):
        chosen = images[:AGAIN]
        after = weigh(
            probs,
            np.append(given.task, chosen),
            np.append(given.person, people[chosen]),
            np.append(given.label, more[chosen, people[chosen]]),
        )
        wrong[f"{order}, {whom}"] = float((after.consensus != truth).mean())
    return wrong


def by_chance(given: Answers, people: int, rng: np.random.Generator) -> Ints:
    """``(N,)`` somebody who has not labelled each image."""
    return _first(given, rng.random((LABELS, people)))


def best(given: Answers, found: Crowd) -> Ints:
    """``(N,)`` who is best of those who have not, as `backend.again.whom_to_ask` has it."""
    low = np.array([-1.0 if one.low is None else one.low for one in found.annotators])
    return _first(given, np.tile(low, (LABELS, 1)))


def _first(given: Answers, liking: F64) -> Ints:
    liking = liking.copy()
    liking[given.task, given.person] = -np.inf
    best: Ints = liking.argmax(axis=1)
    return best


def summarise(runs: Sequence[Row]) -> dict[str, Any]:
    """Mean and standard error over the seeds, and of ours less each other for the same people."""
    result: dict[str, Any] = {}
    for name in runs[0]:
        result[name] = over([run[name] for run in runs])
        order, _, whom = name.partition(", ")
        if order in (THEIRS, ANY):
            pairs = [(run[f"{OURS}, {whom}"], run[name]) for run in runs]
            result[name]["ours_less"] = over([a - b for a, b in pairs])
    result[f"{OURS}, {BEST}"]["less_anybody"] = over(
        [run[f"{OURS}, {BEST}"] - run[f"{OURS}, {ANYBODY}"] for run in runs]
    )
    return result


def show(name: str, found: Mapping[str, Any]) -> None:
    print(name, file=sys.stderr)
    for method, row in found.items():
        more = [f"; {key} {value}" for key, value in row.items() if isinstance(value, dict)]
        print(f"  {method}: {row['mean']:.4f} +- {row['se'] or 0.0:.4f}", *more, file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench annotators_again: {exc}") from None
