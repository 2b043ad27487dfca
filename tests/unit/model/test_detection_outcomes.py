"""What metrics are of: each image by calibrators of others, and the random share by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.boxes import NOTHING

from model.detection.bundle import as_found, shown
from model.detection.evaluate import outcome
from model.detection.head import Kept
from model.detection.outcomes import LabelledImages, OutOfFold, judge
from model.detection.passes import Readings
from model.detection.types import BoxLabels

CLASSES = ("cup", "key")
SIZE = (64, 48)
PLACES = np.array([[x, 0.1, x + 0.15, 0.5] for x in (0.05, 0.25, 0.45, 0.65)])
HIDDEN = np.array([[0.1, 0.6, 0.4, 0.9]])  # an object that no region points to


def regions(rng: np.random.Generator) -> Kept:
    """One at each of the places."""
    scores = rng.uniform(0.02, 0.95, (len(PLACES), len(CLASSES)))
    none = np.zeros((len(PLACES), 1), np.float32)
    return Kept(
        boxes=PLACES, label=scores.argmax(axis=1), scores=scores,
        quality=rng.uniform(0.3, 0.9, len(PLACES)), spread=np.full((len(PLACES), 4), 0.01),
        of_class=none, of_box=none, grid=np.zeros((len(PLACES), 3), np.float32),
        level=np.zeros(len(PLACES), np.int64), canvas=SIZE,
    )  # fmt: skip


def out_of_fold(count: int, *, random: list[int] | None = None, seed: int = 0) -> OutOfFold:
    """Regions of a higher score are right more often, and every other image hides an object."""
    rng = np.random.default_rng(seed)
    kept = [regions(rng) for _ in range(count)]
    drawn = []
    for n, k in enumerate(kept):
        right = rng.random(len(k)) < k.score
        boxes = np.concatenate([k.boxes[right], HIDDEN[: n % 2]])
        labels = [*k.label[right].tolist(), *[1] * (n % 2)]
        drawn.append(BoxLabels.of(boxes.tolist(), labels))
    by_chance = np.isin(np.arange(count), range(count) if random is None else random)
    data = LabelledImages([], [SIZE] * count, [SIZE] * count, drawn, by_chance)
    return OutOfFold(kept, [Readings(k.scores[None], k.boxes[None]) for k in kept], data)


def test_what_people_drew_on_an_image_tells_nothing_to_the_calibrators_that_judge_it() -> None:
    data = out_of_fold(10)
    before = data.measure(CLASSES, seed=3)["found"]
    for n, drawn in enumerate(data.data.drawn):
        wholly_other = NOTHING if len(drawn) else BoxLabels.of(PLACES.tolist(), [0] * len(PLACES))
        changed = [*data.data.drawn[:n], wholly_other, *data.data.drawn[n + 1 :]]
        redrawn = replace(data, data=replace(data.data, drawn=changed))
        after = redrawn.measure(CLASSES, seed=3)["found"]
        for name, value in vars(before[n]).items():
            np.testing.assert_array_equal(getattr(after[n], name), value)
        told = [
            not np.array_equal(a.p_right, b.p_right) for a, b in zip(before, after, strict=True)
        ]
        assert sum(told) == 5, "it tells the other half"


@pytest.mark.parametrize("random", [[0, 3, 4, 9, 10, 13], [5]])
def test_metrics_of_the_random_share_are_of_its_images_alone(random: list[int]) -> None:
    data = out_of_fold(16, random=random)
    metrics = data.measure(CLASSES, seed=0)
    found, drawn = [metrics["found"][n] for n in random], [data.data.drawn[n] for n in random]
    own = LabelledImages([], [SIZE] * len(random), [], drawn, np.ones(len(random), bool))
    assert metrics["random"] == judge(found, own, CLASSES)
    labels = np.concatenate([d.labels for d in drawn]).tolist()
    right = [outcome(*as_found(shown(f)), d).right for f, d in zip(found, drawn, strict=True)]
    assert metrics["random"]["n_labels"] == metrics["n_random"] == len(random)
    assert metrics["random"]["class_counts"] == {"cup": labels.count(0), "key": labels.count(1)}
    assert metrics["random"]["missed_expected"] == pytest.approx(sum(one.missed for one in found))
    assert metrics["random_accuracy"] == np.mean(right)
    assert metrics["n_labels"] == 16
