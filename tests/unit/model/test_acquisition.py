from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.acquisition import ACQUISITIONS, Needs, require, select
from model.acquisition.base import Pool, k_means, main_axes, seed_centres, squared_distances
from model.acquisition.variance import rows_for
from model.errors import ModelError, NeedsError, ShapeError, UnknownNameError
from model.types import Predictions
from model.uncertainty.measures import decompose, margin

NAMES = sorted(ACQUISITIONS)
# The same items in another order must give the same items: nothing in these is drawn, and no
# k-means starts from a draw.
STEADY = ["coreset", "entropy", "least-confidence", "margin", "bald", "batchbald", "epig"]


def predictions(margins: np.ndarray) -> Predictions:
    probs = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    zeros = np.zeros(len(margins))
    label = np.zeros(len(margins), np.int64)
    return Predictions(probs, label, probs[:, 0], margins, zeros, zeros, zeros)


class Version:
    """K linear heads on standard normal weights, as `Bundle` and its estimator would answer."""

    def __init__(self, dim: int, *, passes: int = 3, classes: int = 4, seed: int = 0) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(passes, dim, classes))

    def sample(self, features: np.ndarray) -> np.ndarray:
        logits = np.einsum("nd,kdc->nkc", features.astype(np.float64), self.weights)
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        return odds / odds.sum(axis=2, keepdims=True)

    def predict(self, features: np.ndarray) -> Predictions:
        passes = self.sample(features)
        probs = passes.mean(axis=1)
        total, aleatoric, epistemic = decompose(passes)
        label = probs.argmax(axis=1).astype(np.int64)
        return Predictions(
            probs, label, probs.max(axis=1), margin(probs), total, aleatoric, epistemic
        )


def pick(name: str, pool: np.ndarray, n: int, **more: Any) -> list[int]:
    more.setdefault("predictions", predictions(np.random.default_rng(0).random(len(pool))))
    more.setdefault("label_counts", np.array([50, 50]))
    return select(name, pool=pool, n=n, **{"labelled": None, "seed": 0, **more}).rows.tolist()


