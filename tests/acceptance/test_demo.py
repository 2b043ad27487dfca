"""`./run demo` as a newcomer starts it: the real thing, small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.edges.processes import free_port, is_alive
from backend.services import answers
from backend.stack_home import read_state

pytestmark = pytest.mark.acceptance


class Demo:
    """The demonstration in a process of its own, always on the same ports and home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port, self.ls_port = free_port(), free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "backend.demo", "--no-browser", "--home", self.home]
        command += ["--port", self.port, "--ls-port", self.ls_port, *arguments]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return self.process

    def run(self, *arguments: object) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=60)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path / "demo")
    yield made
    made.stop()


def test_it_labels_trains_draws_the_curve_and_keeps_its_data(demo: Demo, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = ("--auto", "--limit", 80, "--seeds", 2, "--json", result)
    said = demo.run(*options, "--until", 20)
    assert "user          admin@example.com" in said
    assert "random order" in said
    first = json.loads(result.read_text())
    assert (first["pool"], first["held_out"]) == (80, 599)
    assert [p["labels"] for p in first["points"]] == [10, 20]
    assert first["points"][-1]["accuracy"] > 0.3
    assert first["random"]["labels"] == [10, 20]
    assert not answers(f"http://127.0.0.1:{demo.port}/health")
    assert not answers(f"http://127.0.0.1:{demo.ls_port}/health")

    # A second start goes on where the first one ended, on the same project.
    began = time.monotonic()
    process = demo.start(*options, "--until", 30)
    assert process.stdout is not None
    with process.stdout:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Doubtless  " in line:
                ready_s = time.monotonic() - began
            if line.startswith("v"):
                assert "Importing" not in "".join(lines)
        assert process.wait(600) == 0, "".join(lines)
    again = json.loads(result.read_text())
    assert again["points"][:2] == first["points"]
    assert [p["labels"] for p in again["points"]] == [10, 20, 30]
    assert ready_s < 60, "a second start takes seconds"

    # Ctrl-C stops everything, and nothing is left behind.
    process = demo.start("--limit", 80)
    home = demo.home / "doubtless"
    deadline = time.monotonic() + 120
    while not answers(f"http://127.0.0.1:{demo.port}/health"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    state = read_state(home)
    assert state is not None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in state["processes"].values())
    assert read_state(home) is None
