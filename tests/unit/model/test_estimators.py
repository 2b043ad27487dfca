"""What every registered estimator must do."""

from __future__ import annotations

import numpy as np
import pytest

from model.uncertainty import ESTIMATORS, FittedEstimator
from model.uncertainty.measures import decompose

NAMES = sorted(ESTIMATORS)


def blobs(count: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    features = centres[labels] + 0.7 * rng.normal(size=(count, dim))
    return features.astype(np.float32), labels.astype(np.int64)


def fit(name: str, x: np.ndarray, y: np.ndarray, classes: int, seed: int = 0) -> FittedEstimator:
    return ESTIMATORS[name].fit(
        x, y, classes, centre=x.mean(axis=0), seed=seed, progress=lambda share, what: None
    )


def check(fitted: FittedEstimator, x: np.ndarray, classes: int) -> np.ndarray:
    estimator = fitted.estimator
    probs = estimator.sample(x)
    assert probs.shape == (len(x), estimator.passes, classes)
    assert fitted.out_of_fold.shape[1:] == (estimator.passes, classes)
    for found in (probs, fitted.out_of_fold):
        assert np.isfinite(found).all()
        assert found.min() >= 0
        np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-9)
    assert all(np.isfinite(value) for value in fitted.facts.values())
    return probs


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_is_right_out_of_fold(name: str) -> None:
    x, y = blobs(120, 12, 4)
    fitted = fit(name, x, y, 4)
    test, truth = blobs(300, 12, 4, seed=1)
    probs = check(fitted, test, 4)
    assert (probs.mean(axis=1).argmax(axis=1) == truth).mean() > 0.85
    assert (fitted.out_of_fold.mean(axis=1).argmax(axis=1) == y).mean() > 0.85
    assert min(part.min() for part in decompose(probs)) >= 0


@pytest.mark.parametrize("name", NAMES)
def test_it_says_the_same_every_time_and_in_any_order(name: str) -> None:
    x, y = blobs(60, 12, 3)
    estimator = fit(name, x, y, 3).estimator
    assert estimator.passes == ESTIMATORS[name].passes
    probs = estimator.sample(x)
    np.testing.assert_array_equal(probs, estimator.sample(x))
    np.testing.assert_allclose(probs[::-1], estimator.sample(x[::-1]), atol=2e-4)
    np.testing.assert_allclose(probs[:7], estimator.sample(x[:7]), atol=1e-5)
    np.testing.assert_array_equal(probs, fit(name, x, y, 3).estimator.sample(x))
    assert estimator.sample(x[:0]).shape == (0, estimator.passes, 3)


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_back_from_its_arrays(name: str) -> None:
    x, y = blobs(40, 12, 3)
    estimator = fit(name, x, y, 4).estimator
    arrays = estimator.arrays()
    again = ESTIMATORS[name].restore({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    assert again.passes == estimator.passes
    np.testing.assert_array_equal(again.sample(x), estimator.sample(x))
    assert again.arrays().keys() == arrays.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_classes_does_not_matter(name: str) -> None:
    if name == "laplace":
        pytest.skip("the noise drawn for a class goes with its place")
    x, y = blobs(60, 12, 3)
    turned = np.array([2, 0, 1])
    probs = fit(name, x, y, 3).estimator.sample(x).mean(axis=1)
    other = fit(name, x, turned[y], 3).estimator.sample(x).mean(axis=1)
    np.testing.assert_allclose(other[:, turned], probs, atol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_without_labels_keeps_what_succession_leaves_it(name: str) -> None:
    x, y = blobs(60, 12, 3)
    probs = check(fit(name, x, y, 5), x, 5)
    np.testing.assert_allclose(probs[:, :, 3:], 1 / 65)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [1, 3])
def test_labels_of_one_class_only(name: str, classes: int) -> None:
    x, _ = blobs(12, 8, 2)
    probs = check(fit(name, x, np.zeros(12, np.int64), classes), x, classes)
    np.testing.assert_allclose(probs[:, :, 0], 1 - (classes - 1) / (12 + classes))


@pytest.mark.parametrize("name", NAMES)
def test_two_labels(name: str) -> None:
    x, _ = blobs(2, 8, 2)
    check(fit(name, x, np.array([0, 1]), 2), x, 2)


@pytest.mark.parametrize("name", NAMES)
def test_one_label_a_class(name: str) -> None:
    x, y = blobs(6, 8, 6)
    check(fit(name, x, y, 6), x, 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_features_give_the_share_of_each_class(name: str, value: float) -> None:
    x = np.full((30, 8), value, np.float32)
    y = (np.arange(30) % 3 == 0).astype(np.int64)
    probs = check(fit(name, x, y, 2), x, 2)
    np.testing.assert_allclose(probs.mean(axis=1), probs.mean(axis=1)[:1].repeat(30, 0))
    assert 0.5 <= probs[0, :, 0].mean() < 0.75


@pytest.mark.parametrize("name", NAMES)
def test_duplicates_and_huge_features(name: str) -> None:
    x, y = blobs(8, 8, 2)
    x = np.concatenate([x, x, x * np.float32(1e6)])
    check(fit(name, x, np.concatenate([y, 1 - y, y]), 2), x, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_classes(name: str) -> None:
    x, _ = blobs(60, 16, 5)
    y = np.random.default_rng(0).integers(0, 1000, 60)
    check(fit(name, x, y, 1000), x[:5], 1000)
