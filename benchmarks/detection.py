"""Detection: what a head finds, how fast, how far its scores can be trusted, and what to ask next.

    ./run bench detection --data ../shared/data/bccd --labels 10,100,all --out FILE
    ./run bench detection --data ../shared/data/bccd --active 10,20,30,40,60 --seeds 5 --out FILE
    ./run bench detection --data ../shared/data/bccd --costs --out FILE

Random labels of the set's training part, fitted by the engine with its defaults and judged on the
set's own test part, which nothing was chosen by. ``--active`` compares rules instead: every rule
of a seed begins with the same random images. ``--costs`` measures what predicting takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from _curves import areas, describe, mean_and_error, paired
from _kept import Kept
from _measured import ece_if_perfect, over_seeds
from common import CACHE, ROOT, header, write
from numpy.typing import NDArray

from model.backbones.pyramid import DEFAULT_PYRAMID, PYRAMIDS, Pyramid, load_pyramid
from model.calibration.metrics import error_auroc
from model.datasets import Item, read_dataset
from model.detection.acquisition import (
    BOX_ACQUISITIONS,
    PoolBuilder,
    select_images,
)
from model.detection.bundle import BoxBundle, as_found, detections_of, shown
from model.detection.calibration import SHOWN
from model.detection.context import Seen
from model.detection.engine import BoxConfig, fit, fit_head
from model.detection.evaluate import (
    average_precision,
    detection_ece,
    match,
    outcome,
    recall_of_missed,
    region_error_auroc,
)
from model.detection.head import Head
from model.detection.maps import ImageMaps, MapStore
from model.detection.outcomes import LabelledImages, judge
from model.detection.passes import BOX_ESTIMATORS
from model.detection.views import StoredViews, View
from model.errors import ModelError
from model.features import FeatureStore
from model.images import decode_image
from model.simulation.boxes import BoxSet, box_set
from model.simulation.data import list_images
from model.simulation.detection import compute_maps, compute_views

RANDOM = "random"
COSTS_LABELS = 80  # enough for a context, which costs as well
CODE = ("model/detection", "model/backbones", "benchmarks/detection.py")
Ints = NDArray[np.int64]


def main() -> None:
    arguments = parse()
    data = Images.of(arguments.data, arguments.pyramid)
    if arguments.develop:
        data = data.without_test()
    if arguments.costs:
        found = costs(data, arguments.turns)
    elif arguments.active:
        found = active(data, arguments)
    else:
        found = quality(data, arguments)
    facts = {"benchmark": "detection", "data": data.set.name, "pyramid": data.pyramid}
    write(header(**facts) | found, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set with boxes")
    parser.add_argument("--pyramid", default=DEFAULT_PYRAMID, help="one of: " + ", ".join(PYRAMIDS))
    parser.add_argument("--labels", default="10,100,all", help="numbers of images, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--active", default="", help="numbers of images at which rules are judged")
    parser.add_argument("--rules", default="random,auto,least-confidence,entropy")
    parser.add_argument("--random-share", type=float, default=0.0)
    parser.add_argument(
        "--random-draws",
        type=int,
        default=1,
        help="continuations of a seed's first images by chance, whose mean is its random order",
    )
    parser.add_argument(
        "--add", type=Path, help="an earlier file of --active, whose seeds count as well"
    )
    parser.add_argument(
        "--develop", action="store_true", help="judge on a part of the training images instead"
    )
    parser.add_argument("--costs", action="store_true", help="measure predicting instead")
    parser.add_argument("--turns", type=int, default=60, help="images that costs are measured on")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.active and RANDOM not in arguments.rules.split(","):
        parser.error(f"--rules {arguments.rules} lacks {RANDOM}, which all are compared with")
    return arguments


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def counted(what: str) -> Callable[[int, int], None]:
    """Says every 25th how many are done."""

    def progress(done: int, total: int) -> None:
        if done % 25 == 0 or done == total:
            say(f"{what}: {done} of {total}")

    return progress


class Images:
    """A set with boxes whose maps are in memory."""

    def __init__(
        self,
        found: BoxSet,
        maps: Sequence[ImageMaps],
        views: Mapping[str, Sequence[View]],
        source: str,
        pyramid: str,
    ) -> None:
        self.set, self.maps, self.views, self.source = found, maps, views, source
        self.pyramid = pyramid

    @classmethod
    def of(cls, source: str, name: str) -> Images:
        """Read a set, computing what the cache lacks of what that pyramid sees."""

        def read() -> Iterator[Item]:
            return read_dataset(source)

        listing = list_images(read)
        found = box_set(Path(source).name, listing)
        pool = [found.keys[n] for n in found.pool]
        store, features = MapStore(CACHE / "maps"), FeatureStore(CACHE / "features")

        def load(name: str) -> Pyramid:
            return load_pyramid(name, CACHE)

        unreadable = compute_maps(
            read, found.keys, pyramid=name, maps=store, features=features, load=load,
            progress=counted("images"),
        )  # fmt: skip
        if unreadable:
            raise SystemExit(f"{source} has an unreadable image: {min(unreadable.values())}")
        compute_views(
            read, pool, pyramid=name, maps=store, load=load, progress=counted("images in six views")
        )
        code = PYRAMIDS[name].hash
        views = dict(zip(pool, StoredViews(store, code, pool), strict=True))
        return cls(found, list(store.load_many(code, found.keys)), views, source, name)

    def without_test(self) -> Images:
        """The training images alone, a random 30 % of them to judge on."""
        rows = np.random.default_rng(1).permutation(self.set.pool)
        part = replace(
            self.set,
            keys=tuple(self.set.keys[n] for n in rows),
            boxes=tuple(self.set.boxes[n] for n in rows),
            names=tuple(self.set.names[n] for n in rows),
            test=np.arange(len(rows)) < 0.3 * len(rows),
            digest=self.set.digest + "-develop",
        )
        return Images(part, [self.maps[n] for n in rows], self.views, self.source, self.pyramid)

    def take(self, rows: Ints) -> LabelledImages:
        """Some images with their labels, all of them drawn by chance."""
        return LabelledImages(
            maps=[self.maps[n] for n in rows],
            sizes=[self.maps[n].size for n in rows],
            canvases=[self.maps[n].canvas for n in rows],
            drawn=[self.set.boxes[n] for n in rows],
            random=np.ones(len(rows), bool),
            views=[self.views.get(self.set.keys[n], ()) for n in rows],
        )

    @property
    def test(self) -> LabelledImages:
        return self.take(np.flatnonzero(self.set.test))


def fitted(data: Images, rows: Ints, seed: int) -> tuple[BoxBundle, float]:
    """A version, and the CPU-seconds that all of it took."""
    begin = time.process_time()
    bundle = fit(data.take(rows), data.set.classes, config=BoxConfig(seed=seed))
    return bundle, time.process_time() - begin


def quality(data: Images, arguments: argparse.Namespace) -> dict[str, Any]:
    """Random labels at each number of images."""
    pool = data.set.pool
    kept = Kept(CACHE / "detection", ROOT)
    result: dict[str, Any] = {}
    for text in arguments.labels.split(","):
        count = len(pool) if text == "all" else min(int(text), len(pool))
        runs = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):

            def run(seed: int = seed, count: int = count) -> dict[str, Any]:
                rows = np.random.default_rng(seed).permutation(pool)[:count]
                bundle, cpu = fitted(data, rows, seed)
                return measure(data, bundle) | {"fit_cpu_s": cpu}

            facts = {
                "data": data.set.digest, "pyramid": data.pyramid, "count": count, "seed": seed,
            }  # fmt: skip
            runs.append(kept.run(facts, CODE, run))
            say(f"{data.set.name} {count} seed {seed}: " + brief(runs[-1]))
        flat = [{k: v for k, v in run.items() if not isinstance(v, dict)} for run in runs]
        result[text] = {
            "images": count,
            **over_seeds(flat),
            "ap50_per_class": over_seeds([run["ap50_per_class"] for run in runs]),
            "runs": runs,
        }
    return {"test_images": int(data.set.test.sum()), "at": result}


def brief(run: dict[str, Any]) -> str:
    names = ("ap50", "map", "region_ece", "region_error_auroc", "missed_recall", "head_cpu_s")
    return ", ".join(f"{n} {run[n]:.3f}" for n in names if run[n] is not None)


def measure(data: Images, bundle: BoxBundle) -> dict[str, Any]:
    """A version on the test part."""
    test = data.test
    found, raw = [], []
    begin = time.process_time()
    for maps in test.maps:
        said, kept = bundle.look(maps)
        found.append(said)
        raw.append(kept.score)
    look_s = (time.process_time() - begin) / len(found)
    result = judge(found, test, data.set.classes)
    for name in ("n_labels", "class_counts"):
        result.pop(name)
    pairs = zip(found, test.drawn, strict=True)
    outcomes = [outcome(*as_found(shown(d)), truth) for d, truth in pairs]
    gone = np.array([one.missed for one in outcomes])
    score = np.array([d.p_all_right for d in found])
    by_score = recall_of_missed(np.argsort(score, kind="stable"), gone > 0)
    wrong = np.array([not one.right for one in outcomes])
    stated, right, scores = regions(found, raw, test)
    seen, by_head = stated[stated >= SHOWN], scores >= 0.3
    return result | {
        "region_ece_if_perfect": ece_if_perfect(seen) if len(seen) else None,
        "regions_03": int((stated >= 0.3).sum()),
        "region_ece_03": detection_ece(stated, right, threshold=0.3),
        "region_error_auroc_03": region_error_auroc(stated, right, threshold=0.3),
        "regions_head_03": int(by_head.sum()),
        "region_error_auroc_head_03": error_auroc(stated[by_head], right[by_head]),
        "region_ece_all": detection_ece(stated, right),
        "missed_share": float((gone > 0).mean()),
        "missed_recall_by_image_score": by_score,
        "missed_recall_at_best": recall_of_missed(np.argsort(-gone, kind="stable"), gone > 0),
        "images_right": float(1 - wrong.mean()),
        "images_right_stated": float(score.mean()),
        "head_cpu_s": bundle.metrics["head_cpu_seconds"],
        "look_ms": 1e3 * look_s,
        "steps": bundle.metrics["steps"],
        "finest_stride": bundle.metrics["levels"][0],
    }


def regions(found: Sequence[Any], raw: Sequence[Any], test: LabelledImages) -> tuple[Any, Any, Any]:
    """P(right) of all regions, whether they were, by COCO's matching, and the head's own scores."""
    parts = [match(d.boxes, d.label, d.p_right, t) for d, t in zip(found, test.drawn, strict=True)]
    known = [~part.ignored for part in parts]
    stated = np.concatenate([d.p_right[k] for d, k in zip(found, known, strict=True)])
    scores = np.concatenate([score[k] for score, k in zip(raw, known, strict=True)])
    return stated, np.concatenate([p.right[k] for p, k in zip(parts, known, strict=True)]), scores


def active(data: Images, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rules against each other, at the same numbers of images."""
    budgets = [int(n) for n in arguments.active.split(",")]
    rules = arguments.rules.split(",")
    kept = Kept(CACHE / "detection-active", ROOT)
    asked = {
        "data": data.set.name, "pyramid": data.pyramid, "budgets": budgets,
        "random_share": arguments.random_share, "random_draws": arguments.random_draws,
    }  # fmt: skip
    runs = earlier(arguments.add, asked, rules)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for rule in rules:
            of_draws = []
            for draw in range(arguments.random_draws if rule == RANDOM else 1):

                def run(seed: int = seed, rule: str = rule, draw: int = draw) -> dict[str, Any]:
                    return replay(data, rule, budgets, arguments.random_share, seed, draw)

                facts = {
                    "data": data.set.digest, "pyramid": data.pyramid, "rule": rule,
                    "budgets": budgets, "seed": seed, "share": arguments.random_share,
                    "draw": draw,
                }  # fmt: skip
                of_draws.append(kept.run(facts, CODE, run))
                curve = " ".join(f"{v:.3f}" for v in of_draws[-1]["accuracy"])
                say(f"{data.set.name} seed {seed} {rule} {draw}: {curve}")
            runs[rule][seed] = mean_run(of_draws)
    random = runs[RANDOM]
    table = {}
    for rule in rules:
        row = describe(runs[rule], random, budgets[-1])
        ahead = [
            mean_and_error(
                [runs[rule][s]["accuracy"][n] - random[s]["accuracy"][n] for s in random]
            )
            for n in range(len(budgets))
        ]
        per_class = np.array([[runs[rule][s]["per_class"]] for s in random], np.float64)
        row |= {
            "auc_ahead": paired(areas(runs[rule]), areas(random)),
            "auc_per_seed": {seed: round(value, 5) for seed, value in areas(runs[rule]).items()},
            "ahead": [{"mean": round(m, 4), "se": None if e is None else round(e, 4)}
                      for m, e in ahead],
            "ap50_per_class": {
                name: np.nanmean(per_class[..., c], axis=(0, 1)).round(4).tolist()
                for c, name in enumerate(data.set.classes)
            },
        }  # fmt: skip
        table[rule] = row
    return asked | {"rules": table, "runs": runs}


