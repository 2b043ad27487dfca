from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def labels_saved(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return pytest.importorskip("labels_saved")


@pytest.mark.parametrize(
    ("curve", "goal", "expected"),
    [
        ([0.2, 0.4, 0.6, 0.8], 0.8, 1.0),
        ([0.2, 0.4, 0.6, 0.8], 0.6, 40 / 30),
        ([0.2, 0.4, 0.6, 0.8], 0.5, 40 / 25),
        ([0.2, 0.7, 0.6, 0.8], 0.65, 40 / 19),  # a dip afterwards changes nothing
        ([0.5, 0.6, 0.7, 0.8], 0.3, 4.0),  # reached in the first round: not extrapolated
        ([0.2, 0.4, 0.6, 0.7], 0.8, None),
    ],
)
def test_the_ratio_is_budget_over_labels_needed(
    labels_saved: ModuleType, curve: list[float], goal: float, expected: float | None
) -> None:
    found = labels_saved.ratio(np.array([10, 20, 30, 40]), np.array(curve), goal, 40)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))
