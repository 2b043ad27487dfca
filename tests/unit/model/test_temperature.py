from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from model.calibration.base import logit, with_top
from model.calibration.temperature import (
    fit_temperature,
    fold_weights,
    refit_temperature,
    soften,
)
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


def test_few_labels_stay_near_what_is_expected() -> None:
    probs = np.array([[0.999, 0.001], [0.999, 0.001]])
    assert fit_temperature(probs, np.array([0, 0])) == pytest.approx(0.9, abs=0.01)
    assert 0.9 < fit_temperature(probs, np.array([1, 1])) < 4.0


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


def test_a_temperature_that_knows_of_a_handicap_against_brute_force() -> None:
    """Every temperature of a fine grid, with the lowering done by `with_top`."""
    probs, labels = drawn(300, seed=3)
    rng = np.random.default_rng(4)
    weights, lowered = rng.uniform(0.2, 1.0, 300), np.where(rng.random(300) < 0.7, 0.8, 0.0)

    def loss(temperature: float) -> float:
        softened = soften(probs, temperature)
        stated = with_top(softened, expit(logit(softened.max(axis=1)) - lowered))
        brier = ((stated - np.eye(4)[labels]) ** 2).sum(axis=1)
        return float(weights @ brier + 2.0 * np.log1p((np.log(temperature / 0.9) / 0.7) ** 2))

    grid = np.exp(np.linspace(-1.5, 1.5, 1501))
    best = grid[np.argmin([loss(float(value)) for value in grid])]
    found = refit_temperature(probs, labels, weights, lowered=lowered, near=1.0)
    assert found == pytest.approx(best, rel=5e-3)
    plain = refit_temperature(probs, labels, weights, lowered=np.zeros(300), near=1.0)
    assert plain == pytest.approx(fit_temperature(probs, labels, weights), rel=5e-3)
    assert found < 0.97 * plain


def test_errors_of_chosen_labels_do_not_soften_what_is_drawn() -> None:
    """Chosen labels are wrong more often than they look: the temperature is not their cure."""
    probs, labels = drawn(3000, seed=5)
    chosen = np.arange(3000) < 2000
    rng = np.random.default_rng(6)
    top = probs.max(axis=1)
    spoilt = chosen & (rng.random(3000) > expit(logit(top) - 0.8) / top)
    labels = np.where(spoilt, probs.argsort(axis=1)[:, -2], labels)
    weights = np.ones(3000)
    plain = fit_temperature(probs, labels, weights)
    aware = refit_temperature(
        probs, labels, weights, lowered=np.where(chosen, 0.8, 0.0), near=plain
    )
    assert plain > 1.15
    assert abs(aware - 1.0) < 0.5 * (plain - 1.0)
