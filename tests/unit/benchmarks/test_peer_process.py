"""The protocol, with a peer made up for it: no library is needed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PEER = """
import os, sys, time
from peering.worker import serve

def add(given):
    print("libraries talk")
    os.write(1, b"even below Python")
    return {"sum": given["rows"] + given["more"]}

def fail(given):
    raise ValueError("no such luck")

def wait(given):
    time.sleep(60)

def die(given):
    os._exit(3)

serve({"add": add, "fail": fail, "wait": wait, "die": die})
"""
ROWS, MORE = np.arange(6.0).reshape(2, 3), np.ones((2, 3))


@pytest.fixture
def process() -> ModuleType:
    return importlib.import_module("peering.process")


@pytest.fixture
def peer(process: ModuleType, benchmarks: Path) -> Iterator[Any]:
    command = [sys.executable, "-c", PEER]
    with process.PeerProcess(command, {"rows": ROWS}, {"PYTHONPATH": str(benchmarks)}) as started:
        yield started


def test_arrays_go_there_and_back_whatever_a_library_prints(peer: Any) -> None:
    for factor in (1.0, 2.0):
        answer, seconds = peer.call("add", {"more": factor * MORE}, limit_s=30)
        np.testing.assert_array_equal(answer["sum"], ROWS + factor * MORE)
        assert seconds >= 0.0


def test_what_a_library_raises_is_reported_and_the_next_call_works(
    peer: Any, process: ModuleType
) -> None:
    with pytest.raises(process.PeerError, match="ValueError: no such luck"):
        peer.call("fail", {}, limit_s=30)
    with pytest.raises(process.PeerError, match="KeyError"):
        peer.call("unheard of", {}, limit_s=30)
    assert peer.call("add", {"more": MORE}, limit_s=30)[0]["sum"][0, 0] == 1.0


def test_a_call_beyond_its_limit_is_ended_and_the_next_one_starts_afresh(
    peer: Any, process: ModuleType
) -> None:
    with pytest.raises(process.PeerTimeoutError, match=r"within 0\.2 s"):
        peer.call("wait", {}, limit_s=0.2)
    assert peer.call("add", {"more": MORE}, limit_s=30)[0]["sum"][1, 2] == 6.0


def test_a_worker_that_dies_is_an_error_of_that_call_alone(peer: Any, process: ModuleType) -> None:
    with pytest.raises(process.PeerError, match="exit code 3"):
        peer.call("die", {}, limit_s=30)
    assert peer.call("add", {"more": MORE}, limit_s=30)[0]["sum"][1, 2] == 6.0


def test_a_benchmark_that_is_terminated_ends_its_worker(benchmarks: Path) -> None:
    code = f"""
import os, signal, sys
from peering.process import PeerProcess, end_workers_when_terminated
end_workers_when_terminated()
with PeerProcess([sys.executable, "-c", {PEER!r}]) as peer:
    peer.call("add", {{"rows": 1.0, "more": 1.0}}, limit_s=30)
    print(peer._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    peer.call("wait", {{}}, limit_s=30)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(benchmarks)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 143, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_batch_that_is_short_or_repeats_itself_is_refused() -> None:
    peers, replay = importlib.import_module("peers"), importlib.import_module("_replay")
    ask = replay.Ask(np.arange(3), np.arange(0), np.arange(3, 9), 2, 0, None)
    assert peers.check_choice(np.array([3, 8]), ask).tolist() == [3, 8]
    for chosen in ([3], [3, 3], [2, 3], [3, 9]):
        with pytest.raises(peers.StrategyError, match="with 3 labels"):
            peers.check_choice(np.array(chosen), ask)
