from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmarks, importable as when one of them is started."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return FOLDER
