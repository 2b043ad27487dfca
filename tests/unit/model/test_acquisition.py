from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.acquisition import ACQUISITIONS, auto, select
from model.acquisition.base import Pool, k_means, seed_centres, squared_distances
from model.errors import ShapeError, UnknownNameError
from model.types import Predictions

NAMES = sorted(ACQUISITIONS)


def predictions(margins: np.ndarray) -> Predictions:
    probs = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    zeros = np.zeros(len(margins))
    label = np.zeros(len(margins), np.int64)
    return Predictions(probs, label, probs[:, 0], margins, zeros, zeros, zeros)


def pick(name: str, pool: np.ndarray, n: int, **more: Any) -> list[int]:
    more.setdefault("predictions", predictions(np.random.default_rng(0).random(len(pool))))
    more.setdefault("label_counts", np.array([50, 50]))
    return select(name, pool=pool, n=n, **{"labelled": None, "seed": 0, **more}).tolist()


def groups(count: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Well separated groups, the first the largest: features and group numbers."""
    rng = np.random.default_rng(seed)
    number = np.concatenate([np.arange(count).repeat(each), np.zeros(each, np.int64)])
    centres = 10 * rng.normal(size=(count, 8))
    features = centres[number] + 0.3 * rng.normal(size=(len(number), 8))
    return features.astype(np.float32), number


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 60),
    n=st.integers(0, 70),
    copies=st.integers(1, 5),
    known=st.integers(0, 9),
    has_version=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_pool_gives_distinct_indices_and_the_same_ones_again(
    name: str, size: int, n: int, copies: int, known: int, has_version: bool, seed: int
) -> None:
    """Also with duplicates, constant features, more asked for than there is, nothing known."""
    rng = np.random.default_rng(seed)
    pool = np.repeat(rng.normal(size=(size, 4)), copies, axis=0).astype(np.float32)
    if seed == 0:
        pool[:] = 1.0
    arguments: dict[str, Any] = {
        "pool": pool,
        "n": n,
        "labelled": rng.normal(size=(known, 4)).astype(np.float32),
        "label_counts": np.array([known, 0, 3]),
        "predictions": predictions(rng.random(len(pool)).round(1)) if has_version else None,
        "seed": seed,
    }
    chosen = select(name, **arguments)
    assert chosen.dtype == np.int64
    assert len(chosen) == min(n, len(pool)) == len(set(chosen.tolist()))
    assert all(0 <= index < len(pool) for index in chosen)
    np.testing.assert_array_equal(chosen, select(name, **arguments))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_pool_gives_nothing(name: str) -> None:
    empty = np.zeros((0, 4), np.float32)
    assert select(name, pool=empty, n=5, labelled=None, seed=0).tolist() == []


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_defined(name: str) -> None:
    pool, _ = groups(3, 5)
    one = Predictions(*[np.ones((20, 1)), np.zeros(20, np.int64), *[np.ones(20)] * 5])
    assert len(set(pick(name, pool, 6, predictions=one, label_counts=np.array([40])))) == 6


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    pool, _ = groups(3, 5)
    with pytest.raises(ShapeError):
        pick("auto", pool, 3, predictions=predictions(np.zeros(3)))
    with pytest.raises(ShapeError):
        pick("auto", pool, 3, labelled=np.zeros((2, 3), np.float32))
    with pytest.raises(UnknownNameError, match="Did you mean 'margin'"):
        pick("margn", pool, 3)


def test_margin_takes_the_smallest_first() -> None:
    margins = np.array([0.9, 0.1, 0.5, 0.3])
    assert pick("margin", np.eye(4, dtype=np.float32), 3, predictions=predictions(margins)) == [
        1,
        3,
        2,
    ]


def test_random_is_uniform() -> None:
    pool = np.zeros((10, 2), np.float32)
    drawn = [index for seed in range(600) for index in pick("random", pool, 2, seed=seed)]
    counts = np.bincount(drawn, minlength=10)
    assert ((counts - 120) ** 2 / 120).sum() < 27.9  # chi-square, 9 degrees, 0.1 %


def test_typical_takes_one_of_each_group_the_largest_first_and_its_densest_point() -> None:
    pool, number = groups(6, 20)
    chosen = pick("typical", pool, 6)
    assert sorted(number[chosen].tolist()) == list(range(6))
    assert number[chosen[0]] == 0
    for index in chosen:
        mates = pool[number == number[index]]
        distance = np.linalg.norm(mates - mates.mean(axis=0), axis=1)
        assert np.linalg.norm(pool[index] - mates.mean(axis=0)) <= np.median(distance)


def test_typical_avoids_groups_that_have_labels() -> None:
    pool, number = groups(6, 20)
    labelled = pool[[int(np.flatnonzero(number == group)[0]) for group in range(3)]]
    assert set(number[pick("typical", pool, 3, labelled=labelled)].tolist()) == {3, 4, 5}


def test_margin_cluster_spreads_over_groups_where_margin_does_not() -> None:
    pool, number = groups(8, 40)
    margins = np.where(number == 3, 0.01, 0.2) + np.random.default_rng(2).random(len(pool)) / 100
    doubt = predictions(margins)
    assert set(number[pick("margin", pool, 8, predictions=doubt)].tolist()) == {3}
    spread = pick("margin-cluster", pool, 8, predictions=doubt)
    assert len(set(number[spread].tolist())) >= 5
    assert margins[spread].tolist() == sorted(margins[spread].tolist())


def test_margin_cluster_takes_only_the_ten_batches_of_smallest_margin() -> None:
    pool = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    margins = np.random.default_rng(1).random(500)
    chosen = pick("margin-cluster", pool, 5, predictions=predictions(margins))
    assert margins[chosen].max() <= np.sort(margins)[49]


def test_auto_changes_from_typical_at_two_labels_a_class() -> None:
    pool, _ = groups(5, 10)
    margins = np.random.default_rng(4).random(len(pool))

    def chosen(counts: list[int], has_version: bool = True) -> list[int]:
        version = predictions(margins) if has_version else None
        return auto(Pool(pool, None, np.array(counts), version), 5, seed=0).tolist()

    typical = pick("typical", pool, 5, predictions=predictions(margins))
    clustered = pick("margin-cluster", pool, 5, predictions=predictions(margins))
    assert typical != clustered
    assert chosen([2, 1]) == typical
    assert chosen([2, 2]) == clustered
    assert chosen([9, 9], has_version=False) == typical


def test_k_means_finds_separate_groups() -> None:
    features, number = groups(5, 30)
    cluster, distance = k_means(features, np.ones(len(features)), 5, np.random.default_rng(0))
    assert len(set(zip(cluster.tolist(), number.tolist(), strict=True))) == 5
    for group in range(5):
        rows = features[number == group]
        expected = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1)
        np.testing.assert_allclose(distance[number == group], expected, atol=0.01)


def test_weights_pull_the_centres() -> None:
    rows = np.array([[0.0], [1.0]], np.float32)
    _, distance = k_means(rows, np.array([3.0, 1.0]), 1, np.random.default_rng(0))
    assert np.sqrt(distance) == pytest.approx([0.25, 0.75])


def test_seeds_are_distinct_points_and_follow_the_weights() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert len(seed_centres(rows, np.ones(12), 10, np.random.default_rng(0))) == 3
    weights = np.r_[np.full(4, 1e-9), np.ones(8)]
    first = [int(seed_centres(rows, weights, 1, np.random.default_rng(s))[0]) for s in range(50)]
    assert min(first) >= 4


def test_squared_distances_equal_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    expected = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(a, b), expected, rtol=1e-4)
    assert squared_distances(a, a).min() >= 0
