from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def peers() -> ModuleType:
    return importlib.import_module("peers")


def runs(*areas: float) -> dict[int, dict[str, Any]]:
    return {
        seed: {
            "labels": [10, 20],
            "accuracy": [area - 0.1, area + 0.1],
            "query_s": [0.1],
            "fit_s": [0.1, 0.1],
        }
        for seed, area in enumerate(areas)
    }


LIBRARY, SLOW = "modAL: margin", "scikit-activeml: badge"


def table(peers: ModuleType) -> dict[str, Any]:
    rows = {
        "doubtless: random": runs(0.5, 0.6),
        "doubtless: auto": runs(0.7, 0.8),
        "doubtless: auto + random share": runs(0.8, 0.9),
        LIBRARY: runs(0.6, 0.8),
        SLOW: runs(0.9),
        "full: auto": runs(0.9, 0.9),
    }
    found: dict[str, Any] = peers.summarise(rows, {SLOW: "seed 1: too slow"}, 20)
    return found


def test_the_best_row_comes_first_and_the_two_parts_stay_apart(peers: ModuleType) -> None:
    found = table(peers)
    assert list(found["plain"]) == [
        "doubtless: auto + random share",
        "doubtless: auto",
        LIBRARY,
        "doubtless: random",
    ]
    assert list(found["full"]) == ["full: auto"]
    assert (found["best_library"], found["first"]) == (LIBRARY, "doubtless: auto")


def test_a_strategy_that_failed_has_a_reason_instead_of_a_row(peers: ModuleType) -> None:
    found = table(peers)
    assert found["failed"] == {SLOW: "seed 1: too slow"}
    assert SLOW not in found["plain"]


def test_rows_are_compared_seed_by_seed(peers: ModuleType) -> None:
    found = table(peers)
    auto = found["plain"]["doubtless: auto"]
    assert auto["auc_minus_best_library"] == {"mean": 0.05, "se": 0.05, "seeds": 2}
    assert auto["auc_minus_first"] == {"mean": 0.0, "se": 0.0, "seeds": 2}
    assert found["full"]["full: auto"]["auc_minus_best_library"]["mean"] == 0.2
    assert "auc_minus_first" not in found["full"]["full: auto"]


def test_without_libraries_there_is_nobody_to_be_compared_with(peers: ModuleType) -> None:
    found = peers.summarise({"doubtless: random": runs(0.5)}, {}, 20)
    assert found["best_library"] is None
    assert "auc_minus_best_library" not in found["plain"]["doubtless: random"]


def test_every_strategy_that_needs_a_posterior_is_a_strategy() -> None:
    strategies = importlib.import_module("peering.strategies")
    assert strategies.STRATEGIES.keys() > strategies.NEEDS_SAMPLES
    assert {name.split(": ")[0] for name in strategies.STRATEGIES} == {
        "scikit-activeml",
        "baal",
        "batchbald-redux",
        "modAL",
    }


def test_an_impossible_class_stays_impossible_for_the_libraries_too() -> None:
    softmax = importlib.import_module("peering.strategies").softmax
    probs = softmax(importlib.import_module("numpy").array([[1.0, 1.0, -1e9]]))
    assert probs.tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [("badge", True), ("modAL, badge", True), ("baal", False), ("", False), (" , ", False)],
)
def test_names_are_found_by_their_parts(peers: ModuleType, parts: str, expected: bool) -> None:
    assert peers._is_named(SLOW, parts) is expected


def test_what_fails_is_not_tried_again_and_what_is_skipped_is_said(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    tried: list[tuple[str, int]] = []

    def job(name: str) -> Any:
        def run(seed: int) -> dict[str, Any]:
            tried.append((name, seed))
            if name == SLOW:
                raise peers.StrategyError("too slow")
            return runs(0.5)[0]

        return run

    names = ["doubtless: random", SLOW, LIBRARY]
    monkeypatch.setattr("sys.argv", ["peers", "--seeds", "2", "--skip", LIBRARY])
    rows, failures = peers.run_all({name: job(name) for name in names}, peers.parse())
    assert failures == {SLOW: "seed 0: too slow", LIBRARY: "skipped by --skip"}
    assert tried == [("doubtless: random", 0), (SLOW, 0), ("doubtless: random", 1)]
    assert list(rows) == ["doubtless: random"]


@pytest.mark.parametrize("name", ["bald", "power-bald", "batchbald", "epig", "margin"])
def test_rules_that_live_from_disagreement_are_given_some(peers: ModuleType, name: str) -> None:
    """Else all are equally unsure, and `bald` is `random` under another name."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 12)).astype(np.float32)
    head = peers.fit_plain(rows[:30], np.arange(30) % 3, 3)
    sample = peers.sampler(head, rows[:30], seed=0)
    said = peers.predictions_for(name, head, rows[30:], sample)
    np.testing.assert_allclose(said.probs, head.probs(rows[30:]))
    assert (np.median(said.epistemic) > 1e-3) == (name != "margin")
