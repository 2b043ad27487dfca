from __future__ import annotations

import numpy as np
import pytest

from model.heads.plain import PLAIN_L2, PlainHead


def blobs(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, 12)) * 1.5
    return (centres[labels] + rng.normal(size=(count, 12))).astype(np.float32), labels


def test_it_is_scikit_learns_logistic_regression_on_centred_unit_rows() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs(60, 4)
    centre = features.mean(axis=0)
    rows = features - centre
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reference = linear_model.LogisticRegression(C=1 / PLAIN_L2, tol=1e-8, max_iter=5000)
    reference.fit(rows, labels)
    head = PlainHead.fit(features, labels, 4, centre=centre)
    np.testing.assert_allclose(head.probs(features), reference.predict_proba(rows), atol=0.01)


@pytest.mark.parametrize("labels", [[1, 1, 1], [1], [0, 0, 2]])
def test_classes_without_labels_get_nothing(labels: list[int]) -> None:
    features, _ = blobs(len(labels), 1)
    head = PlainHead.fit(features, np.array(labels), 3, centre=features.mean(axis=0))
    probs = head.probs(features)
    absent = sorted({0, 1, 2} - set(labels))
    assert np.isfinite(probs).all()
    assert np.abs(probs[:, absent]).max() == 0
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_classes_are_not_reweighted() -> None:
    """With features that say nothing, the prediction is the share of each class."""
    flat = np.ones((8, 5), np.float32)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    probs = PlainHead.fit(flat, labels, 2, centre=flat[0]).probs(flat[:1])
    np.testing.assert_allclose(probs[0], [0.75, 0.25], atol=1e-2)
