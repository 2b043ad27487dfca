"""Children as the system sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.edges.processes import spawn

ASK = "import os; print(os.nice(0)); print(open('/proc/self/autogroup').read())"


def ask(nice: int) -> list[str]:
    process = spawn([sys.executable, "-c", ASK], output=subprocess.PIPE, nice=nice)
    return process.communicate()[0].decode().split()


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no autogroups here")
def test_a_less_urgent_child_is_so_among_sessions_too() -> None:
    """Linux divides the time between sessions first, and only then by the niceness inside."""
    before = int(ask(0)[0])
    nice, _, word, group_nice = ask(7)
    assert (int(nice), word, group_nice) == (min(before + 7, 19), "nice", "7")
