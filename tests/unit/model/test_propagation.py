from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.errors import ModelError, ShapeError, UnknownNameError
from model.heads.problem import stratified_folds
from model.heads.propagated import (
    DIMENSIONS,
    LARGE_WEIGHTS,
    PropagatedEstimator,
    choose_weight,
    evenly,
    held_out,
    mix,
    restore,
    seeds_of,
    spread,
    to_probs,
    unlabelled,
)
from model.heads.propagation import (
    knn_graph,
    nearest,
    principal_axes,
    project,
    propagate,
    read_out,
)
from model.heads.roots import signed_root
from model.types import Labelled
from model.uncertainty import DEFAULT_ESTIMATOR, ESTIMATORS


def unit_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def spirals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three arcs that a straight border does not part, and that neighbours follow."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    turn = rng.random(count) * 3.5
    angle = turn + labels * 2 * np.pi / 3
    radius = 0.4 + turn
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    waves = np.random.default_rng(7).normal(size=(2, 120)) * 2.0
    phases = np.random.default_rng(8).random(120) * 2 * np.pi
    return np.cos(points @ waves + phases).astype(np.float32), labels


@pytest.mark.parametrize(("others", "k"), [(7, 10), (300, 10), (1000, 3), (1003, 12)])
def test_neighbours_are_those_of_scikit_learn(others: int, k: int) -> None:
    reference = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    queries, rows = unit_rows(40, 6, 1), unit_rows(others, 6)
    index, cosine = nearest(queries, rows, k)
    expected = reference(n_neighbors=min(k, others), metric="cosine").fit(rows)
    distance, indices = expected.kneighbors(queries)
    np.testing.assert_array_equal(index, indices)
    np.testing.assert_allclose(cosine, 1 - distance, atol=1e-5)


def crowded(kind: str, dim: int = 6) -> np.ndarray:
    rows = unit_rows(1, dim) if kind == "one" else unit_rows(400, dim)
    if kind == "few":
        rows = rows[:4]
    if kind == "copies":
        rows = np.tile(rows[:3], (130, 1))
    if kind == "same":
        rows[:] = rows[0]
    if kind == "zeros":
        rows[::2] = 0.0
    return rows


@pytest.mark.parametrize("kind", ["one", "few", "copies", "same", "zeros", "apart"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("count", [1, 2, 513])
def test_neighbours_are_those_of_brute_force(kind: str, order: str, count: int) -> None:
    """One query goes a way of its own; whichever of equals are given, the cosines are known."""
    rows = np.array(crowded(kind), order=order)
    queries = unit_rows(count, 6, 1)
    queries[0] = rows[-1]  # of length 0 or one of them
    index, cosine = nearest(queries, rows, 10)
    all_of_them = queries.astype(np.float64) @ rows.astype(np.float64).T
    expected = -np.sort(-all_of_them, axis=1)[:, :10]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(all_of_them, index, 1), cosine, atol=1e-6)
    assert all(len(set(found)) == min(10, len(rows)) for found in index.tolist())
    values = np.random.default_rng(2).random((len(rows), 3)).astype(np.float32)
    weight = np.maximum(cosine, 0) ** 3
    total = np.where(weight.any(axis=1), weight.sum(axis=1), 1.0)
    mean = np.einsum("nk,nkc->nc", weight, values[index]) / total[:, None]
    np.testing.assert_allclose(read_out(index, cosine, values), mean, atol=1e-5)


def test_a_row_on_its_own_has_no_neighbour_but_itself() -> None:
    row = unit_rows(1, 6)
    assert nearest(row, row, 3, skip_own=True)[0].shape == (1, 0)
    assert nearest(row, row, 3)[0].tolist() == [[0]]


def test_the_graph_is_the_symmetric_normalised_one() -> None:
    reference = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    rows = unit_rows(700, 5)
    distance, index = reference(n_neighbors=4, metric="cosine").fit(rows).kneighbors()
    dense = np.zeros((700, 700))
    dense[np.arange(700)[:, None], index] = np.maximum(1 - distance, 0) ** 3
    dense += dense.T
    degree = dense.sum(axis=1)
    expected = dense / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(knn_graph(rows, 4).toarray(), expected, atol=1e-5)


def test_many_steps_end_at_the_closed_form() -> None:
    graph = knn_graph(unit_rows(20, 3), 4)
    seeds = np.eye(20, 3, dtype=np.float32)
    expected = 0.2 * np.linalg.solve(np.eye(20) - 0.8 * graph.toarray(), seeds)
    found = propagate(graph, seeds, alpha=0.8, steps=200)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (propagate(graph, seeds) >= 0).all()
    with pytest.raises(ShapeError):
        propagate(graph, seeds[:5])


def test_reading_out_is_a_weighted_mean() -> None:
    queries, rows = unit_rows(9, 4, 1), unit_rows(50, 4)
    values = np.random.default_rng(2).random((50, 3)).astype(np.float32)
    found = read_out(*nearest(queries, rows, 5), values)
    for query, row in zip(queries, found, strict=True):
        cosine = rows @ query
        best = np.argsort(-cosine)[:5]
        weight = np.maximum(cosine[best], 0) ** 3
        np.testing.assert_allclose(row, weight @ values[best] / weight.sum(), atol=1e-5)
    nothing = read_out(*nearest(np.zeros((1, 4), np.float32), rows, 5), values)
    assert nothing.tolist() == [[0.0, 0.0, 0.0]]


def test_principal_axes_hold_what_the_exact_ones_hold() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(200, 30)) * np.geomspace(3, 0.03, 30)).astype(np.float32)
    axes = principal_axes(rows, 8, rng)
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-5)
    exact = (np.linalg.svd(rows, compute_uv=False)[:8] ** 2).sum()
    along = ((rows @ axes) ** 2).sum(axis=0)
    assert along.sum() > 0.95 * exact
    assert (np.diff(along) <= 0).all()
    assert principal_axes(rows[:3], 8, rng).shape == (30, 3)


