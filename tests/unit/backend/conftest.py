from __future__ import annotations

import pytest
from support.world import World

from backend.jobs import base


@pytest.fixture(autouse=True)
def no_heartbeat(monkeypatch):
    """A database in memory is one connection: a beat in between breaks the job's transaction."""
    monkeypatch.setattr(base, "HEARTBEAT_S", 1e6)


@pytest.fixture
def make_world(tmp_path):
    return lambda n=60, **settings: World(tmp_path, n, **settings)


@pytest.fixture
def world(make_world):
    return make_world()
