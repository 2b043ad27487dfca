"""Several people who draw boxes: what is there, and how good is each, against the set's own boxes.

    ./run bench annotators_boxes --data ../shared/data/bccd --out FILE

Four simulated people draw the objects of the training part of a set: two are good, one overlooks a
quarter, one adds a fifth of what is there at random places. Everybody moves boxes a little, some
boxes too far, and mistakes some classes. Where errors are misled, the smallest objects are
overlooked by everybody more often. A model is fitted on what the votes of people come to, as in
the product, and what it finds out of fold is taken with what people drew. The test part is not
looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _kept import Kept
from _settings import over, show
from common import CACHE, ROOT, header, write
from detection import Images
from numpy.typing import NDArray

from backend.edges.labels.boxes.agreement import agreed
from backend.edges.labels.boxes.drawing import Drawing, Drawn
from backend.edges.labels.boxes.geometry import clipped
from model.annotators.drawings import BoxCrowd, matches, weigh_drawings
from model.backbones.pyramid import DEFAULT_PYRAMID, PYRAMIDS
from model.detection.engine import BoxConfig, fit
from model.detection.types import BoxLabels
from model.errors import ModelError

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = dict[str, dict[str, float]]

SHARED = {"all shared": 1.0, "a fifth shared": 0.2}
ERRORS = ("independent", "misled")
SMALLEST, OVERLOOKED = 0.15, 0.4  # share of the objects, and how often one more is overlooked
NEWEST, VOTES, OURS = "newest drawing", "votes", "people and model"
CODE = ("model", "backend/edges/labels/boxes", "benchmarks/annotators_boxes.py")


@dataclass(frozen=True)
class Person:
    """How often somebody errs, each a share of the objects.

    Attributes:
        overlooks: of an object.
        mistakes: of a class.
        misplaces: moves a box by 0.45 of its sides, so that its IoU is below 0.5.
        adds: a box of any class, as large as one that is there, at a random place.
        trembles: deviation of each side, as a share of the box's.
    """

    overlooks: float = 0.04
    mistakes: float = 0.02
    misplaces: float = 0.02
    adds: float = 0.02
    trembles: float = 0.04


PEOPLE = (
    Person(),
    Person(),
    Person(overlooks=0.25, mistakes=0.05, misplaces=0.05, adds=0.05),
    Person(adds=0.2),
)


@dataclass(frozen=True)
class Drawings:
    """L drawings, oldest first.

    Attributes:
        task: ``(L,)`` number of the image.
        person: ``(L,)`` in the order of `PEOPLE`.
        drawn: L.
    """

    task: Ints
    person: Ints
    drawn: Sequence[BoxLabels]

    def f1(self, truth: Sequence[BoxLabels]) -> F64:
        """``(M,)`` of each person's boxes against what is there."""
        numbers = range(len(PEOPLE))
        rows = [np.flatnonzero(self.person == n).tolist() for n in numbers]
        return np.array(
            [f1([self.drawn[n] for n in of], [truth[self.task[n]] for n in of]) for of in rows]
        )

    def of_image(self, n: int) -> list[BoxLabels]:
        """What people drew on one."""
        return [self.drawn[row] for row in np.flatnonzero(self.task == n).tolist()]


