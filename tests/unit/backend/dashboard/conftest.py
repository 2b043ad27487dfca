from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from backend.dashboard.access import read_tokens
from backend.web import Web


@pytest.fixture
def tokens(world):
    return read_tokens(world.settings.home_path)


@pytest.fixture
def web(world):
    made = Web(world.app, ticking=False)
    yield made
    made.predicting.shutdown()
    made.recording.shutdown()


@pytest.fixture
def anyone(web):
    """Somebody without a token."""
    with TestClient(web.asgi()) as made:
        yield made


@pytest.fixture
def owner(anyone, tokens):
    """A script with the owner's token."""
    anyone.headers["Authorization"] = f"Bearer {tokens.full}"
    return anyone


@pytest.fixture
def trained(world):
    world.work()
    world.label(10)
    world.work()
    return world