def groups(count: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Well separated groups, the first the largest: features and group numbers."""
    rng = np.random.default_rng(seed)
    number = np.concatenate([np.arange(count).repeat(each), np.zeros(each, np.int64)])
    centres = 10 * rng.normal(size=(count, 8))
    features = centres[number] + 0.3 * rng.normal(size=(len(number), 8))
    return features.astype(np.float32), number


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 60),
    n=st.integers(0, 70),
    copies=st.integers(1, 5),
    known=st.integers(0, 9),
    classes=st.integers(1, 4),
    has_version=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_pool_gives_distinct_indices_and_the_same_ones_again(
    name: str,
    size: int,
    n: int,
    copies: int,
    known: int,
    classes: int,
    has_version: bool,
    seed: int,
) -> None:
    """Also with duplicates, constant features, more asked for than there is, nothing known."""
    rng = np.random.default_rng(seed)
    pool = np.repeat(rng.normal(size=(size, 4)), copies, axis=0).astype(np.float32)
    if seed == 0:
        pool[:] = 1.0
    version = Version(4, classes=classes, seed=seed)
    arguments: dict[str, Any] = {
        "pool": pool,
        "n": n,
        "labelled": rng.normal(size=(known, 4)).astype(np.float32),
        "label_counts": np.array([known, 0, 3][:classes]),
        "predictions": version.predict(pool) if has_version else None,
        "sample": version.sample if has_version else None,
        "seed": seed,
    }
    chosen = select(name, **arguments)
    rows = chosen.rows.tolist()
    assert chosen.rows.dtype == np.int64
    assert len(chosen) == min(n, len(pool)) == len(set(rows))
    assert all(0 <= index < len(pool) for index in rows)
    if chosen.probability is not None:
        assert chosen.probability.shape == chosen.rows.shape
        assert ((chosen.probability > 0) & (chosen.probability <= 1 + 1e-9)).all()
    np.testing.assert_array_equal(rows, select(name, **arguments).rows)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_pool_gives_nothing(name: str) -> None:
    empty = np.zeros((0, 4), np.float32)
    assert len(select(name, pool=empty, n=5, labelled=None, seed=0)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_of_copies_of_what_is_labelled_is_defined(name: str) -> None:
    pool = np.ones((30, 4), np.float32)
    version = Version(4)
    chosen = pick(
        name, pool, 12, predictions=version.predict(pool), sample=version.sample, labelled=pool[:5]
    )
    assert len(set(chosen)) == 12


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_classes_are_defined(name: str) -> None:
    pool = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    version = Version(5, classes=1000)
    counts = np.full(1000, 2)
    said = version.predict(pool)
    chosen = pick(name, pool, 7, predictions=said, sample=version.sample, label_counts=counts)
    assert len(set(chosen)) == 7


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_are_refused(name: str) -> None:
    pool = np.ones((9, 3), np.float32)
    pool[4, 1] = np.nan
    with pytest.raises(ModelError, match="extract them again"):
        select(name, pool=pool, n=2)


@pytest.mark.parametrize("name", NAMES)
def test_float64_features_choose_the_same(name: str) -> None:
    pool, _ = groups(5, 12)
    version = Version(8)
    more: dict[str, Any] = {"sample": version.sample, "predictions": version.predict(pool)}
    assert pick(name, pool, 6, **more) == pick(name, pool.astype(np.float64), 6, **more)


@pytest.mark.parametrize("name", STEADY)
def test_the_order_of_the_pool_does_not_matter(name: str) -> None:
    pool = np.random.default_rng(3).normal(size=(80, 6)).astype(np.float32)
    version = Version(6)
    turned = np.random.default_rng(4).permutation(len(pool))

    def chosen(features: np.ndarray) -> list[int]:
        said = version.predict(features)
        return pick(name, features, 9, predictions=said, sample=version.sample)

    assert turned[chosen(pool[turned])].tolist() == chosen(pool)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_version_every_rule_works(name: str) -> None:
    pool, _ = groups(4, 10)
    chosen = select(name, pool=pool, n=5, seed=1).rows.tolist()
    assert len(set(chosen)) == 5
    if ACQUISITIONS[name].needs >= Needs.PREDICTIONS:
        assert chosen == select("typical", pool=pool, n=5, seed=1).rows.tolist()


@pytest.mark.parametrize("name", [n for n in NAMES if ACQUISITIONS[n].needs >= Needs.DISAGREEMENT])
def test_one_pass_cannot_disagree(name: str) -> None:
    pool, _ = groups(4, 10)
    version = Version(8, passes=1)
    with pytest.raises(NeedsError, match=f"'{name}' compares passes and the estimator makes 1"):
        pick(name, pool, 3, predictions=version.predict(pool), sample=version.sample)
    with pytest.raises(NeedsError):
        require(name, passes=1)
    require(name, passes=2)


@pytest.mark.parametrize("name", ["batchbald", "epig"])
def test_passes_made_for_each_image_anew_have_no_joint_doubts(name: str) -> None:
    require(name, passes=20, joint=True)
    with pytest.raises(NeedsError, match=f"'{name}' compares what a pass says of several images"):
        require(name, passes=20, joint=False)
    require("bald", passes=2, joint=False)


def test_dropquery_needs_the_version_but_not_disagreement() -> None:
    pool, _ = groups(4, 10)
    version = Version(8, passes=1)
    said = version.predict(pool)
    assert len(set(pick("dropquery", pool, 3, predictions=said, sample=version.sample))) == 3
    with pytest.raises(NeedsError, match="give `sample`"):
        pick("dropquery", pool, 3, predictions=said)
    require("dropquery", passes=1)


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


def test_auto_takes_one_of_each_group_the_largest_first_before_there_is_a_version() -> None:
    pool, number = groups(6, 20)
    chosen = pick("auto", pool, 6, predictions=None)
    assert sorted(number[chosen].tolist()) == list(range(6))
    assert number[chosen[0]] == 0


def test_auto_goes_where_doubt_is_and_spreads_there() -> None:
    pool, number = groups(8, 40)
    margins = np.where(np.isin(number, [2, 3, 5]), 0.1, 0.99)
    labelled = pool[[int(np.flatnonzero(number == group)[0]) for group in range(8)]]
    chosen = pick("auto", pool, 6, predictions=predictions(margins), labelled=labelled)
    assert set(number[chosen].tolist()) == {2, 3, 5}
    assert set(number[chosen[:3]].tolist()) == {2, 3, 5}


def test_auto_leaves_copies_of_what_is_labelled_and_of_each_other() -> None:
    """However doubtful they are: the copies stand for each other."""
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(40, 6)).astype(np.float32)
    pool = np.concatenate([np.repeat(distinct[:2], 30, axis=0), distinct[2:]])
    margins = np.r_[np.full(60, 0.01), np.full(38, 0.5)]
    chosen = pick("auto", pool, 5, predictions=predictions(margins), labelled=distinct[:1])
    assert not set(chosen) & set(range(30))
    assert len(set(chosen) & set(range(30, 60))) == 1


def test_auto_passes_from_typical_to_doubtful_as_labels_come() -> None:
    """An alone and very doubtful item waits for the group while labels are few, then leads."""
    rng = np.random.default_rng(0)
    group = np.array([3.0, 0.0]) + 0.3 * rng.normal(size=(60, 2))
    pool = np.r_[group, [[-3.0, 4.0]], [[0.0, -3.0]]].astype(np.float32)
    margins = np.r_[np.full(60, 0.9), 0.0, 0.95]
    said = predictions(margins)
    few = pool[[61]]
    many = (np.array([3.0, 0.0]) + 0.3 * rng.normal(size=(200, 2))).astype(np.float32)
    assert pick("auto", pool, 1, predictions=said, labelled=few)[0] < 60
    assert pick("auto", pool, 1, predictions=said, labelled=np.r_[few, many]) == [60]


@pytest.mark.parametrize("doubtful", [0.2, 0.02])
@pytest.mark.parametrize("rule", ["auto", "herding"])
def test_a_large_pool_is_drawn_in_proportion_to_its_doubt(
    monkeypatch: pytest.MonkeyPatch, doubtful: float, rule: str
) -> None:
    for module in ("herding", "variance"):
        monkeypatch.setattr(f"model.acquisition.{module}.MOST_ROWS", 100)
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(3000, 5)).astype(np.float32)
    margins = np.where(rng.random(3000) < doubtful, 0.0, 1.0)
    chosen = pick(rule, pool, 30, predictions=predictions(margins), labelled=pool[:9] + 9)
    assert (margins[chosen] == 0.0).mean() > 0.8  # a sure item may stand for doubtful ones


def test_auto_herds_the_first_batch_and_batches_too_large_to_look_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    pool, said = rng.normal(size=(300, 5)).astype(np.float32), predictions(rng.random(300))
    labelled = rng.normal(size=(9, 5)).astype(np.float32)
    first = pick("auto", pool, 20, predictions=None)
    assert first == pick("herding", pool, 20, predictions=None)
    later = pick("auto", pool, 20, predictions=said, labelled=labelled)
    assert later == pick("v-optimal", pool, 20, predictions=said, labelled=labelled)
    herded = pick("herding", pool, 20, predictions=said, labelled=labelled)
    assert later != herded
    monkeypatch.setattr("model.acquisition.automatic.MOST_CHOSEN", 19)
    large = pick("auto", pool, 20, predictions=said, labelled=labelled)
    assert large == herded


def test_variance_is_lowered_without_every_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many labels those nearest to the pool's doubt count: far ones change no choice."""
    rng = np.random.default_rng(0)
    pool, said = rng.normal(size=(200, 8)).astype(np.float32), predictions(rng.random(200))
    near, far = pool[:30] + 0.01, -40.0 * pool.mean(axis=0) - 5.0 * np.eye(8, dtype=np.float32)
    labelled = np.concatenate([near, far.astype(np.float32)])
    every = pick("v-optimal", pool, 10, predictions=said, labelled=labelled)
    monkeypatch.setattr("model.acquisition.variance.MOST_LABELS", 34)
    some = pick("v-optimal", pool, 10, predictions=said, labelled=labelled)
    assert len(set(every) & set(some)) >= 8
    assert not set(some) & set(range(30))  # copies of what is labelled


@pytest.mark.parametrize(("n", "labels"), [(1, 0), (40, 20), (40, 1000), (400, 1000)])
def test_rows_looked_at_are_bounded_and_hold_the_batch(n: int, labels: int) -> None:
    assert 4 * n <= rows_for(n, labels) <= 6_000
    assert rows_for(n, labels + 500) <= rows_for(n, labels)
    assert rows_for(n, 10**6) == rows_for(n, 10**7) > 0  # no more labels are looked at


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


def test_main_axes_keep_distances_in_few_directions() -> None:
    """Features that vary in 5 of 40 directions lose nothing in 6 axes."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(300, 5)) @ rng.normal(size=(5, 40)) + 3.0).astype(np.float32)
    centre = features.mean(axis=0)
    axes = main_axes(features, centre, 6)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-5)
    pool = Pool(features, None, None, None)
    full = squared_distances(pool.rows, pool.rows[:9])
    np.testing.assert_allclose(
        squared_distances(pool.rows @ axes, pool.rows[:9] @ axes), full, atol=1e-4
    )


def test_a_large_pool_is_projected_and_chooses_from_separate_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, number = groups(6, 200)
    monkeypatch.setattr("model.acquisition.base.MOST_VALUES", 1000)
    monkeypatch.setattr("model.acquisition.base.MOST_AXES", 5)
    assert Pool(pool, None, None, None).rows.shape == (len(pool), 5)
    for name in ("typical", "probcover", "coreset"):
        chosen = pick(name, pool, 6, label_counts=np.ones(6, np.int64))
        assert sorted(number[chosen].tolist()) == list(range(6))
