from __future__ import annotations

import pytest
from support.world import World


@pytest.fixture
def make_world(tmp_path):
    return lambda n=60, **settings: World(tmp_path, n, **settings)


@pytest.fixture
def world(make_world):
    return make_world()
