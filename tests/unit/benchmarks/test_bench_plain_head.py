from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression


@pytest.fixture
def plain() -> ModuleType:
    return importlib.import_module("_plain")


def clusters(count: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=count)
    rows = rng.normal(size=(3, width))[labels] + rng.normal(size=(count, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


def test_the_plain_head_is_scikit_learns_logistic_regression(plain: ModuleType) -> None:
    rows, labels = clusters(60)
    theirs = LogisticRegression(C=1.0 / plain.L2, tol=1e-8, max_iter=5000).fit(rows, labels)
    ours = plain.fit_plain(rows, labels, 3).probs(rows)
    np.testing.assert_allclose(ours, theirs.predict_proba(rows), atol=5e-3)


def test_the_posterior_has_the_covariance_of_its_kronecker_factors(plain: ModuleType) -> None:
    rows, labels = clusters(40, width=3)
    head = plain.fit_plain(rows, labels, 3)
    weights, biases = plain.posterior(head, rows, seed=0, samples=20_000)
    drawn = np.concatenate([weights, biases[:, None]], axis=1) - np.vstack(
        [head.weights, head.biases]
    )
    wide = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)
    probs = head.probs(rows)
    curvature = np.mean([np.diag(p) - np.outer(p, p) for p in probs], axis=0)
    precision = np.kron(wide.T @ wide, curvature) + plain.PRIOR_PRECISION * np.eye(12)
    found = np.cov(drawn.reshape(len(drawn), -1), rowvar=False)
    np.testing.assert_allclose(found, np.linalg.inv(precision), atol=0.03)


def test_the_posterior_is_the_prior_where_nothing_was_seen(plain: ModuleType) -> None:
    rows, labels = clusters(30)
    rows = np.column_stack([rows, np.zeros((30, 2), np.float32)])
    weights, _ = plain.posterior(plain.fit_plain(rows, labels, 3), rows, seed=1, samples=4000)
    assert weights[:, -2:].std() == pytest.approx(1.0, abs=0.03)
    assert weights[:, :-2].std(axis=0).max() < 1.0


def test_a_class_without_a_label_stays_impossible(plain: ModuleType) -> None:
    rows, labels = clusters(20)
    head = plain.fit_plain(rows, labels, 4)
    weights, biases = plain.posterior(head, rows, seed=0, samples=3)
    assert head.probs(rows)[:, 3].max() == 0.0
    for k in range(3):
        assert plain.PlainHead(weights[k], biases[k]).probs(rows)[:, 3].max() == 0.0


def test_the_length_outside_the_span_completes_the_coordinates() -> None:
    uncertainty = importlib.import_module("uncertainty")
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 2)))[0].astype(np.float32)
    rows = rng.normal(size=(7, 5)).astype(np.float32)
    found = uncertainty.in_span(rows, axes)
    np.testing.assert_allclose(found[:, :2], rows @ axes, rtol=1e-5)
    outside = np.linalg.norm(rows - rows @ axes @ axes.T, axis=1)
    np.testing.assert_allclose(found[:, 2], outside, rtol=1e-4)
