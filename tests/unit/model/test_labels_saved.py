"""The benchmark is the replay of `model.simulation` with its own way of asking for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.tiny_sets import blobs

from model.simulation.replay import Plan, replay


def test_the_benchmark_writes_what_the_replay_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    labels_saved = pytest.importorskip("labels_saved")
    common = pytest.importorskip("common")
    data = blobs()
    found = common.FeatureSet(
        data.name, data.features, data.labels, data.classes, np.where(data.test, "test", "train")
    )
    monkeypatch.setattr(labels_saved, "features_of", lambda source, backbone: found)
    out = tmp_path / "result.json"
    arguments = ["--budget", "24", "--batch", "8", "--seeds", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["labels_saved.py", *arguments])
    labels_saved.main()
    result = json.loads(out.read_text())
    plan = Plan(initial=0, batch=8, rounds=3)
    curves = [
        [point.accuracy for point in replay(data, plan, "auto", seed).checkpoints]
        for seed in range(2)
    ]
    assert result["curves"]["auto"]["labels"] == [8, 16, 24]
    assert result["curves"]["auto"]["mean"] == pytest.approx(np.mean(curves, axis=0), abs=1e-4)
    assert result["benchmark"] == "labels_saved"
    assert set(result["labels_saved_ratio"]) == {"auto"}
