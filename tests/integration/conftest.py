from __future__ import annotations

import pytest
from support.installation import Installation, Valkey


@pytest.fixture
def valkey(tmp_path):
    made = Valkey(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def installation(tmp_path, valkey):
    made = Installation(tmp_path, valkey)
    yield made
    made.stop()
