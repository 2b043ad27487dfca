from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def replay() -> ModuleType:
    return importlib.import_module("_replay")


def task(replay: ModuleType, count: int = 50) -> Any:
    features = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    labels = np.arange(count) % 3
    return replay.Task(features, labels, features[:6], labels[:6], ("a", "b", "c"))


def test_every_strategy_starts_from_the_same_labels_and_gets_the_budget(replay: ModuleType) -> None:
    first: list[list[int]] = []

    def run(take: slice, share: float = 0.0) -> list[Any]:
        asks: list[Any] = []

        def choose(ask: Any) -> tuple[Any, float]:
            asks.append(ask)
            return ask.rest[take][: ask.n], 0.5

        def fit(labelled: Any, random: Any, seed: int) -> int:
            assert len(np.unique(labelled)) == len(labelled) == len(random)
            return len(labelled)

        plan = replay.Plan(initial=8, batch=10, budget=35)
        found = replay.replay(task(replay), plan, 3, fit, float, choose, share)
        assert found["labels"] == [8, 18, 28, 35]
        assert found["accuracy"] == [8.0, 18.0, 28.0, 35.0]
        assert found["query_s"] == [0.5] * 3
        first.append(asks[0].labelled.tolist())
        return asks

    run(slice(None))
    run(slice(None, None, -1))
    shared = run(slice(None), 0.2)
    assert first[0] == first[1] == first[2]
    assert [len(ask.drawn) for ask in shared] == [2, 2, 1]
    for ask in shared:
        known = np.concatenate([ask.labelled, ask.drawn])
        assert not np.isin(ask.rest, known).any()
        assert len(ask.rest) + len(known) == 50


def test_a_set_without_a_test_split_is_divided_the_same_way_every_time(replay: ModuleType) -> None:
    common = importlib.import_module("common")
    features = np.arange(40, dtype=np.float32).reshape(20, 2)
    data = common.FeatureSet("x", features, np.arange(20), ("a",), np.array([""] * 20))
    one, two = replay.Task.of(data), replay.Task.of(data)
    assert len(one.labels) == 14
    assert sorted([*one.labels, *one.test_labels]) == list(range(20))
    np.testing.assert_array_equal(one.labels, two.labels)
    split = np.array(["train"] * 15 + ["test"] * 5)
    given = replay.Task.of(common.FeatureSet("x", features, np.arange(20), ("a",), split))
    assert given.test_labels.tolist() == list(range(15, 20))


def test_a_run_is_kept_until_its_facts_or_its_code_change(tmp_path: Path) -> None:
    module = importlib.import_module("_kept")
    code = tmp_path / "code.py"
    code.write_text("1")
    made: list[int] = []

    def get(facts: dict[str, Any]) -> Any:
        def make() -> dict[str, Any]:
            made.append(1)
            return {"count": len(made)}

        # A new one each time, as in a later process.
        return module.Kept(tmp_path / "kept", tmp_path).run(facts, ["code.py"], make)["count"]

    assert [get({"seed": 0}), get({"seed": 0}), get({"seed": 1}), get({"seed": 0})] == [1, 1, 2, 1]
    code.write_text("2")
    assert get({"seed": 0}) == 3


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    module = importlib.import_module("_kept")

    def fail() -> dict[str, Any]:
        raise RuntimeError("no")

    kept = module.Kept(tmp_path, tmp_path)
    with pytest.raises(RuntimeError):
        kept.run({}, [], fail)
    assert kept.run({}, [], lambda: {"fine": 1}) == {"fine": 1}


def test_what_is_set_aside_is_never_in_the_pool(replay: ModuleType) -> None:
    uncertainty = importlib.import_module("uncertainty")
    whole = task(replay)
    left, (features, labels) = uncertainty.set_aside(whole, 0.3, 1)
    assert (len(left.labels), len(labels)) == (35, 15)
    together = np.concatenate([left.features, features])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(whole.features, axis=0))
    np.testing.assert_array_equal(left.test_labels, whole.test_labels)
    assert len(uncertainty.set_aside(whole, 0.0, 1)[1][1]) == 0
