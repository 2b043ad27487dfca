"""Which images to draw boxes on next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.detection import acquisition
from model.detection.acquisition import (
    BOX_ACQUISITIONS,
    DESCRIBING,
    Pool,
    PoolBuilder,
    Regions,
    class_weights,
    doubt_of,
    regions_of,
    select_images,
    worth_of,
)
from model.detection.bundle import shown
from model.detection.maps import ImageMaps, means_inside
from model.detection.types import Detections
from model.errors import ShapeError, UnknownNameError


def said(
    p_right: list[float], label: list[int] | None = None, *, missed: float = 0.0
) -> Detections:
    """What a version says of an image."""
    p = np.array(p_right, float)
    kinds = np.array([0] * len(p) if label is None else label, np.int64)
    boxes = np.tile([0.1, 0.1, 0.5, 0.5], (len(p), 1))
    nats = np.array([-x * np.log(x) - (1 - x) * np.log(1 - x) for x in p_right])
    return Detections(
        boxes=boxes, label=kinds, p_right=p, probs=p[:, None] * np.eye(3)[kinds], total=nats,
        aleatoric=nats, epistemic=nats * 0, spread=boxes, p_all_right=0.4, missed=missed,
        size=(100, 80),
    )  # fmt: skip


def maps_of(coarsest: np.ndarray) -> ImageMaps:
    return ImageMaps((coarsest.astype(np.float16),), (100, 80))


EVEN = np.ones(3)


class Watched(Sequence[ImageMaps]):
    """Images that remember which of them were looked at."""

    def __init__(self, images: Sequence[ImageMaps]) -> None:
        self.images, self.looked_at = images, list[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> ImageMaps:
        self.looked_at.append(n)
        return self.images[n]


class Scene(NamedTuple):
    """An image whose cells each hold what the network sees in one of its regions."""

    regions: Regions
    maps: ImageMaps


def scene(
    vectors: np.ndarray,
    doubt: list[float] | None = None,
    *,
    shown: bool = True,
    sure: np.ndarray | None = None,
) -> Scene:
    """Of one image, a row a region."""
    rows = np.atleast_2d(vectors)
    every = rows if sure is None else np.concatenate([rows, sure])
    edge = np.arange(len(every)) / len(every)
    within = np.array([0.01, 0.99]) / len(every)
    boxes = np.stack([edge + within[0], edge * 0, edge + within[1], edge * 0 + 1], axis=1)
    doubts = np.ones(len(rows)) if doubt is None else np.array(doubt, float)
    own = len(rows)
    found = Regions(boxes[:own], doubts, np.full(own, shown), boxes[own:])
    return Scene(found, maps_of(every.T[:, None, :]))


def pool_of(count: int, *, seed: int = 0, width: int = 6) -> Pool:
    """Images of one to three regions."""
    rng = np.random.default_rng(seed)
    some = [
        scene(rng.normal(size=(k, width)), rng.uniform(0.01, 1, k).tolist())
        for k in rng.integers(1, 4, count)
    ]
    worth, confidence, entropy = rng.uniform(0.01, 1, (3, count))
    return replace(pool_with(some), worth=worth, confidence=confidence, entropy=entropy)


def pool_with(some: list[Scene]) -> Pool:
    ones = np.ones(len(some))
    numbers = np.arange(len(some))
    return Pool(ones, ones, ones, [s.regions for s in some], numbers, [s.maps for s in some])


def test_rare_classes_and_badly_found_ones_weigh_more() -> None:
    weights = class_weights(np.array([100, 4, 0]), [0.9, 0.9, None])
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] < weights[1] < weights[2]
    assert weights[1] / weights[0] == pytest.approx(5.0)
    worse = class_weights(np.array([10, 10]), [0.2, 0.8])
    assert worse[0] > worse[1] > 0
    perfect = class_weights(np.array([10, 10]), [1.0, 1.0])
    np.testing.assert_allclose(perfect, 1.0)
    np.testing.assert_allclose(class_weights(np.array([7, 7, 7])), 1.0)
    assert np.isfinite(class_weights(np.zeros(3, np.int64))).all()


def test_doubt_is_largest_where_either_may_be() -> None:
    np.testing.assert_allclose(doubt_of(said([0.5, 1 - 1e-9, 0.1])), [1, 0, 0.36], atol=1e-6)


def test_a_crowd_of_sure_regions_is_worth_less_than_one_in_doubt() -> None:
    crowd = said([0.97] * 90)
    one = said([0.5])
    assert worth_of(crowd, EVEN) < worth_of(one, EVEN)


def test_a_crowd_in_doubt_is_worth_no_more_than_its_two_most_doubtful() -> None:
    many, few = said([0.5] * 90), said([0.5] * 2)
    assert worth_of(many, EVEN) == worth_of(few, EVEN) == 2.0
    several = said([0.5, 0.5], [0, 1])
    assert worth_of(several, EVEN) == 2.0
    assert worth_of(said([0.5] * 6, [0, 0, 0, 1, 1, 2]), EVEN) == 5.0


def test_a_region_of_a_rare_class_is_worth_more_than_a_crowd_of_a_frequent_one() -> None:
    weights = class_weights(np.array([400, 4, 100]))
    crowd = said([0.6] * 50, [0] * 50)
    rare = said([0.6], [1])
    assert worth_of(rare, weights) > worth_of(crowd, weights)


def test_what_is_likely_missed_is_worth_something_up_to_one_object() -> None:
    worth = [worth_of(said([], missed=m), EVEN) for m in (0.0, 0.5, 1.0, 9.0)]
    assert worth[0] == 0.0
    assert worth[0] < worth[1] < worth[2] == worth[3] < worth_of(said([0.5]), EVEN)


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(0, 2)), max_size=12))
def test_worth_does_not_depend_on_the_order_and_no_region_lowers_it(some: list) -> None:
    p, label = [r[0] for r in some], [r[1] for r in some]
    worth = worth_of(said(p, label), EVEN)
    assert worth == pytest.approx(worth_of(said(p[::-1], label[::-1]), EVEN))
    assert worth_of(said([*p, 0.7], [*label, 0]), EVEN) >= worth - 1e-12
    assert 0 <= worth <= 6 + 1e-9


def test_a_region_looks_like_what_the_network_saw_in_the_cells_it_touches() -> None:
    coarsest = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float16)
    boxes = np.array([[0.0, 0.0, 0.5, 1 / 3], [0.8, 0.5, 1.0, 1.0], [0.9, 0.9, 0.91, 0.91]])
    seen = means_inside(coarsest, boxes)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen[0], coarsest[:, :1, :2].mean((1, 2)), atol=2e-3)
    np.testing.assert_allclose(seen[1], coarsest[:, 1:, 3:].mean((1, 2)), atol=2e-3)
    np.testing.assert_allclose(seen[2], coarsest[:, 2, 3], atol=2e-3)
    assert means_inside(coarsest, np.zeros((0, 4))).shape == (0, 5)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=20))
def test_regions_anywhere_can_be_looked_into(corners: list[tuple[float, ...]]) -> None:
    """Also those within a cell and at the edge."""
    drawn = np.array(corners)
    low = np.minimum(drawn[:, :2], 1 - 2e-4)
    boxes = np.concatenate([low, np.minimum(low + 1e-4 + drawn[:, 2:], 1.0)], axis=1)
    np.testing.assert_allclose(means_inside(np.ones((2, 3, 4), np.float16), boxes), 1, atol=1e-3)


def test_regions_are_as_doubtful_as_what_is_said_of_them() -> None:
    """Shown: that there is an object; not shown: that there is none. Rare classes count more."""
    found = regions_of(said([0.9, 0.4, 0.15, 0.01], [0, 0, 1, 2]), np.array([0.5, 2.0, 0.5]))
    np.testing.assert_allclose(found.doubt, [0.3, 0.3, 0.05, 0.005])
    assert found.shown.sum() == 2
    assert found.shown[2]
    assert not found.shown[3]
    crowd = regions_of(said([0.5] * 90), EVEN)
    assert len(crowd.doubt) == len(crowd.boxes) == len(crowd.shown) == DESCRIBING


def test_the_objects_of_an_image_are_those_that_are_surest_too() -> None:
    """Of a labelled one they are what is known, and what it doubts is mostly background."""
    doubted = [0.16] * DESCRIBING
    sure = [0.97, 0.99, 0.98]
    found = replace(
        said([*doubted, *sure, 0.001]),
        boxes=np.array([[n / 40, 0.0, (n + 1) / 40, 1.0] for n in range(DESCRIBING + 4)]),
    )
    one = regions_of(found, EVEN)
    cells = [(boxes[:, 0] * 40).round().tolist() for boxes in (one.boxes, one.sure, one.objects)]
    assert sorted(cells[0]) == list(range(DESCRIBING))
    assert cells[1] == [DESCRIBING + 1, DESCRIBING + 2, DESCRIBING]
    assert sorted(cells[2]) == [DESCRIBING, DESCRIBING + 1, DESCRIBING + 2]
    crowd = regions_of(said([0.9] * 90), EVEN)
    assert len(crowd.objects) == 2 * DESCRIBING
    alone = regions_of(said([0.9, 0.01]), EVEN)
    assert len(alone.sure) == 0
    assert len(alone.objects) == 1


def test_an_image_without_a_region_is_looked_at_as_a_whole() -> None:
    found = regions_of(said([], missed=0.3), EVEN)
    assert found.boxes.tolist() == [[0, 0, 1, 1]]
    assert found.doubt.tolist() == [0.3]
    assert not found.shown.any()
    assert len(found.objects) == 0
    assert regions_of(said([]), EVEN).doubt[0] > 0


def test_a_pool_is_gathered_image_by_image() -> None:
    images = Watched([maps_of(np.full((2, 3, 4), n)) for n in range(3)])
    builder = PoolBuilder(np.array([4, 4, 4]), images=images)
    for p in ([0.5, 0.1], [], [0.9]):
        found = said(p)
        builder.add(found, shown(found))
    pool = builder.pool()
    assert len(pool) == 3
    np.testing.assert_allclose(pool.worth, [1.36, 0.0, 0.36])
    np.testing.assert_allclose(pool.confidence, [0.5, 1.0, 0.9])
    np.testing.assert_allclose(pool.entropy, [np.log(2), 0.0, 0.3250829733914482])
    assert [len(one.doubt) for one in pool.regions] == [2, 1, 1]
    some = pool.take(np.array([2, 0]))
    np.testing.assert_array_equal(some.worth, pool.worth[[2, 0]])
    assert some.regions == [pool.regions[2], pool.regions[0]]
    assert images.looked_at == []  # only when it is needed
    np.testing.assert_array_equal(some.seen(0, some.regions[0].boxes), [[2, 2]])
    assert images.looked_at == [2]


def test_a_pool_of_fewer_images_than_were_announced_is_refused() -> None:
    builder = PoolBuilder(np.array([4, 4, 4]), images=[maps_of(np.ones((2, 3, 4)))] * 2)
    builder.add(said([0.5]), said([0.5]))
    with pytest.raises(ShapeError, match="images"):
        builder.pool()


def test_hard_classes_make_worth_and_rare_ones_doubt() -> None:
    images = [maps_of(np.ones((2, 3, 4)))] * 2
    builder = PoolBuilder(np.array([9, 9, 9]), [0.1, 0.9, 0.9], images=images)
    for label in (0, 1):
        found = said([0.5], [label])
        builder.add(found, shown(found))
    pool = builder.pool()
    assert pool.worth[0] == pytest.approx(5 * pool.worth[1])
    assert pool.regions[0].doubt == pool.regions[1].doubt


def test_an_empty_pool_gives_nothing() -> None:
    pool = PoolBuilder(np.ones(3, np.int64), images=[]).pool()
    assert len(pool) == 0
    for name in BOX_ACQUISITIONS:
        assert select_images(name, pool, 5).tolist() == []
        assert select_images(name, pool_of(4), 0).tolist() == []


@pytest.mark.parametrize("name", sorted(BOX_ACQUISITIONS))
@pytest.mark.parametrize(("count", "n"), [(1, 1), (3, 10), (30, 7), (30, 30), (40, 13)])
def test_every_rule_gives_that_many_distinct_images(name: str, count: int, n: int) -> None:
    pool = pool_of(count)
    rows = select_images(name, pool, n, seed=3)
    assert rows.dtype == np.int64
    assert len(rows) == len(set(rows.tolist())) == min(n, count)
    assert set(rows.tolist()) <= set(range(count))
    assert select_images(name, pool, n, seed=3).tolist() == rows.tolist()


@pytest.mark.parametrize("name", sorted(BOX_ACQUISITIONS))
def test_images_that_are_all_the_same_are_enough(name: str) -> None:
    same = pool_with([scene(np.zeros(4))] * 9)
    assert sorted(select_images(name, same, 9).tolist()) == list(range(9))
    one, other = (select_images(name, same, 4, seed=s).tolist() for s in (0, 1))
    assert one != other  # not always the first ones


def test_rules_put_what_they_measure_first() -> None:
    pool = pool_of(50)
    assert select_images("worth", pool, 9).tolist() == np.argsort(-pool.worth)[:9].tolist()
    low = np.argsort(pool.confidence)[:9].tolist()
    assert select_images("least-confidence", pool, 9).tolist() == low
    assert select_images("entropy", pool, 9).tolist() == np.argsort(-pool.entropy)[:9].tolist()


def kinds_of(*sizes: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Images of several kinds that look alike within a kind: kinds and vectors."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(len(sizes)), sizes)
    # Channels of very different scales, as those of a network.
    scale = np.where(np.arange(8) % 2 == 0, 100.0, 1.0)
    return kind, (np.eye(len(sizes), 8)[kind] + rng.normal(0, noise, (len(kind), 8))) * scale


def test_auto_asks_for_every_kind() -> None:
    kind, vectors = kinds_of(40, 30, 20, 10)
    pool = pool_with([scene(v) for v in vectors])
    for seed in range(5):
        assert set(kind[select_images("auto", pool, 5, seed=seed)].tolist()) == {0, 1, 2, 3}


def test_auto_begins_with_the_kind_that_no_label_shows() -> None:
    kind, vectors = kinds_of(25, 25, 25, 25)
    given = np.array([0, 1, 25, 50])  # of the first three kinds
    left = np.setdiff1d(np.arange(len(kind)), given)
    pool = pool_with([scene(v) for v in vectors[left]])
    known = [scene(v) for v in vectors[given]]

    def first(*more: Scene) -> int:
        rows = select_images("auto", pool, 1, known=pool_with([*known, *more]))
        return int(kind[left][rows[0]])

    assert first() == 3
    # What is not thought to be an object is not known for being on a labelled image.
    assert first(scene(vectors[-1], shown=False)) == 3
    assert first(*(scene(v) for v in vectors[-3:])) != 3
    assert first(scene(vectors[0], sure=vectors[-3:])) != 3


def test_auto_asks_where_something_is_likely_wrong() -> None:
    kind, vectors = kinds_of(50, 50)
    pool = pool_with(
        [scene(v, [0.9 if k == 0 else 0.05]) for v, k in zip(vectors, kind, strict=True)]
    )
    assert (kind[select_images("auto", pool, 10)] == 0).sum() >= 8


def test_an_image_that_shows_several_kinds_tells_more() -> None:
    _, vectors = kinds_of(20, 20, 20)
    alone = [scene(v) for v in vectors]
    both = scene(vectors[[5, 25, 45]])
    assert select_images("auto", pool_with([*alone, both]), 1).tolist() == [len(alone)]


def test_labelled_images_without_an_object_are_not_looked_at() -> None:
    known = pool_with([scene(np.ones(6)), scene(np.ones(6), shown=False)])
    images = Watched(known.images)
    select_images("auto", pool_of(5), 2, known=replace(known, images=images))
    assert images.looked_at == [0]


def test_of_a_large_pool_a_part_is_looked_at(monkeypatch) -> None:
    monkeypatch.setattr(acquisition, "MOST_IMAGES", 20)
    monkeypatch.setattr(acquisition, "MOST_REGIONS", 50)
    monkeypatch.setattr(acquisition, "MOST_CHOSEN", 10)
    monkeypatch.setattr(acquisition, "MOST_KNOWN", 7)
    pool, known = pool_of(300), pool_of(50, seed=1)
    for n, most in ((3, 20), (9, 36), (40, 40), (200, 40)):
        left, labelled = Watched(pool.images), Watched(known.images)
        rows = select_images(
            "auto", replace(pool, images=left), n, known=replace(known, images=labelled), seed=1
        )
        assert len(set(rows.tolist())) == n
        assert (len(left.looked_at), len(labelled.looked_at)) == (most, 7)
    different = {tuple(select_images("auto", pool, 3, seed=seed)) for seed in range(5)}
    assert len(different) > 1


def test_of_very_many_labelled_objects_a_part_is_compared(monkeypatch) -> None:
    compared, assign = [], acquisition.assign
    monkeypatch.setattr(
        acquisition, "assign", lambda rows, to: compared.append(len(to)) or assign(rows, to)
    )
    pool, known = pool_of(30), pool_of(50, seed=1)
    select_images("auto", pool, 3, known=known)
    monkeypatch.setattr(acquisition, "MOST_OBJECTS", 20)
    assert len(set(select_images("auto", pool, 3, known=known))) == 3
    assert compared[0] > 20 == compared[1]


def test_what_cannot_be_is_refused() -> None:
    pool = pool_of(4)
    with pytest.raises(UnknownNameError, match="Did you mean 'worth'"):
        select_images("wort", pool, 1)
    torn = replace(pool, regions=pool.regions[:2])
    with pytest.raises(ShapeError, match="regions"):
        select_images("auto", torn, 1)
