"""Are planted label errors found? Ours beside cleanlab, average precision of the rankings.

    ./run bench label_errors --data ../shared/data/grocery --out FILE
    ./run bench label_errors --data ../shared/data/bccd --out FILE

Of a set with one label an image the training part is taken and a share of its labels is flipped to
another class at random. Ours and cleanlab's scores read the same out-of-fold probabilities: the
engine's as it is in a connected project, and those of plain softmax regression, such as cleanlab's
users have.

Of a set with boxes a share each is dropped, shifted by a third to half of its size, and given
another class; both read the engine's out-of-fold regions with their P(right).

Errors that were in the set before are not known, and count as no errors when they are found.
cleanlab runs in the environment of the other libraries. A run of a seed is kept in the benchmarks'
cache, for the code that made it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _curves import mean_and_error
from _kept import Kept
from _planted import Planted, flip, ranking_precision, spoil, verdict
from _replay import Task
from common import CACHE, ROOT, features_of, header, write
from detection import Images
from numpy.typing import NDArray
from peering.environment import peer_python, versions
from peering.label_errors import FILTERS, METHODS
from peering.process import PeerProcess, end_workers_when_terminated

from model.acquisition.base import mean_row
from model.backbones.pyramid import DEFAULT_PYRAMID, PYRAMIDS
from model.datasets import read_dataset
from model.detection.engine import BoxConfig
from model.detection.engine import fit as fit_boxes
from model.detection.types import Detections
from model.engine import EngineConfig, fit
from model.errors import ModelError
from model.heads.softmax import normalise
from model.label_errors.boxes import KINDS, OF_DRAWN, BoxErrors, find_box_errors
from model.label_errors.choices import find_choice_errors
from model.types import Labelled

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Row = dict[str, float | None]
Rows = dict[str, Row]

OURS, THEIRS = "doubtless", "cleanlab: "
ON_PLAIN = ", on plain softmax regression"
# cleanlab's default is the first. Calibrated regions seldom reach it, and in crowded images a box
# whose own region is below the second is compared with that of its neighbour.
SURE_AND_LIKELY = ((0.95, 0.5), (0.8, 0.5), (0.5, 0.5), (0.8, 0.1), (0.5, 0.1))
LIMIT_S = 1800.0
CODE = (
    "model",
    *(f"benchmarks/{name}.py" for name in ("label_errors", "_planted", "_replay", "detection")),
    *(f"benchmarks/peering/{name}.py" for name in ("environment", "label_errors", "estimators")),
)


def main() -> None:
    arguments = parse()
    end_workers_when_terminated()
    has_boxes = next(
        item.boxes is not None
        for item in read_dataset(arguments.data)
        if item.boxes is not None or item.label is not None
    )
    with _worker() as worker:
        facts, runs = (boxes if has_boxes else choices)(arguments, worker)
    result = header(
        benchmark="label_errors",
        data=Path(arguments.data).name,
        share=arguments.share,
        seeds=arguments.seeds,
        libraries={"cleanlab": versions()["cleanlab"]},
        **facts,
    )
    result["methods"] = summarise(runs)
    result["runs"] = runs
    show(result["methods"])
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set, with labels or with boxes")
    parser.add_argument("--seeds", type=int, default=5, help="of the errors and of the engine")
    parser.add_argument(
        "--share", type=float, default=0.05, help="of labels, or boxes of each kind"
    )
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0", help="for labels")
    parser.add_argument(
        "--pyramid", default=DEFAULT_PYRAMID, help="for boxes, one of: " + ", ".join(PYRAMIDS)
    )
    parser.add_argument("--out", type=Path, help="JSON file; without it the result is printed")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


Made = tuple[dict[str, Any], list[Rows]]  # facts of the header, and what each seed gave


def _each_seed(
    arguments: argparse.Namespace, facts: Mapping[str, Any], run: Callable[[int], Rows]
) -> list[Rows]:
    kept = Kept(CACHE / "label-errors", ROOT)
    runs = []
    for seed in range(arguments.seeds):
        say(f"seed {seed + 1} of {arguments.seeds}")
        of_seed = {**facts, "share": arguments.share, "seed": seed}
        runs.append(kept.run(of_seed, CODE, lambda seed=seed: run(seed)))  # type: ignore[misc]
        say(f"  image by image: {brief(runs[-1])}")
    return runs


def brief(rows: Rows) -> str:
    return ", ".join(f"{name} {row['ap']:.3f}" for name, row in rows.items())


def choices(arguments: argparse.Namespace, worker: PeerProcess) -> Made:
    """One label an image, some of them flipped."""
    task = Task.of(features_of(arguments.data, arguments.backbone))
    classes = len(task.classes)

    def run(seed: int) -> Rows:
        labels, is_wrong = flip(task.labels, classes, arguments.share, seed)
        everyone = np.ones(len(labels), bool)
        data = Labelled(task.features, labels, everyone)
        bundle = fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))
        assert bundle.out_of_fold_plain is not None
        known = {"": bundle.out_of_fold_plain}
        say("  engine fitted")
        plain = {
            "rows": normalise(task.features, mean_row(task.features)),
            "labels": labels,
            "n_classes": np.array(classes),
            "seed": np.array(seed),
        }
        answer, _ = worker.call("out of fold", plain, limit_s=LIMIT_S)
        known[ON_PLAIN] = answer["probs"]
        rows = {
            OURS + where: _of_choices(probs, labels, task.labels) for where, probs in known.items()
        }
        for where, probs in known.items():
            given = {"probs": probs, "labels": labels}
            theirs, _ = worker.call("cleanlab: choices", given, limit_s=LIMIT_S)
            for method in METHODS:
                rows[THEIRS + method + where] = {"ap": ranking_precision(theirs[method], is_wrong)}
            for name in FILTERS:
                row = rows[THEIRS + METHODS[0] + where]
                row.update(named(name, verdict(theirs[name], is_wrong)))
        return rows

    facts = {"backbone": arguments.backbone, "labels": len(task.labels), "classes": classes}
    about = {"data": str(Path(arguments.data).resolve()), **facts}
    return {"task": "classification", **facts}, _each_seed(arguments, about, run)


def _of_choices(probs: F64, labels: Ints, truth: Ints) -> Row:
    found, is_wrong = find_choice_errors(probs, labels), labels != truth
    mended = (found.suggested == truth)[found.is_issue & is_wrong]
    return {
        "ap": ranking_precision(found.score, is_wrong),
        "accuracy": float((probs.argmax(axis=1) == truth).mean()),
        "wrong": int(is_wrong.sum()),
        "wrong_expected": float((1.0 - found.score).sum()),
        "suggested_right": float(mended.mean()) if len(mended) else None,
        **named("confident_learning", verdict(found.is_issue, is_wrong)),
        **named("score_below_half", verdict(found.score < 0.5, is_wrong)),
    }


def boxes(arguments: argparse.Namespace, worker: PeerProcess) -> Made:
    """Boxes, some of them dropped, shifted, or of another class."""
    data = Images.of(arguments.data, arguments.pyramid)
    clean = data.take(data.set.pool)
    classes = len(data.set.classes)

    def run(seed: int) -> Rows:
        planted = spoil(clean.drawn, classes, arguments.share, seed)
        spoilt = replace(clean, drawn=[one.drawn for one in planted])
        bundle = fit_boxes(spoilt, data.set.classes, config=BoxConfig(seed=seed))
        regions = bundle.out_of_fold_found
        assert regions is not None
        say("  engine fitted")
        errors = find_box_errors(regions, spoilt.drawn)
        rows = {OURS: _ours(errors, planted)}
        arrays = _flat(regions, planted, classes)
        for sure, likely in SURE_AND_LIKELY:
            given = {**arrays, "sure": np.array(sure), "likely": np.array(likely)}
            answer, _ = worker.call("cleanlab: boxes", given, limit_s=LIMIT_S)
            name = f"{THEIRS}sure from {sure:g}, likely from {likely:g}"
            rows[name] = _theirs(answer, planted)
        return rows

    facts = {
        "pyramid": arguments.pyramid,
        "images": len(clean),
        "boxes": sum(len(one) for one in clean.drawn),
    }
    about = {"digest": data.set.digest, **facts}
    return {"task": "detection", **facts}, _each_seed(arguments, about, run)


def _ours(errors: Sequence[BoxErrors], planted: Sequence[Planted]) -> Row:
    image = np.array([one.score for one in errors])
    of_kind = {kind: np.array([one.without(kind) for one in errors]) for kind in KINDS}
    per_box = 1.0 - np.concatenate([one.of_drawn for one in errors])
    row = _measured(image, of_kind, dict(zip(OF_DRAWN, per_box.T, strict=True)), planted)
    expected = {
        "overlooked": sum(float(one.overlooked.sum()) for one in errors),
        **dict(zip(OF_DRAWN, (1.0 - per_box).sum(axis=0).tolist(), strict=True)),
    }
    truth = wrong_images(planted)["any"]
    row.update({f"expected_{kind}": value for kind, value in expected.items()})
    row.update(named("issue", verdict(image < 0.5, truth)))
    row["wrong_images"] = int(truth.sum())
    row["wrong_images_expected"] = float((1.0 - image).sum())
    return row


def _theirs(answer: Mapping[str, Any], planted: Sequence[Planted]) -> Row:
    of_kind = {kind: answer[kind] for kind in ("overlooked", "badly placed", "swapped")}
    per_box = {kind: answer[f"box {kind}"] for kind in ("badly placed", "swapped")}
    row = _measured(answer["image"], of_kind, per_box, planted)
    row.update(named("issue", verdict(answer["issue"], wrong_images(planted)["any"])))
    return row


def _measured(
    image: F64,
    of_kind: Mapping[str, F64],
    per_box: Mapping[str, F64],
    planted: Sequence[Planted],
) -> Row:
    """Average precision of all scores; each kind is judged by its own planted errors alone."""
    wrong = wrong_images(planted)
    boxes = {
        "badly placed": np.concatenate([one.shifted for one in planted]),
        "swapped": np.concatenate([one.swapped for one in planted]),
    }
    row: Row = {"ap": ranking_precision(image, wrong["any"]), "random_order": wrong["any"].mean()}
    for kind in ("overlooked", "badly placed", "swapped"):
        row[f"ap_{kind}"] = ranking_precision(of_kind[kind], wrong[kind])
    for kind, is_wrong in boxes.items():
        row[f"ap_box_{kind}"] = ranking_precision(per_box[kind], is_wrong)
    return row


def wrong_images(planted: Sequence[Planted]) -> dict[str, Bools]:
    """``(N,)`` which images have a planted error of each kind, and of any."""
    found = {
        "overlooked": np.array([len(one.dropped) > 0 for one in planted]),
        "badly placed": np.array([bool(one.shifted.any()) for one in planted]),
        "swapped": np.array([bool(one.swapped.any()) for one in planted]),
    }
    return found | {"any": np.any(list(found.values()), axis=0)}


def _flat(
    regions: Sequence[Detections], planted: Sequence[Planted], classes: int
) -> dict[str, NDArray[Any]]:
    """Boxes in pixels of their images, those of all images after each other."""
    sides = [np.tile(one.size, 2) for one in regions]
    return {
        "boxes": np.concatenate([d.boxes * s for d, s in zip(regions, sides, strict=True)]),
        "box_labels": np.concatenate([one.label for one in regions]),
        "scores": np.concatenate([one.p_right for one in regions]),
        "counts": np.array([len(one) for one in regions]),
        "drawn": np.concatenate(
            [p.drawn.boxes * s for p, s in zip(planted, sides, strict=True)]
        ),
        "drawn_labels": np.concatenate([one.drawn.labels for one in planted]),
        "drawn_counts": np.array([len(one.drawn) for one in planted]),
        "n_classes": np.array(classes),
    }  # fmt: skip


def named(prefix: str, row: Mapping[str, float]) -> Row:
    return {f"{prefix}_{key}": value for key, value in row.items()}


def summarise(runs: Sequence[Rows]) -> dict[str, Any]:
    """Of each method the mean and standard error of what was measured, and ours less its AP."""
    result: dict[str, Any] = {}
    for name in runs[0]:
        row: dict[str, Any] = {}
        for key in runs[0][name]:
            values = [run[name][key] for run in runs]
            row[key] = _over([value for value in values if value is not None])
            ours = [run[OURS].get(key) for run in runs]
            if name != OURS and key.startswith("ap"):
                pairs = zip(ours, values, strict=True)
                row[f"{key}_ours_less"] = _over(
                    [a - b for a, b in pairs if a is not None and b is not None]
                )
        result[name] = row
    return result


def _over(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    mean, error = mean_and_error(values)
    return {"mean": round(mean, 4), "se": None if error is None else round(error, 4)}


def show(methods: Mapping[str, Any]) -> None:
    for name, row in methods.items():
        parts = [
            f"{key} {value['mean']:.3f} +- {value['se'] or 0.0:.3f}"
            for key, value in row.items()
            if value is not None and key.startswith("ap") and not key.endswith("less")
        ]
        say(f"{name}: " + ", ".join(parts))


def _worker() -> PeerProcess:
    search = f"{ROOT}:{ROOT / 'benchmarks'}"
    return PeerProcess(
        [peer_python(CACHE / "peers-environment"), "-m", "peering.worker"],
        environment={"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench label_errors: {exc}") from None
