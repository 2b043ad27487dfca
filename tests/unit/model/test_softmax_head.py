from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from model.heads.problem import balanced_weights, stratified_folds
from model.heads.softmax import Basis, Heads, fit_heads, normalise
from model.uncertainty.frame import reserve_unseen


def blobs(count: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, dim))
    return (centres[labels] + rng.normal(size=(count, dim))).astype(np.float32), labels


def plain_fit(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float, classes: int) -> np.ndarray:
    """The same problem in float64, raw coordinates, one at a time: probabilities of `x`."""
    dim = x.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: dim * classes].reshape(dim, classes), flat[dim * classes :]
        logp = log_softmax(x @ weights + bias, axis=1)
        slope = w[:, None] * (np.exp(logp) - np.eye(classes)[y])
        value = -(w * logp[np.arange(len(y)), y]).sum() + l2 / 2 * (weights**2).sum()
        return value, np.concatenate([(x.T @ slope + l2 * weights).ravel(), slope.sum(axis=0)])

    start = np.zeros((dim + 1) * classes)
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    logits = x @ flat[: dim * classes].reshape(dim, classes) + flat[dim * classes :]
    return np.exp(log_softmax(logits, axis=1))


@pytest.mark.parametrize(("count", "dim"), [(30, 80), (200, 12)])
def test_many_fits_at_once_equal_each_alone(count: int, dim: int) -> None:
    x, y = blobs(count, dim, 3)
    x = normalise(x, x.mean(axis=0))
    rng = np.random.default_rng(1)
    weights = np.stack([np.ones(count), rng.random(count) + 0.5, (np.arange(count) % 5 != 0) * 1.0])
    l2 = np.array([0.1, 1.0, 0.03])
    basis = Basis.of(x)
    heads = fit_heads(basis, y, 3, weights_BN=weights, l2_B=l2, tolerance=1e-10)
    probs = heads.probs(basis.rows)
    for number in range(3):
        expected = plain_fit(x.astype(np.float64), y, weights[number], float(l2[number]), 3)
        np.testing.assert_allclose(probs[:, number], expected, atol=5e-3)


def test_the_fit_equals_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = blobs(90, 20, 4)
    basis = Basis.of(x)
    heads = fit_heads(
        basis, y, 4, weights_BN=np.ones((1, 90)), l2_B=np.array([2.0]), tolerance=1e-10
    )
    reference = linear.LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(heads.probs(basis.rows)[:, 0], reference.predict_proba(x), atol=2e-3)


def test_weights_of_the_basis_work_on_the_features() -> None:
    x, y = blobs(40, 100, 2)
    basis = Basis.of(x)
    np.testing.assert_allclose(basis.rows @ basis.axes.T, x, atol=1e-4)
    heads = fit_heads(basis, y, 2, weights_BN=np.ones((1, 40)), l2_B=np.array([0.1]))
    lifted = Heads((basis.axes @ heads.weights[0]).astype(np.float32)[None], heads.biases)
    np.testing.assert_allclose(lifted.probs(x), heads.probs(basis.rows), atol=1e-4)


def test_a_class_without_weight_gets_no_probability() -> None:
    x, y = blobs(30, 10, 3)
    weights = np.stack([np.ones(30), (y != 2) * 1.0])
    heads = fit_heads(Basis.of(x), y, 4, weights_BN=weights, l2_B=np.full(2, 0.1))
    probs = heads.probs(Basis.of(x).rows)
    assert probs[:, 0, 3].max() == 0
    assert probs[:, 1, 2:].max() == 0
    np.testing.assert_allclose(probs.sum(axis=2), 1)


def test_constant_and_empty_features_are_defined() -> None:
    flat = np.ones((6, 5), np.float32)
    rows = normalise(flat, flat.mean(axis=0))
    assert np.abs(rows).max() == 0
    y = np.array([0, 1, 0, 1, 0, 0])
    heads = fit_heads(Basis.of(rows), y, 2, weights_BN=np.ones((1, 6)), l2_B=np.array([0.1]))
    np.testing.assert_allclose(heads.probs(Basis.of(rows).rows)[0, 0], [2 / 3, 1 / 3], atol=0.01)


def test_folds_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 3])
    fold = stratified_folds(labels, 5, np.random.default_rng(0))
    for label, low, high in ((0, 10, 10), (1, 4, 4), (2, 0, 1)):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert low <= counts.min() <= counts.max() <= high


def test_balanced_weights_are_the_root_of_the_inverse_count() -> None:
    weights = balanced_weights(np.repeat([0, 2], [16, 4]), 3)
    assert weights.mean() == pytest.approx(1)
    assert weights[-1] / weights[0] == pytest.approx(2)


def test_unseen_classes_share_what_succession_leaves_them() -> None:
    probs = np.array([[0.7, 0.3, 0.0, 0.0]])
    seen = np.array([True, True, False, False])
    kept = reserve_unseen(probs, seen, 16)
    assert kept[0].tolist() == pytest.approx([0.63, 0.27, 0.05, 0.05])
    assert reserve_unseen(probs, np.ones(4, bool), 16) is probs
