from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def detection() -> ModuleType:
    pytest.importorskip("torch", reason="detectors are trained with torch")
    return importlib.import_module("detection")


def run(accuracy: list[float], last: list[float | None]) -> dict[str, Any]:
    return {
        "labels": [10, 20], "accuracy": accuracy, "per_class": [[0.5, 0.7], last],
        "objects": [30, 60], "query_s": [0.1], "fit_s": [1.0, 2.0],
    }  # fmt: skip


def test_draws_of_a_seed_count_as_their_mean(detection: ModuleType) -> None:
    found = detection.mean_run([run([0.5, 0.6], [0.6, None]), run([0.5, 0.8], [0.8, 0.4])])
    assert found["accuracy"] == pytest.approx([0.5, 0.7])
    assert found["labels"] == [10, 20]
    # A class that a draw's test part says nothing of is known from the others.
    assert found["per_class"][1] == pytest.approx([0.7, 0.4])
    assert found["fit_s"] == [1.0, 2.0, 1.0, 2.0]
    unknown = detection.mean_run([run([0.5, 0.6], [0.6, None])] * 2)
    assert unknown["per_class"] == [[0.5, 0.7], [0.6, None]]  # as JSON has it


def test_a_single_draw_is_left_as_it_is(detection: ModuleType) -> None:
    alone = run([0.5, 0.6], [0.6, None])
    assert detection.mean_run([alone]) == alone


def test_seeds_of_an_earlier_file_count_as_well(detection: ModuleType, tmp_path: Path) -> None:
    asked = {"budgets": [10, 20], "random_draws": 2}
    path = tmp_path / "earlier.json"
    runs = {"random": {"3": run([0.5, 0.6], [0.6, None])}, "auto": {"3": run([0.5, 0.7], [1, 1])}}
    path.write_text(json.dumps({**asked, "runs": runs}))
    found = detection.earlier(path, asked, ["random", "auto"])
    assert found["auto"][3]["accuracy"] == [0.5, 0.7]
    assert detection.earlier(None, asked, ["random"]) == {"random": {}}
    with pytest.raises(SystemExit, match="random_draws 2, not 1"):
        detection.earlier(path, asked | {"random_draws": 1}, ["random"])
    with pytest.raises(SystemExit, match="no single runs of entropy"):
        detection.earlier(path, asked, ["random", "entropy"])


def test_draws_begin_with_the_same_images_and_go_on_with_others(detection: ModuleType) -> None:
    class Images:
        class set:  # noqa: N801
            pool = np.arange(100)

    first = np.arange(10)
    asked = [detection.ask(Images, None, "random", first, 10, 0.0, 3, draw) for draw in (0, 1, 1)]
    assert asked[1].tolist() == asked[2].tolist() != asked[0].tolist()
    assert all(not np.isin(one, first).any() and len(set(one.tolist())) == 10 for one in asked)
