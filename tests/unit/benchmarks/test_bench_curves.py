from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def curves() -> ModuleType:
    return importlib.import_module("_curves")


def run(*accuracy: float) -> dict[str, Any]:
    return {
        "labels": [10, 20, 30, 40],
        "accuracy": list(accuracy),
        "query_s": [0.1, 0.3, 0.2],
        "fit_s": [1.0, 1.0, 1.0, 2.0],
    }


def test_the_standard_error_is_that_of_the_mean(curves: ModuleType) -> None:
    values = np.random.default_rng(0).normal(size=7)
    mean, error = curves.mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(stats.sem(values))
    assert curves.mean_and_error([3.0]) == (3.0, None)


def test_paired_errors_are_those_of_a_paired_t_test(curves: ModuleType) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=6), rng.normal(size=6)
    found = curves.paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert found["seeds"] == 6
    t = stats.ttest_rel(ours, theirs).statistic
    assert found["mean"] / found["se"] == pytest.approx(t, rel=1e-2)  # written with 4 digits


def test_only_seeds_that_both_have_are_paired(curves: ModuleType) -> None:
    found = curves.paired({0: 0.5, 1: 0.9, 2: 0.7}, {2: 0.6, 0: 0.4, 5: 0.0})
    assert found == {"mean": 0.1, "se": 0.0, "seeds": 2}
    assert curves.paired({0: 0.5}, {1: 0.5}) is None
    assert curves.paired({0: 0.5}, {0: 0.4})["se"] is None


def test_a_row_compares_with_the_mean_final_accuracy_of_random(curves: ModuleType) -> None:
    random = {0: run(0.2, 0.4, 0.5, 0.5), 1: run(0.2, 0.4, 0.5, 0.7)}
    ours = {0: run(0.2, 0.6, 0.7, 0.8), 1: run(0.2, 0.5, 0.5, 0.5)}
    row = curves.describe(ours, random, 40)
    assert row["mean"] == [0.2, 0.55, 0.6, 0.65]
    assert row["auc"] == pytest.approx((0.2 + 0.55 + 0.6 + 0.65) / 4)
    assert row["auc_se"] == pytest.approx(abs(0.575 - 0.425) / 2, abs=1e-4)
    assert row["labels_saved"] == pytest.approx(40 / 30, abs=1e-3)  # 0.6 is reached at 30
    assert row["labels_saved_at"] == pytest.approx([1.273, 1.615, 1.333], abs=1e-3)
    assert row["labels_saved_per_seed"] == [2.0, None]
    assert row["query_s"] == 0.2
    assert curves.describe(random, random, 40)["labels_saved"] == 1.0
    assert curves.describe(random, random, 40)["labels_saved_at"] == [1.0, 1.0, 1.0]


def test_one_seed_has_a_row_without_errors(curves: ModuleType) -> None:
    row = curves.describe({0: run(0.1, 0.2, 0.3, 0.4)}, {0: run(0.1, 0.2, 0.3, 0.4)}, 40)
    assert row["auc_se"] is None
    assert row["sd"] == [0.0] * 4
