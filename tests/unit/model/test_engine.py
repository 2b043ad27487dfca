from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import engine
from model.bundle import Bundle
from model.calibration.doubt import Doubt
from model.calibration.families import CALIBRATORS
from model.engine import EngineConfig, fit
from model.errors import BundleError, ModelError, NotEnoughLabelsError, ShapeError, UnknownNameError
from model.storage import ARRAYS_FILE, FACTS_FILE
from model.types import Labelled
from model.uncertainty import ESTIMATORS
from model.uncertainty.base import FittedEstimator
from model.uncertainty.measures import decompose, entropy

CLASSES = ("cat", "dog", "owl")


def labelled(
    count: int, *, classes: int = 3, dim: int = 16, spread: float = 1.0, seed: int = 0
) -> Labelled:
    """Gaussian blobs; every fifth label belongs to the random share."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = centres[labels] + spread * rng.normal(size=(count, dim))
    return Labelled(features.astype(np.float32), labels, np.arange(count) % 5 == 0)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_every_estimator_learns_and_says_how_sure_it_is(estimator: str) -> None:
    bundle = fit(labelled(400), CLASSES, config=EngineConfig(estimator=estimator))
    test = labelled(2000, seed=1)
    found = bundle.predict(test.features)
    right = found.label == test.labels
    assert right.mean() > 0.9
    np.testing.assert_allclose(found.probs.sum(axis=1), 1)
    assert (found.p_right > 0).all()
    assert (found.p_right < 1).all()
    assert abs(found.p_right.mean() - right.mean()) < 0.05
    np.testing.assert_array_equal(found.label, found.probs.argmax(axis=1))
    np.testing.assert_allclose(found.aleatoric + found.epistemic, found.total)
    assert (found.epistemic >= 0).all()


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_what_is_published_is_parted_as_the_passes_are(estimator: str) -> None:
    bundle = fit(labelled(60), CLASSES, config=EngineConfig(estimator=estimator))
    test = labelled(50, spread=2.0, seed=1).features
    found = bundle.predict(test)
    total, _, epistemic = decompose(bundle.sample(test))
    np.testing.assert_allclose(found.total, entropy(found.probs))
    np.testing.assert_allclose(found.epistemic, found.total * epistemic / total, atol=1e-12)


def test_metrics_are_complete_and_json() -> None:
    metrics = fit(labelled(60), CLASSES).metrics
    json.dumps(dict(metrics), allow_nan=False)
    assert metrics["n_labels"] == 60
    assert metrics["n_random"] == 12
    assert sum(metrics["class_counts"].values()) == 60
    low, high = metrics["random_accuracy_interval"]
    assert 0 <= low <= metrics["random_accuracy"] <= high <= 1
    for name in ("oof_accuracy", "ece", "brier", "nll", "l2", "seconds"):
        assert math.isfinite(metrics[name])
    assert metrics["calibrator"] in CALIBRATORS


def test_without_a_random_share_nothing_is_claimed_about_the_pool() -> None:
    data = labelled(40)
    metrics = fit(Labelled(data.features, data.labels, np.zeros(40, bool)), CLASSES).metrics
    assert metrics["random_accuracy"] is None
    assert metrics["random_accuracy_interval"] is None


def test_metrics_do_not_judge_labels_by_heads_that_saw_them() -> None:
    """Labels drawn by lot: a head with 300 features fits all 90, yet knows nothing."""
    rng = np.random.default_rng(0)
    data = Labelled(
        rng.normal(size=(90, 300)).astype(np.float32), rng.integers(0, 3, 90), np.ones(90, bool)
    )
    bundle = fit(data, CLASSES)
    assert bundle.metrics["oof_accuracy"] < 0.55
    assert bundle.predict(rng.normal(size=(500, 300)).astype(np.float32)).p_right.mean() < 0.6


def test_fitting_twice_gives_the_same_and_order_of_prediction_is_irrelevant() -> None:
    data, test = labelled(50), labelled(30, seed=2).features
    first, second = fit(data, CLASSES).predict(test), fit(data, CLASSES).predict(test)
    np.testing.assert_array_equal(first.probs, second.probs)
    turned = fit(data, CLASSES).predict(test[::-1])
    np.testing.assert_allclose(turned.probs[::-1], first.probs, atol=1e-6)


def test_one_class_only_predicts_it_with_a_wide_prior() -> None:
    data = labelled(6)
    bundle = fit(Labelled(data.features, np.full(6, 1), np.zeros(6, bool)), CLASSES)
    found = bundle.predict(data.features)
    assert set(found.label.tolist()) == {1}
    assert (found.p_right < 0.95).all()
    assert (found.probs[:, [0, 2]] > 0).all()
    two = fit(Labelled(data.features[:2], np.full(2, 1), np.zeros(2, bool)), CLASSES)
    assert two.predict(data.features).p_right.max() < found.p_right.min()


def test_a_project_with_one_class_is_defined() -> None:
    data = labelled(4)
    bundle = fit(Labelled(data.features, np.zeros(4, np.int64), np.ones(4, bool)), ["only"])
    found = bundle.predict(data.features)
    assert found.label.tolist() == [0] * 4
    assert np.isfinite(found.p_right).all()
    assert found.margin.tolist() == [1.0] * 4


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_handful_of_labels_never_claims_certainty(count: int) -> None:
    found = fit(labelled(count, spread=0.1), CLASSES).predict(labelled(50, seed=3).features)
    assert np.isfinite(found.probs).all()
    assert found.p_right.max() < 1 - 0.03 / count


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_features_are_defined(value: float) -> None:
    data = Labelled(
        np.full((8, 4), value, np.float32), np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.ones(8, bool)
    )
    found = fit(data, CLASSES).predict(data.features)
    assert set(found.label.tolist()) == {0}
    assert np.isfinite(found.p_right).all()


def test_shrinking_keeps_the_order_and_the_open_interval() -> None:
    p = np.array([0.0, 0.4, 0.9, 1.0])
    shrunk = Doubt(trust=0.5, base=0.6).apply(p)
    assert shrunk.tolist() == pytest.approx([0.3, 0.5, 0.75, 0.8])
    open_ends = Doubt(trust=1.0, base=0.0).apply(p)
    assert 0 < open_ends.min() < open_ends.max() < 1


def test_a_class_without_labels_makes_the_same_predictions_less_sure() -> None:
    """What calibration states is about known classes; here the pool may hold another."""
    data, test = labelled(90), labelled(300, seed=1).features
    alone = EngineConfig(propagation="off")  # else agreement lifts both
    known = fit(data, ["a", "b", "c"], pool=test, config=alone)
    open_ended = fit(data, ["a", "b", "c", "d", "e", "f"], pool=test, config=alone)
    assert open_ended.published.doubt.lift < 0.0 == known.published.doubt.lift
    assert open_ended.predict(test).p_right.mean() < known.predict(test).p_right.mean()


@pytest.mark.parametrize("unlabelled", [0, 1, 500])
def test_the_rest_of_the_pool_is_what_has_no_label(unlabelled: int) -> None:
    """The chosen make the rest easier where they are many; the labelled are not counted."""
    data, test = labelled(90), labelled(500, seed=1).features
    pool = np.concatenate([data.features, test[:unlabelled]])
    bundle = fit(data, ["a", "b", "c"], pool=pool)
    assert np.isfinite(bundle.predict(test).p_right).all()
    rest = engine.rest_of_pool(FittedEstimator(bundle.estimator, np.zeros(0)), data, pool, False, 0)
    assert rest.count == pytest.approx(unlabelled)
    assert len(rest.probs) == unlabelled
    assert rest.agreement is None


def test_how_often_head_and_neighbours_agree_is_known_where_labels_flow() -> None:
    data, test = labelled(90), labelled(500, seed=1).features
    pool = np.concatenate([data.features, test])
    bundle = fit(data, CLASSES, pool=pool)
    assert 0.0 < bundle.metrics["agreement"] <= 1.0
    alone = fit(data, CLASSES, pool=pool, config=EngineConfig(propagation="off"))
    assert alone.metrics["agreement"] is None
    assert fit(data, CLASSES).metrics["agreement"] is None


def test_what_cannot_be_fitted_is_refused() -> None:
    data = labelled(6)
    with pytest.raises(NotEnoughLabelsError, match="1 labels are too few"):
        fit(Labelled(data.features[:1], data.labels[:1], data.random[:1]), CLASSES)
    with pytest.raises(ShapeError):
        fit(Labelled(data.features[:5], data.labels, data.random), CLASSES)
    with pytest.raises(ModelError, match="outside the 1 classes"):
        fit(Labelled(data.features, np.full(6, 2), data.random), ["a"])
    with pytest.raises(ModelError, match="named twice"):
        fit(data, ["a", "a", "b"])
    with pytest.raises(ShapeError):
        fit(data, CLASSES, pool=np.zeros((3, 2), np.float32))
    with pytest.raises(ModelError, match="not all finite"):
        fit(Labelled(data.features * np.nan, data.labels, data.random), CLASSES)
    with pytest.raises(UnknownNameError):
        fit(data, CLASSES, config=EngineConfig(estimator="magic"))
    bundle = fit(data, CLASSES)
    with pytest.raises(ShapeError):
        bundle.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(ModelError, match="not all finite"):
        bundle.predict(data.features * np.inf)


def test_no_images_to_predict() -> None:
    found = fit(labelled(9), CLASSES).predict(np.zeros((0, 16), np.float32))
    assert len(found) == 0
    assert found.probs.shape == (0, 3)


def test_progress_goes_from_0_to_1() -> None:
    seen: list[float] = []
    fit(labelled(20), CLASSES, progress=lambda share, what: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_a_version_comes_back_from_disk_as_it_was(estimator: str, tmp_path: Path) -> None:
    bundle = fit(labelled(40), CLASSES, config=EngineConfig(estimator=estimator))
    bundle.save(tmp_path / "project" / "v1")
    again = Bundle.load(tmp_path / "project" / "v1")
    test = labelled(20, seed=5).features
    np.testing.assert_array_equal(again.predict(test).probs, bundle.predict(test).probs)
    assert (again.classes, again.metrics) == (CLASSES, bundle.metrics)
    assert [p.name for p in (tmp_path / "project").iterdir()] == ["v1"]
    with pytest.raises(BundleError, match="exists already"):
        bundle.save(tmp_path / "project" / "v1")


@pytest.mark.parametrize("file", [ARRAYS_FILE, FACTS_FILE])
def test_an_incomplete_version_is_refused(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    fit(labelled(20), CLASSES).save(folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="v1"):
        Bundle.load(folder)
    (folder / file).unlink()
    with pytest.raises(BundleError, match="incomplete"):
        Bundle.load(folder)


def test_a_version_of_another_format_is_refused(tmp_path: Path) -> None:
    fit(labelled(20), CLASSES).save(tmp_path / "v1")
    facts = json.loads((tmp_path / "v1" / FACTS_FILE).read_text())
    (tmp_path / "v1" / FACTS_FILE).write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(BundleError, match="format 99"):
        Bundle.load(tmp_path / "v1")


def test_fitting_and_loading_import_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, model.engine, model.bundle, model.acquisition;"
        "assert not {'torch', 'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_out_of_fold_probabilities_of_every_class_tell_flipped_labels() -> None:
    """One temperature, so that they order the classes as a head does, whatever is published."""
    data = labelled(300)
    flipped = np.arange(300) % 20 == 3
    labels = np.where(flipped, (data.labels + 1) % 3, data.labels)
    bundle = fit(Labelled(data.features, labels, data.random), CLASSES)
    for probs in (bundle.out_of_fold_probs, bundle.out_of_fold_plain):
        assert probs.shape == (300, 3)
        np.testing.assert_allclose(probs.sum(axis=1), 1)
        given = probs[np.arange(300), labels]
        assert np.median(given[flipped]) < 0.05 < 0.9 < np.median(given[~flipped])
        said = probs.argmax(axis=1)
        assert (said == data.labels)[flipped].mean() > 0.9  # what was there before
    said = bundle.out_of_fold_probs.argmax(axis=1)
    np.testing.assert_array_equal(said == labels, bundle.out_of_fold_right)  # the version's own


def test_out_of_fold_probabilities_do_not_depend_on_the_calibrator() -> None:
    one, other = (
        fit(labelled(80), CLASSES, config=EngineConfig(calibrator=name))
        for name in ("temperature", "isotonic")
    )
    np.testing.assert_array_equal(one.out_of_fold_probs, other.out_of_fold_probs)
    np.testing.assert_array_equal(one.out_of_fold_plain, other.out_of_fold_plain)
    assert not np.array_equal(one.out_of_fold_p_right, other.out_of_fold_p_right)


@pytest.mark.parametrize("with_pool", [False, True])
def test_plain_probabilities_are_of_regressions_whatever_the_estimator(
    with_pool: bool,
) -> None:
    data = labelled(60)
    pool = labelled(200).features if with_pool else None
    of = {
        name: fit(data, CLASSES, pool=pool, config=EngineConfig(estimator=name))
        for name in ("evidential", "laplace")
    }
    one, other = (bundle.out_of_fold_plain for bundle in of.values())
    np.testing.assert_array_equal(one, other)
    own, others = (bundle.out_of_fold_probs for bundle in of.values())
    assert not np.array_equal(own, others)
    given = one[np.arange(60), data.labels]
    assert (given > 0.5).mean() > 0.8


def test_regressions_out_of_fold_have_not_seen_the_label() -> None:
    data = labelled(90)
    rng = np.random.default_rng(5)
    noise = Labelled(
        rng.normal(size=data.features.shape).astype(np.float32), data.labels, data.random
    )
    probs = fit(noise, CLASSES).out_of_fold_plain
    right = (probs.argmax(axis=1) == data.labels).mean()
    assert right < 0.5  # chance is a third; a regression that saw the labels has nearly 1


def test_out_of_fold_probabilities_are_not_stored(tmp_path: Path) -> None:
    bundle = fit(labelled(30), CLASSES)
    bundle.save(tmp_path / "v1")
    assert bundle.out_of_fold_probs is not None
    assert bundle.out_of_fold_plain is not None
    stored = Bundle.load(tmp_path / "v1")
    assert stored.out_of_fold_probs is stored.out_of_fold_plain is None
