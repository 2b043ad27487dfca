from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from model.types import Labelled


@pytest.fixture
def measured() -> ModuleType:
    return importlib.import_module("_measured")


def test_true_probabilities_have_the_ece_that_chance_leaves(measured: ModuleType) -> None:
    rng = np.random.default_rng(0)
    p_right = rng.uniform(0.3, 1.0, 600)
    floor = measured.ece_if_perfect(p_right)
    probs = np.column_stack([np.maximum(p_right, 0.5), 1.0 - np.maximum(p_right, 0.5)])
    labels = (rng.random(600) > probs[:, 0]).astype(np.int64)
    found = measured.judge(probs, probs[:, 0], labels)
    assert 0.02 < floor < 0.08
    assert found["ece"] == pytest.approx(found["ece_if_perfect"], abs=0.03)
    assert measured.ece_if_perfect(np.tile(p_right, 40)) < floor / 3


def test_measures_that_a_seed_does_not_define_are_left_out(measured: ModuleType) -> None:
    found = measured.over_seeds([{"a": 1.0, "b": None}, {"a": 2.0, "b": None}])
    assert found == {"seeds": 2, "a": {"mean": 1.5, "se": 0.5}, "b": None}


def test_bins_fall_when_the_score_ranks_errors(measured: ModuleType) -> None:
    rng = np.random.default_rng(0)
    p_right = rng.random(2000)
    good = measured.reliability(p_right, rng.random(2000) < p_right)
    assert good["is_monotone"]
    assert [row["items"] for row in good["bins"]] == [200] * 10
    assert good["bins"][0]["observed_error"] > 0.9 > 0.1 > good["bins"][-1]["observed_error"]
    for row in good["bins"]:
        assert row["interval"][0] <= row["observed_error"] <= row["interval"][1]
    assert not measured.reliability(p_right, rng.random(2000) > p_right)["is_monotone"]


def test_the_overfitted_head_is_right_on_its_labels_and_too_sure_of_others() -> None:
    overfitted = importlib.import_module("_overfitted")
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    features = rng.normal(size=(4, 200))[labels] * 0.15 + rng.normal(size=(400, 200))
    features = features.astype(np.float32)
    data = Labelled(features[:80], labels[:80], np.ones(80, bool))
    fitted = overfitted.Overfitted().fit(
        data.features,
        data.labels,
        4,
        centre=features.mean(axis=0),
        seed=0,
        progress=lambda share, what: None,
    )
    on_itself = fitted.estimator.sample(data.features)[:, 0]
    assert (on_itself.argmax(axis=1) == data.labels).all()
    probs = fitted.estimator.sample(features[80:])[:, 0]
    right = probs.argmax(axis=1) == labels[80:]
    assert probs.max(axis=1).mean() - right.mean() > 0.05
    assert fitted.out_of_fold.shape == (80, 1, 4)
    assert (fitted.out_of_fold.argmax(axis=2)[:, 0] == data.labels).mean() < 1.0
