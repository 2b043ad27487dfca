"""When to stop, from the versions there are."""

from __future__ import annotations

import numpy as np
import pytest

from backend.forecast import forecast, pool_accuracy
from backend.kinds import Fitted
from backend.records import Score, Version
from model.engine import fit
from model.types import Labelled


def version(number: int, labels: int, accuracy: float | None, **changes) -> Version:
    half = 0.03
    found = {"value": accuracy, "low": None, "high": None, "sentence": "unknown"}
    if accuracy is not None:
        found |= {"low": accuracy - half, "high": accuracy + half, "sentence": f"{accuracy}"}
    values = {
        "project": "p", "number": number, "name": f"v{number}", "kind": "trained",
        "status": "superseded", "reason": "", "created_at": 0.0, "published_at": None,
        "changes": labels, "labels": labels, "config_hash": "a", "bundle": None,
        "metrics": {"pool_accuracy": found, "backbone": "b"}, "on_platform": False,
    }  # fmt: skip
    return Version(**(values | changes))


def test_nothing_is_said_before_a_version_is_judged():
    said = forecast([version(1, 10, None)], target=0.9, open_tasks=100)
    assert said["accuracy"]["value"] is None
    assert "No version" in said["labels_needed"]["sentence"]


def test_a_curve_that_rises_says_how_many_labels_are_missing():
    labels = [20, 40, 80, 160, 320]
    versions = [version(n, x, 1 - 2.0 * x**-0.5) for n, x in enumerate(labels)]
    said = forecast(versions, target=0.93, open_tasks=5000)
    assert said["accuracy"]["value"] == pytest.approx(1 - 2.0 * 320**-0.5)
    assert said["gain"]["low"] < 2.0 * (320**-0.5 - 420**-0.5) < said["gain"]["high"]
    truth = (2.0 / 0.07) ** 2 - 320
    assert said["labels_needed"]["low"] < truth
    assert said["labels_needed"]["high"] is None or truth < said["labels_needed"]["high"]


def test_versions_on_other_features_or_for_other_classes_do_not_count():
    other = {"pool_accuracy": version(0, 1, 0.2).metrics["pool_accuracy"], "backbone": "c"}
    strangers = [version(1, 500, 0.2, metrics=other), version(2, 600, 0.1, config_hash="z")]
    mine = [version(3 + n, x, 0.9 - 1 / x) for n, x in enumerate((20, 40, 80, 160))]
    alone = forecast(mine, target=0.95, open_tasks=1000)
    assert forecast(strangers + mine, target=0.95, open_tasks=1000) == alone


def test_pool_accuracy_is_near_the_truth():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    x = (rng.normal(size=(3, 8))[labels] * 2 + rng.normal(size=(600, 8)) * 1.5).astype(np.float32)
    data = Labelled(x[:150], labels[:150], np.ones(150, bool))
    bundle = fit(data, ["a", "b", "c"])
    said = bundle.predict(x)
    scores = [
        Score(task_id=i, label="a", score=0.5, p_right=float(said.p_right[i])) for i in range(600)
    ]
    found = pool_accuracy(Fitted(bundle, data.random), scores, dict.fromkeys(range(150), "a"))
    truth = float((said.label[150:] == labels[150:]).mean())
    assert found["low"] < truth < found["high"]
