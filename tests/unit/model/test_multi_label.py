"""Several classes an image: every estimator that can, and the measures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from model.heads.problem import Problem, strata
from model.heads.sigmoid import BinaryCrossEntropy
from model.uncertainty import ESTIMATORS, FittedEstimator
from model.uncertainty.mc_dropout import dropout_precision
from model.uncertainty.measures import decompose, decompose_multi_label

NAMES = sorted(ESTIMATORS)


def tagged(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Each class has its own direction; class 3 is in no image and class 4 in all."""
    directions = np.random.default_rng(99).normal(size=(3, 12))
    rng = np.random.default_rng(seed)
    yes = np.zeros((count, 5), bool)
    yes[:, :3] = rng.random((count, 3)) < 0.4
    yes[:, 4] = True
    features = (2.0 * yes[:, :3] - 1.0) @ directions + 0.7 * rng.normal(size=(count, 12))
    return features.astype(np.float32), yes


def fit(name: str, x: np.ndarray, y: np.ndarray) -> FittedEstimator:
    return ESTIMATORS[name].fit(
        x, y, y.shape[1], centre=x.mean(axis=0), seed=0, progress=lambda share, what: None
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_every_question_by_itself(name: str) -> None:
    x, y = tagged(150)
    fitted = fit(name, x, y)
    test, truth = tagged(300, seed=1)
    probs = fitted.estimator.sample(test)
    assert probs.shape == (300, fitted.estimator.passes, 5)
    for found, answers in ((probs, truth), (fitted.out_of_fold, y)):
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1
        assert ((found.mean(axis=1) > 0.5) == answers)[:, :3].mean() > 0.9
    np.testing.assert_allclose(probs[:, :, 3], 1 / 152)
    np.testing.assert_allclose(probs[:, :, 4], 151 / 152)
    assert (probs.sum(axis=2) > 1.5).any()


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_back_from_its_arrays(name: str) -> None:
    x, y = tagged(40)
    estimator = fit(name, x, y).estimator
    again = ESTIMATORS[name].restore(estimator.arrays())
    np.testing.assert_array_equal(again.sample(x), estimator.sample(x))


@pytest.mark.parametrize("name", NAMES)
def test_two_labels_and_no_class_at_all(name: str) -> None:
    x, _ = tagged(4)
    probs = fit(name, x[:2], np.array([[True, False], [False, False]])).estimator.sample(x)
    assert np.isfinite(probs).all()
    none = fit(name, x, np.zeros((4, 2), bool)).estimator.sample(x)
    np.testing.assert_allclose(none, 1 / 6)
    flat = fit(name, x * 0, np.arange(8).reshape(4, 2) % 3 == 0).estimator.sample(x)
    assert np.isfinite(flat).all()


def test_each_question_is_a_logistic_regression_of_its_own() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = tagged(100)
    task = Problem.of(x, y, 5, centre=x.mean(axis=0), seed=0, progress=lambda share, what: None)
    logits = task.heads.logits(task.basis.rows)[:, 0]
    for c in range(3):
        model = linear.LogisticRegression(C=1 / task.l2, max_iter=5000, tol=1e-8)
        expected = model.fit(task.rows, y[:, c]).predict_proba(task.rows)[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, c])), expected, atol=0.03)
    q = 1 / (1 + np.exp(-logits[:, :3]))
    curvature = (q * (1 - q)).sum(axis=1)
    expected = curvature @ task.rows.astype(np.float64) ** 2 / 5
    np.testing.assert_allclose(dropout_precision(task), expected, rtol=1e-3)


def test_the_loss_has_its_slope() -> None:
    labels = np.array([[True, False], [False, False], [True, True]])
    loss = BinaryCrossEntropy(labels)
    weights = np.array([[1.0, 0.5, 1.0], [2.0, 1.0, 0.0]])
    logits = 3 * np.random.default_rng(0).normal(size=(2, 2, 3))

    def value(flat: np.ndarray) -> float:
        return loss(flat.reshape(2, 2, 3), weights)[0].sum()

    def slope(flat: np.ndarray) -> np.ndarray:
        return loss(flat.reshape(2, 2, 3), weights)[1].ravel().astype(np.float64)

    assert check_grad(value, slope, logits.ravel()) < 1e-5
    assert not loss.seen(weights)[1, 1]


def test_folds_deal_out_the_rarest_class_of_an_image() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]], bool)
    assert strata(labels).tolist() == [1, 0, 3, 2, 1]


def test_parts_of_two_classes_equal_those_of_one_question() -> None:
    yes = np.random.default_rng(0).random((20, 4, 1))
    one = decompose(np.concatenate([yes, 1 - yes], axis=2))
    for found, expected in zip(decompose_multi_label(yes), one, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    several = np.concatenate([yes, yes], axis=2)
    for found, expected in zip(decompose_multi_label(several), one, strict=True):
        np.testing.assert_allclose(found, 2 * expected, atol=1e-12)