def test_mixing_is_the_softmax_of_mixed_logarithms() -> None:
    rng = np.random.default_rng(0)
    passes, probs = rng.dirichlet(np.ones(4), (5, 3)), rng.dirichlet(np.ones(4), 5)
    expected = passes**0.7 * probs[:, None] ** 0.3
    expected /= expected.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(mix(passes, probs, 0.3), expected)
    assert mix(passes, probs, 0.0) is passes


def test_a_class_without_a_label_keeps_its_share() -> None:
    passes = np.array([[[0.6, 0.3, 0.1]], [[0.0, 0.0, 1.0]]])
    found = mix(passes, np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]), 0.5)
    np.testing.assert_allclose(found.sum(axis=2), 1)
    assert found[0, 0, 2] == pytest.approx(0.1)
    assert found[1].tolist() == passes[1].tolist()


def held(
    features: np.ndarray, labels: np.ndarray, fold: np.ndarray, pool: np.ndarray
) -> np.ndarray:
    flow, _ = spread(
        features, labels, 3, pool=pool, centre=pool.mean(axis=0), rng=np.random.default_rng(0)
    )
    return held_out(flow, labels, 3, fold)


def test_a_label_never_speaks_for_itself() -> None:
    features, labels = spirals(60, 0)
    pool, _ = spirals(200, 1)
    fold = stratified_folds(labels, 5, np.random.default_rng(0))
    before = held(features, labels, fold, np.concatenate([pool, features]))
    for item in (0, 17, 59):
        flipped = labels.copy()
        flipped[item] = (labels[item] + 1) % 3
        after = held(features, flipped, fold, np.concatenate([pool, features]))
        np.testing.assert_array_equal(after[fold == fold[item]], before[fold == fold[item]])
        assert not np.array_equal(after, before)


