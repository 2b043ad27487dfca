"""Which images to draw boxes on next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.detection.acquisition import (
    BOX_ACQUISITIONS,
    Pool,
    PoolBuilder,
    class_weights,
    doubt_of,
    select_images,
    vector_of,
    worth_of,
)
from model.detection.bundle import shown
from model.detection.maps import ImageMaps
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


def pool_of(count: int, *, seed: int = 0, width: int = 6) -> Pool:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return Pool(rng.random(count), vectors, *rng.uniform(0.01, 1, (3, count)))


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
def test_worth_does_not_depend_on_the_order_and_no_region_lowers_it(regions: list) -> None:
    p, label = [r[0] for r in regions], [r[1] for r in regions]
    worth = worth_of(said(p, label), EVEN)
    assert worth == pytest.approx(worth_of(said(p[::-1], label[::-1]), EVEN))
    assert worth_of(said([*p, 0.7], [*label, 0]), EVEN) >= worth - 1e-12
    assert 0 <= worth <= 6 + 1e-9


def test_a_vector_is_what_the_network_saw_inside_the_regions() -> None:
    rng = np.random.default_rng(0)
    coarsest = rng.normal(size=(5, 3, 4)).astype(np.float16)
    found = said([0.5, 0.25], [1, 2])
    found = replace(found, boxes=np.array([[0.0, 0.0, 0.5, 1 / 3], [0.8, 0.5, 1.0, 1.0]]))
    first, second = coarsest[:, :1, :2].mean((1, 2)), coarsest[:, 1:, 3:].mean((1, 2))
    even = vector_of(found, maps_of(coarsest), EVEN)
    assert even.dtype == np.float32
    np.testing.assert_allclose(even, (2 * first + second) / 3, atol=2e-3)
    rare = vector_of(found, maps_of(coarsest), np.array([0.5, 0.5, 2.0]))
    np.testing.assert_allclose(rare, (first + 2 * second) / 3, atol=2e-3)
    nothing = vector_of(said([]), maps_of(coarsest), EVEN)
    np.testing.assert_allclose(nothing, coarsest.mean((1, 2)), atol=2e-3)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=20))
def test_regions_anywhere_describe_an_image(corners: list[tuple[float, ...]]) -> None:
    """Also those within a cell, at the edge, and more of them than describe."""
    drawn = np.array(corners)
    low = np.minimum(drawn[:, :2], 1 - 2e-4)
    boxes = np.concatenate([low, np.minimum(low + 1e-4 + drawn[:, 2:], 1.0)], axis=1)
    found = replace(said([0.5] * len(boxes)), boxes=boxes)
    np.testing.assert_allclose(vector_of(found, maps_of(np.ones((2, 3, 4))), EVEN), 1, atol=1e-3)


def test_a_pool_is_gathered_image_by_image() -> None:
    builder = PoolBuilder(EVEN)
    for n, p in enumerate(([0.5, 0.1], [], [0.9])):
        found = said(p)
        builder.add(found, shown(found), maps_of(np.full((2, 3, 4), n)))
    pool = builder.pool()
    assert len(pool) == 3
    np.testing.assert_allclose(pool.worth, [1.36, 0.0, 0.36])
    np.testing.assert_allclose(pool.p_wrong, 0.6)
    np.testing.assert_allclose(pool.vectors, [[0, 0], [1, 1], [2, 2]], atol=1e-6)
    np.testing.assert_allclose(pool.confidence, [0.5, 1.0, 0.9])
    np.testing.assert_allclose(pool.entropy, [np.log(2), 0.0, 0.3250829733914482])
    some = pool.take(np.array([2, 0]))
    np.testing.assert_array_equal(some.worth, pool.worth[[2, 0]])
    np.testing.assert_array_equal(some.vectors, pool.vectors[[2, 0]])


def test_an_empty_pool_gives_nothing() -> None:
    pool = PoolBuilder(EVEN).pool()
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
    same = Pool(np.zeros(9), np.zeros((9, 4), np.float32), np.ones(9), np.ones(9), np.zeros(9))
    assert sorted(select_images(name, same, 9).tolist()) == list(range(9))
    one, other = (select_images(name, same, 4, seed=s).tolist() for s in (0, 1))
    assert one != other  # not always the first ones


def test_rules_put_what_they_measure_first() -> None:
    pool = pool_of(50)
    assert select_images("worth", pool, 9).tolist() == np.argsort(-pool.worth)[:9].tolist()
    low = np.argsort(pool.confidence)[:9].tolist()
    assert select_images("least-confidence", pool, 9).tolist() == low
    assert select_images("entropy", pool, 9).tolist() == np.argsort(-pool.entropy)[:9].tolist()


def groups(*sizes: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Images of several kinds that look alike within a kind: kinds and vectors."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(len(sizes)), sizes)
    # Channels of very different scales, as those of a network.
    scale = np.where(np.arange(8) % 2 == 0, 100.0, 1.0)
    vectors = (np.eye(len(sizes), 8)[kind] + rng.normal(0, noise, (len(kind), 8))) * scale
    return kind, vectors.astype(np.float32)


def test_auto_asks_for_one_of_each_kind_before_a_second() -> None:
    kind, vectors = groups(40, 30, 20, 10)
    ones = np.ones(len(kind))
    pool = Pool(ones, vectors, ones, ones, ones)
    for seed in range(5):
        assert set(kind[select_images("auto", pool, 4, seed=seed)].tolist()) == {0, 1, 2, 3}


def test_auto_leaves_out_kinds_that_labelled_images_show() -> None:
    kind, vectors = groups(40, 30, 20, 10)
    ones = np.ones(len(kind) - 4)
    given = np.array([0, 1, 40, 70])  # of the first three kinds
    left = np.setdiff1d(np.arange(len(kind)), given)
    pool = Pool(ones, vectors[left], ones, ones, ones)
    first = select_images("auto", pool, 1, known=vectors[given])
    assert kind[left][first].tolist() == [3]


def test_auto_asks_where_something_is_likely_wrong() -> None:
    kind, vectors = groups(50, 50)
    ones = np.ones(len(kind))
    wrong = np.where(kind == 0, 0.9, 0.05)
    taken = select_images("auto", Pool(ones, vectors, wrong, ones, ones), 10)
    assert (kind[taken] == 0).sum() >= 8


def test_what_cannot_be_is_refused() -> None:
    pool = pool_of(4)
    with pytest.raises(UnknownNameError, match="Did you mean 'worth'"):
        select_images("wort", pool, 1)
    torn = replace(pool, vectors=pool.vectors[:2])
    with pytest.raises(ShapeError, match="vectors"):
        select_images("auto", torn, 1)
    with pytest.raises(ShapeError, match="known"):
        select_images("auto", pool, 1, known=pool.vectors[:, :2])
