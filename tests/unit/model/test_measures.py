from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import entropy as reference
from scipy.stats import mode

from model.errors import ModelError, ShapeError
from model.uncertainty import measures
from model.uncertainty.measures import (
    decompose,
    dirichlet_entropy,
    entropy,
    knn_novelty,
    least_confidence,
    margin,
    vacuity,
    variation_ratio,
)


@given(st.integers(0, 500), st.integers(1, 6), st.integers(1, 5))
def test_parts_add_up_and_are_never_negative(seed: int, passes: int, classes: int) -> None:
    probs = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (7, passes))
    total, aleatoric, epistemic = decompose(probs)
    np.testing.assert_allclose(total, reference(probs.mean(axis=1), axis=1), atol=1e-9)
    np.testing.assert_allclose(aleatoric, reference(probs, axis=2).mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(aleatoric + epistemic, total, atol=1e-12)
    assert (epistemic >= 0).all()
    assert (epistemic <= math.log(max(1, min(passes, classes))) + 1e-9).all()


def test_two_certain_passes_that_disagree_are_all_epistemic() -> None:
    total, aleatoric, epistemic = decompose(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    assert total[0] == epistemic[0] == pytest.approx(math.log(2))
    assert aleatoric[0] == 0


def test_equal_passes_have_no_epistemic_part() -> None:
    assert decompose(np.full((3, 4, 5), 0.2))[2].max() == 0


def test_entropy_at_zero_is_not_nan() -> None:
    assert entropy(np.array([0.0, 1.0])) == 0


def test_margin() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert margin(probs) == pytest.approx([0.2, 0.0])
    assert margin(np.ones((2, 1))).tolist() == [1.0, 1.0]
    with pytest.raises(ShapeError):
        margin(np.zeros((2, 0)))
    with pytest.raises(ShapeError):
        decompose(np.zeros((2, 3)))


def test_least_confidence_and_variation_ratio() -> None:
    assert least_confidence(np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])) == pytest.approx([0.5, 0])
    probs = np.random.default_rng(0).dirichlet(np.ones(4), (50, 7))
    votes = probs.argmax(axis=2)
    expected = [1 - mode(row).count / 7 for row in votes]
    np.testing.assert_allclose(variation_ratio(probs), expected)
    assert variation_ratio(probs[:, :1]).max() == 0
    with pytest.raises(ShapeError):
        variation_ratio(np.zeros((2, 3)))
    with pytest.raises(ShapeError):
        least_confidence(np.zeros((2, 0)))


def test_vacuity_falls_with_evidence_and_is_one_without() -> None:
    alpha = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [100.0, 1.0, 1.0]])
    assert vacuity(alpha) == pytest.approx([1, 3 / 4, 3 / 102])
    for measure in (vacuity, dirichlet_entropy):
        with pytest.raises(ModelError, match="above 0"):
            measure(np.array([[1.0, 0.0]]))
        with pytest.raises(ShapeError):
            measure(np.ones(3))


def test_expected_entropy_of_a_dirichlet_is_that_of_its_draws() -> None:
    alpha = np.array([[0.3, 1.0, 5.0], [2.0, 2.0, 2.0]])
    rng = np.random.default_rng(0)
    drawn = [reference(rng.dirichlet(row, 200_000), axis=1).mean() for row in alpha]
    np.testing.assert_allclose(dirichlet_entropy(alpha), drawn, atol=2e-3)


@pytest.mark.parametrize("block", [1, 7, 4_000_000])
def test_novelty_is_the_distance_to_the_nearest_labels(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    pool, labelled = rng.normal(size=(40, 6)), rng.normal(size=(9, 6))
    found = np.sort(cdist(pool, labelled), axis=1)
    np.testing.assert_allclose(knn_novelty(pool, labelled, 3), found[:, :3].mean(axis=1))
    np.testing.assert_allclose(knn_novelty(pool, labelled, 50), found.mean(axis=1))
    single = knn_novelty(pool.astype(np.float32), labelled.astype(np.float32), 3)
    np.testing.assert_allclose(single, knn_novelty(pool, labelled, 3), atol=1e-4)


def test_novelty_at_the_edges_is_defined() -> None:
    points = np.arange(6.0).reshape(3, 2)
    assert knn_novelty(points, points, 1).tolist() == [0, 0, 0]
    assert np.isinf(knn_novelty(points, np.zeros((0, 2)))).all()
    assert knn_novelty(points[:0], points).shape == (0,)
    with pytest.raises(ModelError, match="at least 1"):
        knn_novelty(points, points, 0)
    with pytest.raises(ShapeError):
        knn_novelty(points, np.zeros((3, 5)))
