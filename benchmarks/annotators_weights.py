"""Does a fit gain by counting doubtful labels less? Decided on training parts.

    ./run bench annotators_weights --data ../shared/data/grocery --out FILE

The people of `annotators` label some images of the training part of a set, drawn by chance or the
most doubtful ones; a third of that part, by its true labels, judges what is fitted on theirs. The
test part is not looked at. Labels are chosen by majority or by a vote by quality, and count evenly,
or each as the probability that it is right: by people alone, by people and the out-of-fold model
together, or by these only where an image has several labels, as in the product. How far the
accuracy that a fit finds out of fold is from the one on the third tells whether anything leaks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _kept import Kept
from _people import Answers, ask, misleading
from _replay import Task
from _settings import over, show
from annotators import ERRORS, SHARED, vote
from common import CACHE, ROOT, features_of, header, write
from numpy.typing import NDArray

from model.annotators.base import vote_weight
from model.annotators.likelihood import weigh
from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.errors import ModelError
from model.types import Labelled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = dict[str, dict[str, float | None]]

FIRST = 100  # true labels that the doubtful ones are chosen by
CHOSEN = ("by chance", "doubtful")
MAJORITY, VOTE = "majority", "vote by quality"
BY_PEOPLE, BY_BOTH, TRUTH = f"{VOTE}, P by people", f"{VOTE}, P by people and model", "true labels"
BY_BOTH_IF_SHARED = f"{VOTE}, P by people and model of images with several labels"
CODE = ("model", *(f"benchmarks/{n}.py" for n in ("annotators", "annotators_weights", "_people")))


def main() -> None:
    arguments = parse()
    task = Task.of(features_of(arguments.data, arguments.backbone))
    kept = Kept(CACHE / "annotators_weights", ROOT)
    facts = {
        "backbone": arguments.backbone, "images": len(task.labels), "classes": len(task.classes),
        "labels": arguments.labels, "propagation": arguments.propagation,
    }  # fmt: skip
    about = {"data": str(Path(arguments.data).resolve()), **facts}
    result = header(
        benchmark="annotators_weights", data=Path(arguments.data).name, seeds=arguments.seeds,
        **facts,
    )  # fmt: skip
    result["settings"] = {}
    for chosen, shared, errors in product(CHOSEN, SHARED, ERRORS):
        runs = []
        for seed in range(arguments.seeds):
            case: dict[str, Any] = {
                "chosen": chosen,
                "shared": shared,
                "errors": errors,
                "seed": seed,
            }
            run = partial(
                one, task, labels=arguments.labels, propagation=arguments.propagation, **case
            )
            runs.append(kept.run({**about, **case}, CODE, run))
        name = f"{chosen}, {shared}, {errors}"
        result["settings"][name] = {"methods": summarise(runs), "runs": runs}
        show(name, result["settings"][name]["methods"])
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set with one label an image")
    parser.add_argument("--seeds", type=int, default=10, help="of split, people and engine")
    parser.add_argument("--labels", type=int, default=400, help="images that are labelled")
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--propagation", default="auto", choices=("auto", "off"))
    parser.add_argument("--out", type=Path, help="JSON file; without it the result is printed")
    return parser.parse_args()


def one(
    task: Task, *, labels: int, chosen: str, shared: str, errors: str, seed: int, propagation: str
) -> Rows:
    """How well a fit on people's labels does on the other images, by each way to weigh them."""
    everything, classes = task.labels, len(task.classes)
    config = EngineConfig(seed=seed, propagation=propagation)
    order = np.random.default_rng(seed).permutation(len(everything))
    others, pool = order[: len(order) // 3], order[len(order) // 3 :]
    begun = pool[:FIRST]
    if chosen == "doubtful":
        start = Labelled(task.features[begun], everything[begun], np.ones(FIRST, bool))
        sure = fit(start, task.classes, pool=task.features, config=config)
        doubt = -sure.predict(task.features[pool[FIRST:]]).margin
        pool = np.append(begun, pool[FIRST:][np.argsort(-doubt, kind="stable")])
    used = pool[:labels]
    truth = everything[used]
    hard = misleading(task.features, everything, classes)[used] if errors == "misled" else None
    given = ask(truth, classes, shared=SHARED[shared], misleading=hard, seed=seed)

    def fitted(given_labels: Ints, weights: F64 | None = None) -> Bundle:
        data = Labelled(task.features[used], given_labels, np.ones(labels, bool), weights)
        return fit(data, task.classes, pool=task.features, config=config)

    def judged(bundle: Bundle, given_labels: Ints) -> dict[str, float | None]:
        probs = bundle.predict(task.features[others]).probs
        true = everything[others]
        of_truth = probs[np.arange(len(others)), true]
        is_right = probs.argmax(axis=1) == true
        assert bundle.out_of_fold_probs is not None
        out_of_fold = float((bundle.out_of_fold_probs.argmax(axis=1) == truth).mean())
        return {
            "accuracy": float(is_right.mean()),
            "macro_accuracy": float(np.mean([is_right[true == n].mean() for n in np.unique(true)])),
            "out_of_fold_less_accuracy": out_of_fold - float(is_right.mean()),
            "nll": float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
            "labels_wrong": float((given_labels != truth).mean()),
        }

    majority = vote(given, np.ones(int(given.person.max()) + 1), classes, labels)
    first = fitted(majority)
    assert first.out_of_fold_probs is not None
    crowd = weigh(first.out_of_fold_probs, given.task, given.person, given.label)
    quality = np.array([one.quality for one in crowd.annotators], np.float64)
    voted = vote(given, np.array([vote_weight(q, classes) for q in quality]), classes, labels)
    by_people = probability(given, quality, classes, labels)[np.arange(labels), voted]
    by_both = crowd.probs[np.arange(labels), voted]
    is_shared = np.bincount(given.task, minlength=labels) > 1
    if_shared = np.where(is_shared, by_both, 1.0)
    return {
        MAJORITY: judged(first, majority),
        VOTE: judged(fitted(voted), voted),
        BY_PEOPLE: judged(fitted(voted, by_people), voted),
        BY_BOTH: judged(fitted(voted, by_both), voted),
        BY_BOTH_IF_SHARED: judged(fitted(voted, if_shared), voted),
        TRUTH: judged(fitted(truth), truth),
    }


def probability(given: Answers, quality: F64, classes: int, n: int) -> F64:
    """``(n, C)`` what people alone say of the truth, every class as likely beforehand."""
    gain = np.log(quality) - np.log((1.0 - quality) / max(classes - 1, 1))
    logits = np.zeros((n, classes))
    np.add.at(logits, (given.task, given.label), gain[given.person])
    weights: F64 = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def summarise(runs: Sequence[Rows]) -> dict[str, Any]:
    """Mean and standard error over the seeds, and of the difference to the vote by quality."""
    result: dict[str, Any] = {}
    for name in runs[0]:
        result[name] = {key: over([run[name][key] for run in runs]) for key in runs[0][name]}
        if name != VOTE:
            for key in ("accuracy", "macro_accuracy", "nll", "out_of_fold_less_accuracy"):
                pairs = [(run[name][key], run[VOTE][key]) for run in runs]
                result[name][f"{key}_less_vote"] = over(
                    [a - b for a, b in pairs if a is not None and b is not None]
                )
    return result


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench annotators_weights: {exc}") from None
