"""Labels that count less in a fit, and what is measured of it."""

from __future__ import annotations

import numpy as np
import pytest

from model.annotators.likelihood import weigh
from model.engine import EngineConfig, fit
from model.errors import ModelError, ShapeError
from model.heads.problem import Problem, balanced_weights
from model.types import Labelled
from model.uncertainty import ESTIMATORS

CLASSES = ("a", "b", "c")


def blobs(seed, n=150):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.6, (n, 12)) + 1.2 * np.eye(12)[y]
    return x.astype(np.float32), y


def fitted(x, y, weights=None, **choices):
    data = Labelled(x, y, np.ones(len(y), bool), weights)
    return fit(data, CLASSES, config=EngineConfig(propagation="off", **choices))


def test_only_the_ratios_of_weights_matter():
    x, y = blobs(0)
    plain, same = fitted(x, y), fitted(x, y, np.full(len(y), 7.0))
    np.testing.assert_allclose(same.predict(x).probs, plain.predict(x).probs, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_wrong_labels_that_hardly_count_hardly_harm(name):
    x, y = blobs(1)
    new, truth = blobs(2)
    wrong = np.arange(len(y)) % 10 < 4
    given = np.where(wrong, (y + 1) % 3, y)
    weights = np.where(wrong, 1e-3, 1.0)

    def accuracy(weights):
        bundle = fitted(x, given, weights, estimator=name)
        return (bundle.predict(new).label == truth).mean()

    assert accuracy(weights) > accuracy(None) + 0.03


def test_weights_multiply_the_balance_of_classes():
    x, y = blobs(0)
    y = np.where(y == 2, 0, y)
    weights = np.linspace(0.1, 1.0, len(y))
    problem = Problem.of(
        x, y, 3, centre=x.mean(axis=0), seed=0, progress=lambda share, what: None,
        label_weights=weights,
    )  # fmt: skip
    expected = balanced_weights(y, 3) * weights
    np.testing.assert_allclose(problem.weights, expected / expected.mean())


@pytest.mark.parametrize(
    ("weights", "error", "says"),
    [
        (np.ones(149), ShapeError, "weights"),
        (np.zeros(150), ModelError, "above 0"),
        (np.full(150, np.nan), ModelError, "finite"),
    ],
)
def test_weights_that_are_none_are_refused(weights, error, says):
    x, y = blobs(0)
    with pytest.raises(error, match=says):
        fitted(x, y, weights)


def test_weights_from_out_of_fold_do_not_make_noise_look_learnt():
    """Features that say nothing: accuracy out of fold stays at chance, whoever agrees with whom."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(240, 40)).astype(np.float32)
        truth = rng.integers(0, 3, 240)
        task = np.concatenate([np.arange(240), np.arange(80)])
        person = np.concatenate([np.zeros(240, int), np.ones(80, int)])
        says = np.where(rng.random(320) < 0.8, truth[task], rng.integers(0, 3, 320))
        first = fitted(x, says[:240], seed=seed)
        crowd = weigh(first.out_of_fold_probs, task, person, says)
        weights = crowd.probs[np.arange(240), says[:240]]
        assert weights.std() > 0.05
        second = fitted(x, says[:240], weights, seed=seed + 100)
        found.append(second.metrics["oof_accuracy"])
    chance, error = 1 / 3, np.sqrt(2 / 9 / (8 * 240))
    assert np.mean(found) < chance + 3 * error