def test_folds_equal_a_graph_that_never_had_the_labels() -> None:
    features, labels = spirals(30, 0)
    pool, _ = spirals(80, 1)
    flow, reading = spread(
        features, labels, 3, pool=pool, centre=pool.mean(axis=0), rng=np.random.default_rng(0)
    )
    fold = np.arange(30) % 3
    found = held_out(flow, labels, 3, fold)
    graph = knn_graph(reading.anchors)
    for f in range(3):
        seeds = np.zeros((110, 3), np.float32)
        kept = np.flatnonzero(fold != f)
        seeds[kept] = seeds_of(labels[kept], 3)
        values = propagate(graph, seeds)
        for item in np.flatnonzero(fold == f):
            cosine = reading.anchors @ reading.anchors[item]
            best = [j for j in np.argsort(-cosine) if j != item][:10]
            read = np.maximum(cosine[best], 0) ** 3 @ values[best]
            read /= (np.maximum(cosine[best], 0) ** 3).sum()
            floor = 0.1 * float(values.mean(axis=0).sum())
            expected = to_probs(read[None], evenly(floor, np.ones(3, bool)))[0]
            np.testing.assert_allclose(found[item], expected, atol=1e-4)


def test_neighbours_that_know_more_get_weight() -> None:
    features, labels = spirals(60, 0)
    pool, _ = spirals(1500, 1)
    test, truth = spirals(800, 2)
    data = Labelled(features, labels, np.ones(60, bool))
    plain = fit(data, ["a", "b", "c"], pool=pool, config=EngineConfig(propagation="off"))
    full = fit(data, ["a", "b", "c"], pool=pool)
    assert plain.metrics["propagation"] == 0.0
    assert full.metrics["propagation"] > 0.0
    right = [(bundle.predict(test).label == truth).mean() for bundle in (plain, full)]
    assert right[1] > right[0]


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_that_know_nothing_get_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 90)
    good = 0.7 * np.eye(3)[labels] + 0.1
    assert choose_weight(good[:, None], rng.dirichlet(np.ones(3), 90), labels) == 0.0
    assert choose_weight(rng.dirichlet(np.ones(3), (90, 2)), good, labels) == max(LARGE_WEIGHTS)
    assert choose_weight(good[:3, None], good[:3], np.arange(3)) == 0.0


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_it_is_stored_with_any_estimator(estimator: str, tmp_path: Path) -> None:
    features, labels = spirals(90, 0)
    pool, _ = spirals(600, 1)
    data = Labelled(features, labels, np.ones(90, bool))
    plain = fit(data, ["a", "b", "c"], config=EngineConfig(estimator=estimator, propagation="off"))
    _, reading = spread(
        features, labels, 3, pool=pool, centre=pool.mean(axis=0), rng=np.random.default_rng(0)
    )
    bundle = replace(plain, estimator=PropagatedEstimator(plain.estimator, 0.3, reading))
    bundle.save(tmp_path / "v1")
    again = Bundle.load(tmp_path / "v1")
    assert again.estimator.passes == bundle.estimator.passes
    test, _ = spirals(40, 3)
    found = bundle.predict(test)
    assert not np.allclose(found.probs, plain.predict(test).probs, atol=1e-3)
    np.testing.assert_array_equal(again.predict(test).probs, found.probs)
    np.testing.assert_allclose(found.probs.sum(axis=1), 1)
    turned = bundle.predict(test[::-1])
    np.testing.assert_allclose(turned.probs[::-1], found.probs, atol=1e-6)
    for row in (0, 17):
        alone = bundle.predict(test[row : row + 1])
        for name, values in vars(found).items():
            np.testing.assert_allclose(getattr(alone, name)[0], values[row], atol=1e-5)


def test_the_head_and_the_neighbours_read_the_same_rows() -> None:
    features, labels = spirals(60, 0)
    pool, _ = spirals(200, 1)
    bundle = fit(Labelled(features, labels, np.ones(60, bool)), ["a", "b", "c"], pool=pool)
    both = bundle.estimator
    assert isinstance(both, PropagatedEstimator)
    asked = signed_root(pool[:9]) if bundle.roots else pool[:9]
    centre = (signed_root(pool) if bundle.roots else pool).mean(axis=0)
    rows = asked - centre
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(both.rows(asked), rows, atol=1e-5)
    expected = mix(both.head.sample(asked), both.reading(rows), both.weight)
    np.testing.assert_allclose(both.sample(asked), expected, atol=1e-4)


def test_versions_that_stored_a_centre_for_the_neighbours_are_read() -> None:
    """It was always that of the head."""
    features, labels = spirals(60, 0)
    pool, _ = spirals(200, 1)
    both = fit(Labelled(features, labels, np.ones(60, bool)), ["a", "b", "c"], pool=pool).estimator
    arrays = {**both.arrays(), "propagation.centre": pool.mean(axis=0)}
    again = restore(ESTIMATORS[DEFAULT_ESTIMATOR], arrays)
    assert isinstance(again, PropagatedEstimator)
    np.testing.assert_array_equal(again.sample(pool[:9]), both.sample(pool[:9]))