def earlier(
    path: Path | None, asked: Mapping[str, Any], rules: Sequence[str]
) -> dict[str, dict[int, dict[str, Any]]]:
    """Rule -> seed -> run of an earlier file; nothing without one.

    Hours of a core are in each seed, so they are run where there is time and counted together.
    """
    if path is None:
        return {rule: {} for rule in rules}
    found = json.loads(path.read_text())
    for name, value in asked.items():
        if found.get(name) != value:
            raise SystemExit(f"{path} has {name} {found.get(name)}, not {value}: run it alike")
    if missing := sorted(set(rules) - found.get("runs", {}).keys()):
        raise SystemExit(f"{path} has no single runs of {', '.join(missing)}: run it again")
    return {rule: {int(seed): run for seed, run in found["runs"][rule].items()} for rule in rules}


def mean_run(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One seed's runs as one: random order is the cheapest rule, and its luck is half the noise."""
    if len(runs) == 1:
        return dict(runs[0])
    per_class = np.ma.masked_invalid([np.array(run["per_class"], np.float64) for run in runs])
    return {
        "labels": runs[0]["labels"],
        "accuracy": np.mean([run["accuracy"] for run in runs], axis=0).tolist(),
        "per_class": per_class.mean(axis=0).tolist(),  # None where no run knows
        "objects": np.mean([run["objects"] for run in runs], axis=0).tolist(),
        "query_s": [value for run in runs for value in run["query_s"]],
        "fit_s": [value for run in runs for value in run["fit_s"]],
    }


def replay(
    data: Images, rule: str, budgets: Sequence[int], share: float, seed: int, draw: int = 0
) -> dict[str, Any]:
    """One rule and one seed: AP50 on the test part at each number of images.

    Runs that differ in `draw` alone begin with the same images.

    Judged by the head's own scores: where nothing is chosen any more, no version has to be
    calibrated.
    """
    labelled = np.random.default_rng(seed).permutation(data.set.pool)[: budgets[0]]
    result: dict[str, Any] = {
        "labels": list(budgets), "accuracy": [], "per_class": [], "query_s": [], "fit_s": [],
        "objects": [],
    }  # fmt: skip
    for number, _ in enumerate(budgets):
        begin = time.process_time()
        is_last = number + 1 == len(budgets)
        rows = tuple(sorted(labelled.tolist()))
        bundle = None if is_last or rule == RANDOM else remembered(data, rows, seed)
        head = remembered_head(data, rows, seed) if bundle is None else bundle.head
        result["fit_s"].append(time.process_time() - begin)
        ap50, per_class = precision(data, head)
        result["accuracy"].append(ap50)
        result["per_class"].append(per_class)
        result["objects"].append(int(sum(len(data.set.boxes[n]) for n in labelled)))
        if not is_last:
            wanted = budgets[number + 1] - len(labelled)
            begin = time.perf_counter()
            more = ask(data, bundle, rule, labelled, wanted, share, seed, draw)
            labelled = np.concatenate([labelled, more])
            result["query_s"].append(time.perf_counter() - begin)
    return result


def precision(data: Images, head: Head) -> tuple[float, list[float | None]]:
    """AP50 on the test part, and of each class."""
    test = data.test
    kept = [head.find(maps) for maps in test.maps]
    found = average_precision(
        [(k.boxes, k.label, k.score) for k in kept], test.drawn, test.sizes, len(data.set.classes)
    )
    return found["ap50"] or 0.0, found["ap50_per_class"]


@lru_cache(maxsize=4)
def remembered(data: Images, rows: tuple[int, ...], seed: int) -> BoxBundle:
    """`fitted`, once for rules that share their first images."""
    return fitted(data, np.array(rows), seed)[0]


@lru_cache(maxsize=4)
def remembered_head(data: Images, rows: tuple[int, ...], seed: int) -> Head:
    """The same head alone."""
    return fit_head(data.take(np.array(rows)), data.set.classes, config=BoxConfig(seed=seed))


def ask(
    data: Images,
    bundle: BoxBundle | None,
    rule: str,
    labelled: Ints,
    n: int,
    share: float,
    seed: int,
    draw: int,
) -> Ints:
    """What a rule asks for next; a share of it is drawn before any score is looked at."""
    rest = np.setdiff1d(data.set.pool, labelled)
    entropy = seed * 1000 + len(labelled)
    order = np.random.default_rng((entropy, draw) if draw else entropy).permutation(rest)
    drawn = order[: n if bundle is None else round(share * n)]
    rest = np.setdiff1d(rest, drawn)
    if bundle is None or len(drawn) == n:
        return drawn
    counts = np.array(list(bundle.metrics["class_counts"].values()))
    images = [data.maps[n] for n in np.concatenate([rest, labelled])]
    ap50 = list(bundle.metrics["ap50_per_class"].values())
    builder = PoolBuilder(counts, ap50, images=images)
    for maps in images:
        found, _ = bundle.look(maps)
        builder.add(found, shown(found))
    assert rule in BOX_ACQUISITIONS
    pool = builder.pool()
    chosen = select_images(
        rule,
        pool.take(np.arange(len(rest))),
        n - len(drawn),
        known=pool.take(np.arange(len(rest), len(pool))),
        seed=seed * 1000 + len(labelled),
    )
    return np.concatenate([drawn, rest[chosen]])


def costs(data: Images, turns: int) -> dict[str, Any]:
    """What one image costs: decoding and network, head, and passes, one thread, in turns."""
    rows = np.random.default_rng(0).permutation(data.set.pool)[:COSTS_LABELS]
    bundle = fit(data.take(rows), data.set.classes, config=BoxConfig(steps=60))
    pyramid = load_pyramid(data.pyramid, CACHE)
    wanted = set(np.array(data.set.names)[np.flatnonzero(data.set.test)[:turns]].tolist())
    files = [i.data for i in read_dataset(data.source) if i.name in wanted]
    seconds: dict[str, list[float]] = {"pyramid": [], "head": []} | {n: [] for n in BOX_ESTIMATORS}
    for file in files:
        begin = time.perf_counter()
        image = decode_image(file)
        maps = ImageMaps.of(pyramid.maps(image), image.size)
        seconds["pyramid"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        kept = bundle.head.find(maps)
        seconds["head"].append(time.perf_counter() - begin)
        for name, estimator in BOX_ESTIMATORS.items():
            begin = time.perf_counter()
            readings = estimator(bundle.head, kept)
            seen = Seen.of(maps, kept) if bundle.calibration.needs_seen else None
            detections_of(kept, readings, bundle.calibration, maps.size, seen)
            seconds[name].append(time.perf_counter() - begin)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    forward = median["pyramid"] + median["head"]
    return {
        "images": len(files),
        "context": bundle.metrics["context"],
        "milliseconds": {name: round(1e3 * value, 3) for name, value in median.items()},
        "predict_over_forward": {
            name: round((forward + median[name]) / forward, 4) for name in BOX_ESTIMATORS
        },
        "passes": {"softmax": 1, "mc-dropout": 10},
    }


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench detection: {exc}") from None