def main() -> None:
    arguments = parse()
    data = Images.of(arguments.data, arguments.pyramid)
    clean = data.take(data.set.pool)
    kept = Kept(CACHE / "annotators_boxes", ROOT)
    facts = {
        "pyramid": arguments.pyramid, "images": len(clean),
        "boxes": sum(len(one) for one in clean.drawn),
    }  # fmt: skip
    result = header(
        benchmark="annotators_boxes", data=Path(arguments.data).name, seeds=arguments.seeds, **facts
    )
    result["settings"] = {}
    for shared, errors in product(SHARED, ERRORS):
        runs = []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            about = {"digest": data.set.digest, "shared": shared, "errors": errors, "seed": seed}
            run = partial(one, clean, data.set.classes, shared=shared, errors=errors, seed=seed)
            runs.append(kept.run({**about, **facts}, CODE, run))
        name = f"{shared}, {errors}"
        result["settings"][name] = {"methods": summarise(runs), "runs": runs}
        show(name, result["settings"][name]["methods"])
    write(result, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a packed set with boxes")
    parser.add_argument("--seeds", type=int, default=3, help="of the people and of the engine")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--pyramid", default=DEFAULT_PYRAMID, help="one of: " + ", ".join(PYRAMIDS))
    parser.add_argument("--out", type=Path, help="JSON file; without it the result is printed")
    return parser.parse_args()


def one(clean: Any, classes: Sequence[str], *, shared: str, errors: str, seed: int) -> Rows:
    """What people, their votes, and people and model together make of one draw."""
    truth = clean.drawn
    given = ask(truth, len(classes), shared=SHARED[shared], misled=errors == "misled", seed=seed)
    images = range(len(truth))
    votes = [vote(given.of_image(n), classes) for n in images]
    bundle = fit(replace(clean, drawn=votes), classes, config=BoxConfig(seed=seed))
    regions = bundle.out_of_fold_found
    assert regions is not None
    crowd = weigh_drawings(regions, given.task, given.person, given.drawn)
    assert crowd.why is None, crowd.why
    newest = [given.of_image(n)[-1] for n in images]
    quality = given.f1(truth)
    exact = [matches(a, b) == len(a) == len(b) for a, b in zip(crowd.drawn, truth, strict=True)]
    return {
        NEWEST: {"off": 1.0 - f1(newest, truth)},
        VOTES: {"off": 1.0 - f1(votes, truth)},
        OURS: {
            "off": 1.0 - f1(crowd.drawn, truth),
            "wrong_images": 1.0 - float(np.mean(exact)),
            "wrong_images_expected": 1.0 - float(crowd.p_right.mean()),
            **_people(crowd, quality),
        },
    }


def _people(crowd: BoxCrowd, quality: F64) -> dict[str, float]:
    """How far what is said of people is from how good they are."""
    told = np.array([one.quality for one in crowd.annotators], np.float64)
    agreement = np.array([one.agreement for one in crowd.annotators], np.float64)
    ends = np.array([(one.low, one.high) for one in crowd.annotators], np.float64)
    return {
        "quality_error": float(np.abs(told - quality).mean()),
        "quality_bias": float((told - quality).mean()),
        "agreement_less_quality": float((agreement - quality).mean()),
        "covered": float(((ends[:, 0] <= quality) & (quality <= ends[:, 1])).mean()),
        "width": float((ends[:, 1] - ends[:, 0]).mean()),
        "order_kept": float((np.argsort(told) == np.argsort(quality))[:2].all()),
    }


def f1(drawn: Sequence[BoxLabels], truth: Sequence[BoxLabels]) -> float:
    """Twice the boxes that are the same, over all there are in both."""
    same = sum(matches(a, b) for a, b in zip(drawn, truth, strict=True))
    return 2.0 * same / max(sum(map(len, drawn)) + sum(map(len, truth)), 1)


def ask(
    truth: Sequence[BoxLabels], classes: int, *, shared: float, misled: bool, seed: int
) -> Drawings:
    """Have two or three people draw a share of the images, and one each other."""
    rng = np.random.default_rng(seed)
    sizes = np.concatenate([np.prod(t.boxes[:, 2:] - t.boxes[:, :2], axis=1) for t in truth])
    small = float(np.quantile(sizes, SMALLEST)) if misled else 0.0
    rows: list[tuple[int, int, BoxLabels]] = []
    for task, there in enumerate(truth):
        people = int(rng.integers(2, 4)) if rng.random() < shared else 1
        for person in rng.choice(len(PEOPLE), people, replace=False).tolist():
            rows.append((task, person, draw(there, PEOPLE[person], classes, small, rng)))
    tasks, who, drawn = zip(*rows, strict=True)
    return Drawings(np.array(tasks), np.array(who), drawn)


def draw(
    there: BoxLabels, person: Person, classes: int, small: float, rng: np.random.Generator
) -> BoxLabels:
    """What somebody draws of what is there; objects below the area `small` mislead."""
    size = there.boxes[:, 2:] - there.boxes[:, :2]
    is_seen = rng.random(len(there)) >= person.overlooks
    is_seen &= (size.prod(axis=1) >= small) | (rng.random(len(there)) >= OVERLOOKED)
    boxes, labels, size = there.boxes[is_seen].copy(), there.labels[is_seen], size[is_seen]
    boxes += np.tile(size, 2) * rng.normal(0.0, person.trembles, boxes.shape)
    angle = rng.uniform(0.0, 2.0 * np.pi, len(boxes))
    far = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.45 * size
    boxes += np.where(rng.random(len(boxes)) < person.misplaces, 1.0, 0.0)[:, None] * np.tile(
        far, 2
    )
    other = (labels + rng.integers(1, max(classes, 2), len(labels))) % classes
    labels = np.where(rng.random(len(labels)) < person.mistakes, other, labels)
    for _ in range(int(rng.binomial(len(there), person.adds))):
        like = there.boxes[rng.integers(len(there))]
        corner = rng.uniform(0.0, 1.0 - (like[2:] - like[:2]))
        added = np.concatenate([corner, corner + like[2:] - like[:2]])
        boxes = np.concatenate([boxes, added[None, :]])
        labels = np.append(labels, rng.integers(classes))
    boxes = np.clip(boxes, 0.0, 1.0)
    kept = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(axis=1)
    return BoxLabels.of(boxes[kept].tolist(), labels[kept].tolist())


def vote(drawn: Sequence[BoxLabels], classes: Sequence[str]) -> BoxLabels:
    """What the product trains on."""
    drawings = []
    for one in drawn:
        inside = [
            (classes[n], clipped(tuple(b))) for b, n in zip(one.boxes, one.labels, strict=True)
        ]
        drawings.append(Drawing(tuple(Drawn(name, b) for name, b in inside if b is not None)))
    code = {name: number for number, name in enumerate(classes)}
    found = agreed(drawings)
    return BoxLabels.of(
        [d.box for d in found.boxes], [code[d.label] for d in found.boxes], ignored=found.ignored
    )


def summarise(runs: Sequence[Rows]) -> dict[str, Any]:
    """Mean and standard error over the seeds."""
    return {
        name: {key: over([run[name][key] for run in runs]) for key in runs[0][name]}
        for name in runs[0]
    }


if __name__ == "__main__":
    try:
        main()
    except ModelError as exc:
        raise SystemExit(f"bench annotators_boxes: {exc}") from None
