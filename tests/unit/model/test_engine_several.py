"""The engine where an image may have several labels, or none; rules that choose from its word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_multi_label import tagged

from model.acquisition import ACQUISITIONS, select
from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.errors import BundleError, ModelError, ShapeError
from model.storage import FACTS_FILE
from model.types import Labelled, Predictions, label_counts
from model.uncertainty import ESTIMATORS
from model.uncertainty.measures import binary_entropy
from model.uncertainty.sets import log_p_none, most_probable_set, set_margin

CLASSES = ("ant", "bee", "cow", "dodo", "emu")  # no image has the fourth, all have the fifth


def labelled(count: int, seed: int = 0) -> Labelled:
    x, y = tagged(count, seed)
    return Labelled(x, y, np.arange(count) % 5 == 0)


def check(found: Predictions) -> None:
    for values in vars(found).values():
        assert np.isfinite(values).all()
    assert found.label.dtype == bool
    assert ((found.p_right > 0) & (found.p_right < 1)).all()
    assert ((found.margin >= 0) & (found.margin <= 1)).all()
    np.testing.assert_allclose(found.aleatoric + found.epistemic, found.total)
    assert (found.epistemic >= 0).all()


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_every_estimator_publishes_sets_and_says_how_sure_it_is(estimator: str) -> None:
    bundle = fit(labelled(300), CLASSES, config=EngineConfig(estimator=estimator))
    test = labelled(2000, seed=1)
    found = bundle.predict(test.features)
    check(found)
    right = found.right(test.labels)
    np.testing.assert_array_equal(right, (found.label == test.labels).all(axis=1))
    assert right.mean() > 0.85
    assert abs(found.p_right.mean() - right.mean()) < 0.06
    slope, shift = bundle.published.empty
    none = log_p_none(found.probs)
    empty = (slope - 1) * (none - np.log(-np.expm1(none))) + shift
    np.testing.assert_array_equal(found.label, most_probable_set(found.probs, empty=empty))
    np.testing.assert_allclose(found.margin, set_margin(found.probs, empty=empty))
    np.testing.assert_allclose(found.total, binary_entropy(found.probs).sum(axis=1))


def test_metrics_are_of_whole_sets_out_of_fold() -> None:
    data = labelled(60)
    bundle = fit(data, CLASSES, pool=tagged(200)[0])
    metrics = bundle.metrics
    json.dumps(dict(metrics), allow_nan=False)
    assert metrics["metric"] == "subset accuracy"
    assert metrics["oof_accuracy"] == pytest.approx(bundle.out_of_fold_right.mean())
    counted = dict(zip(CLASSES, data.labels.sum(axis=0).tolist(), strict=True))
    assert metrics["class_counts"] == counted
    assert metrics["propagation"] == 0.0
    assert 0.5 < metrics["macro_f1"] <= 1
    assert bundle.out_of_fold_probs.shape == data.labels.shape
    assert bundle.out_of_fold_plain is None
    said = bundle.published.decide(bundle.out_of_fold_probs)
    assert (said == data.labels).all(axis=1).tolist() == bundle.out_of_fold_right.tolist()
    assert fit(labelled(60), CLASSES).metrics["oof_accuracy"] == metrics["oof_accuracy"]


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
@pytest.mark.parametrize("at_least_one", [False, True])
def test_a_version_comes_back_from_disk(tmp_path: Path, estimator: str, at_least_one: bool) -> None:
    config = EngineConfig(estimator=estimator, at_least_one=at_least_one)
    bundle = fit(labelled(50), CLASSES, config=config)
    bundle.save(tmp_path / "v1")
    again = Bundle.load(tmp_path / "v1")
    assert again.multi_label
    x, _ = tagged(100, seed=1)
    for ours, theirs in zip(
        vars(bundle.predict(x)).values(), vars(again.predict(x)).values(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_version_of_one_kind_is_not_read_as_the_other(tmp_path: Path) -> None:
    fit(labelled(50), CLASSES).save(tmp_path / "v1")
    facts = json.loads((tmp_path / "v1" / FACTS_FILE).read_text())
    (tmp_path / "v1" / FACTS_FILE).write_text(json.dumps(facts | {"multi_label": False}))
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(tmp_path / "v1")


ODD = {
    "two images": (tagged(2)[0], np.array([[True, False], [False, False]])),
    "no image has any label": (tagged(20)[0], np.zeros((20, 2), bool)),
    "all images have all labels": (tagged(20)[0], np.ones((20, 2), bool)),
    "one label": (tagged(20)[0], np.arange(20)[:, None] % 2 == 0),
    "one label, in one image": (tagged(20)[0], np.arange(20)[:, None] == 3),
    "images alike": (np.ones((20, 12), np.float32), np.arange(40).reshape(20, 2) % 3 == 0),
    "constant features": (tagged(20)[0] * 0, np.arange(40).reshape(20, 2) % 3 == 0),
    "many labels, few images": (tagged(6)[0], np.arange(1200).reshape(6, 200) % 7 == 0),
}


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
@pytest.mark.parametrize("odd", ODD)
def test_odd_labels_have_a_defined_answer(odd: str, estimator: str) -> None:
    x, y = ODD[odd]
    data = Labelled(x, y, np.ones(len(x), bool))
    names = [str(n) for n in range(y.shape[1])]
    for at_least_one in (False, True):
        config = EngineConfig(estimator=estimator, at_least_one=at_least_one)
        bundle = fit(data, names, pool=x, config=config)
        json.dumps(dict(bundle.metrics), allow_nan=False)
        found = bundle.predict(tagged(30, seed=1)[0])
        check(found)
        assert found.label.any(axis=1).all() or not at_least_one
    assert bundle.predict(x[:0]).label.shape == (0, y.shape[1])


def test_a_label_never_or_always_there_is_published_so() -> None:
    found = fit(labelled(100), CLASSES).predict(tagged(50, seed=1)[0])
    assert not found.label[:, 3].any()
    assert found.label[:, 4].all()
    np.testing.assert_allclose(found.probs[:, 3], 1 / 102)
    np.testing.assert_allclose(found.probs[:, 4], 101 / 102)


def test_what_cannot_be_fitted_says_why() -> None:
    x, y = tagged(20)
    random = np.ones(20, bool)
    with pytest.raises(ShapeError, match="labels"):
        fit(Labelled(x, y, random), CLASSES[:3])
    with pytest.raises(ModelError, match="float64; give bool"):
        fit(Labelled(x, np.where(y, np.nan, 0.0), random), CLASSES)
    with pytest.raises(ModelError, match="not all finite"):
        fit(Labelled(x * np.float32(np.nan), y, random), CLASSES)
    with pytest.raises(ShapeError, match="features"):
        fit(Labelled(x[:5], y, random), CLASSES)
    with pytest.raises(ShapeError, match="labels"):
        fit(Labelled(x, y[:, :, None], random), CLASSES)
    with pytest.raises(ModelError, match="no class"):
        fit(Labelled(x, y[:, :0], random), ())


@pytest.mark.parametrize("rule", sorted(ACQUISITIONS))
def test_every_rule_chooses_from_sets(rule: str) -> None:
    data = labelled(40)
    bundle = fit(data, CLASSES)
    pool, _ = tagged(120, seed=2)
    asked = {
        "pool": pool, "n": 15, "labelled": data.features,
        "label_counts": label_counts(data.labels, len(CLASSES)),
        "predictions": bundle.predict(pool), "sample": bundle.estimator.sample,
    }  # fmt: skip
    chosen = select(rule, **asked)
    assert len(np.unique(chosen.rows)) == 15
    np.testing.assert_array_equal(select(rule, **asked).rows, chosen.rows)
    if chosen.probability is not None:
        assert ((chosen.probability > 0) & (chosen.probability <= 1)).all()


@pytest.mark.parametrize("rule", ["margin", "least-confidence", "entropy", "bald"])
def test_rules_of_one_item_ask_for_the_doubtful_sets(rule: str) -> None:
    data = labelled(40)
    bundle = fit(data, CLASSES)
    pool, _ = tagged(300, seed=2)
    found = bundle.predict(pool)
    rows = select(rule, pool=pool, n=30, predictions=found, sample=bundle.estimator.sample).rows
    assert found.p_right[rows].mean() < found.p_right.mean()
