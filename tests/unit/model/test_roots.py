from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.engine import fit
from model.heads.roots import mean_root, roots_help, signed_root
from model.types import Labelled


def counts(count: int, seed: int, *, squared: bool) -> tuple[np.ndarray, np.ndarray]:
    """Classes apart by small steps of 40 values; squared, a few loud values drown the steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    steps = np.random.default_rng(5).random((3, 40))
    rows = np.maximum(steps[labels] + 0.5 * rng.normal(size=(count, 40)) + 2.0, 0.0)
    loud = np.where(rng.random((count, 20)) < 0.1, rng.random((count, 20)) * 60.0, 0.0)
    wide = np.concatenate([rows, np.sqrt(loud)], axis=1)
    return (wide**2 if squared else wide).astype(np.float32), labels


def test_roots_keep_the_sign_and_square_back() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    roots = signed_root(rows)
    np.testing.assert_allclose(roots * np.abs(roots), rows, rtol=1e-5)
    assert roots.dtype == np.float32
    many = np.tile(rows, (200, 1))
    np.testing.assert_allclose(mean_root(many), roots.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize(("squared", "expected"), [(True, True), (False, False)])
def test_they_are_taken_where_they_help(squared: bool, expected: bool) -> None:
    features, labels = counts(200, 0, squared=squared)
    arguments = {"centre": features.mean(axis=0), "root_centre": mean_root(features)}
    assert roots_help(features, labels, 3, seed=0, **arguments) is expected


def test_without_anything_to_judge_the_features_stay() -> None:
    features = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    arguments = {"centre": features.mean(axis=0), "root_centre": mean_root(features)}
    assert not roots_help(features, np.arange(4), 4, seed=0, **arguments)
    assert not roots_help(features, np.zeros(4, np.int64), 4, seed=0, **arguments)
    assert not roots_help(features * 0, np.arange(4) % 2, 4, seed=0, **arguments)


def test_a_version_takes_the_roots_it_was_fitted_on(tmp_path: Path) -> None:
    features, labels = counts(150, 0, squared=True)
    pool, _ = counts(400, 1, squared=True)
    test, truth = counts(500, 2, squared=True)
    bundle = fit(Labelled(features, labels, np.ones(150, bool)), ["a", "b", "c"], pool=pool)
    assert bundle.roots
    assert bundle.metrics["roots"] is True
    passes = bundle.sample(test)
    np.testing.assert_array_equal(passes, bundle.estimator.sample(signed_root(test)))
    found = bundle.predict(test)
    assert (passes.mean(axis=1).argmax(axis=1) == found.label).mean() > 0.95
    accuracy = float((found.label == truth).mean())
    assert abs(accuracy - bundle.metrics["oof_accuracy"]) < 0.12
    bundle.save(tmp_path / "v1")
    again = Bundle.load(tmp_path / "v1")
    np.testing.assert_array_equal(again.predict(test).probs, found.probs)