@pytest.mark.parametrize(
    ("count", "classes", "pool_size", "kind"),
    [
        (2, 2, 1, "normal"),
        (12, 3, 4, "normal"),
        (40, 3, 60, "copies"),
        (40, 3, 60, "constant"),
        (400, 3, 500, "constant"),
        (30, 1000, 50, "normal"),
        (1000, 1000, 200, "normal"),
        (30, 3, 0, "normal"),
    ],
)
def test_bad_pools_are_defined(count: int, classes: int, pool_size: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 20)).astype(np.float32)
    pool = rng.normal(size=(pool_size, 20)).astype(np.float32)
    if kind == "copies":
        features[:], pool[:] = features[0], features[0]
        features[1] += 1.0
    if kind == "constant":
        features[:], pool[:] = 1.0, 1.0
    labels = rng.integers(0, classes, count)
    labels[:2] = [0, classes - 1]
    names = [str(number) for number in range(classes)]
    bundle = fit(Labelled(features, labels, np.zeros(count, bool)), names, pool=pool)
    found = bundle.predict(features)
    np.testing.assert_allclose(found.probs.sum(axis=1), 1)
    assert (found.probs >= 0).all()
    assert bundle.out_of_fold_right is not None


def test_one_class_is_left_to_the_head() -> None:
    features = unit_rows(20, 8)
    bundle = fit(
        Labelled(features, np.zeros(20, np.int64), np.ones(20, bool)),
        ["a", "b"],
        pool=unit_rows(50, 8, 1),
    )
    assert bundle.metrics["propagation"] == 0.0
    assert set(bundle.predict(features).label.tolist()) == {0}


def test_a_large_pool_is_sampled_and_labels_are_always_anchors() -> None:
    pool = np.random.default_rng(0).normal(size=(10_500, 4)).astype(np.float32)
    labels = np.arange(30) % 3
    _, reading = spread(
        pool[:30], labels, 3, pool=pool, centre=pool.mean(axis=0), rng=np.random.default_rng(0)
    )
    assert len(reading.anchors) == 10_000
    rows = project(pool[:30] - pool.mean(axis=0), reading.axes)
    np.testing.assert_allclose(reading.anchors[:30], rows, atol=1e-5)
    assert (reading.anchors[30:] @ rows.T).max() < 1 - 1e-7  # none of them twice


def test_neighbours_are_sought_in_the_leading_directions() -> None:
    rng = np.random.default_rng(0)
    pool = (rng.normal(size=(600, 300)) * np.geomspace(3, 0.03, 300)).astype(np.float32)
    _, reading = spread(
        pool[:30], np.arange(30) % 3, 3, pool=pool, centre=pool.mean(axis=0), rng=rng
    )
    assert reading.axes.shape == (300, DIMENSIONS)
    rows = pool - pool.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    held = ((rows @ reading.axes) ** 2).sum()
    most = (np.linalg.svd(rows, compute_uv=False)[:DIMENSIONS] ** 2).sum()
    assert held > 0.999 * most


def test_what_cannot_propagate_is_refused() -> None:
    features = unit_rows(20, 8)
    data = Labelled(features, np.arange(20) % 2, np.ones(20, bool))
    with pytest.raises(UnknownNameError, match="unknown propagation 'of'"):
        fit(data, ["a", "b"], config=EngineConfig(propagation="of"))
    with pytest.raises(ModelError, match="pool are not all finite"):
        fit(data, ["a", "b"], pool=features * np.nan)


def test_labelled_rows_of_a_pool_are_recognised() -> None:
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((50, 100)).astype(np.float32)
    found = unlabelled(pool, pool[[3, 7]])
    assert np.flatnonzero(~found).tolist() == [3, 7]
    np.testing.assert_array_equal(unlabelled(pool[:, :64], pool[[3, 7]]), found)
    assert unlabelled(pool[:0], pool).shape == (0,)
