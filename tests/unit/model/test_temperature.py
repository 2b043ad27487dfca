from __future__ import annotations

import numpy as np
import pytest

from model.calibration.temperature import fit_temperature, fold_weights, soften
from model.errors import ShapeError


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right by construction, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(4, 0.5), count)
    labels = (probs.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return probs, labels


def test_softening_by_one_changes_nothing_and_others_are_powers() -> None:
    probs, _ = drawn(20)
    np.testing.assert_allclose(soften(probs, 1.0), probs)
    expected = np.sqrt(probs) / np.sqrt(probs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soften(probs, 2.0), expected, atol=1e-6)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_the_temperature_that_was_applied_is_found(true: float) -> None:
    probs, labels = drawn(4000)
    assert fit_temperature(soften(probs, 1 / true), labels) == pytest.approx(true, rel=0.1)


def test_few_labels_stay_near_one() -> None:
    probs = np.array([[0.999, 0.001], [0.999, 0.001]])
    assert 0.4 < fit_temperature(probs, np.array([0, 0])) <= 1.0
    assert 1.0 < fit_temperature(probs, np.array([1, 1])) < 4.0


def test_a_class_its_fold_has_lost_does_not_run_away() -> None:
    probs, labels = drawn(60)
    probs[:5] = [1 - 3e-9, 1e-9, 1e-9, 1e-9]
    labels[:5] = 3
    assert fit_temperature(probs, labels) < 2.0


def test_zero_probabilities_and_no_labels_are_defined() -> None:
    assert np.isfinite(soften(np.array([[1.0, 0.0]]), 0.3)).all()
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0
    assert fit_temperature(np.ones((3, 1)), np.zeros(3, np.int64)) == 1.0
    with pytest.raises(ShapeError):
        fit_temperature(np.zeros((3, 2, 2)), np.zeros(3, np.int64))
    with pytest.raises(ShapeError):
        fit_temperature(np.zeros((3, 2)), np.zeros(4, np.int64))


def test_weights_count_labels_as_copies_would() -> None:
    probs, labels = drawn(60)
    copies = np.random.default_rng(1).integers(0, 4, 60)
    weighted = fit_temperature(probs, labels, copies.astype(float))
    assert weighted == pytest.approx(
        fit_temperature(np.repeat(probs, copies, axis=0), np.repeat(labels, copies)), rel=1e-2
    )
    assert fit_temperature(probs, labels, np.zeros(60)) == 1.0
    with pytest.raises(ShapeError):
        fit_temperature(probs, labels, np.ones(3))


def test_a_label_counts_as_far_as_its_class_survives_holding_it_out() -> None:
    weights = fold_weights(np.array([0, 1, 1, 5, 5, 5, 5]))
    assert weights.tolist() == pytest.approx([0, 1 / 16, 1 / 16, *[81 / 256] * 4])
