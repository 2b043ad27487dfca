"""Runs whose worker ended go on at once; those whose worker only has no time are left to it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from backend.edges.processes import is_gone, process_name
from backend.scheduler import GIVEN_UP, HUNG_S, MOST_ATTEMPTS, SILENT_S

NAMED = "import time; from backend.edges.processes import process_name as n; print(n(), flush=True)"


@pytest.fixture
def worker():
    """A process that is doing something, and what it calls itself."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{NAMED}; time.sleep(60)"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    yield child, child.stdout.readline().strip()
    child.kill()
    child.wait()
    child.stdout.close()


def taken(world, name: str, *, silent_s: float, attempt: int = 1) -> int:
    """A training that a worker has begun."""
    run = world.database.add_run(world.key, "train")
    world.database.claim_run(run, f"1:{name}")
    world.database.update_run(run, heartbeat_at=time.time() - silent_s, attempt=attempt)
    return run


def after_a_tick(world, run: int):
    world.scheduler.tick()
    return world.database.run(run)


def test_a_process_is_told_from_one_that_has_ended_and_from_those_elsewhere(worker):
    child, name = worker
    assert is_gone(process_name()) is False
    assert is_gone(name) is False
    child.kill()
    child.wait()
    assert is_gone(name) is True
    where, _, number = name.rpartition(":")
    assert is_gone(f"elsewhere/pid:[1]:{number}") is None
    for other in ("", number, f"{where}:x", f"{where}:-1", "me"):
        assert is_gone(other) is None


def test_a_run_whose_worker_was_killed_is_begun_again_at_once(make_world, worker):
    world = make_world(3)
    child, name = worker
    run = taken(world, name, silent_s=0.0)
    assert after_a_tick(world, run).status == "running"
    child.kill()
    child.wait()
    again = after_a_tick(world, run)
    assert (again.status, again.attempt) == ("queued", 2)
    assert again.stage == "its worker ended; starting again"


def test_a_worker_that_is_starved_keeps_its_run_and_one_that_hangs_does_not(make_world, worker):
    world = make_world(3)
    run = taken(world, worker[1], silent_s=HUNG_S - 5.0)
    assert after_a_tick(world, run).status == "running"
    world.database.update_run(run, heartbeat_at=time.time() - HUNG_S - 5.0)
    assert after_a_tick(world, run).status == "queued"


def test_of_a_worker_elsewhere_only_its_silence_is_known(make_world):
    world = make_world(3)
    run = taken(world, "elsewhere:7", silent_s=SILENT_S - 5.0)
    assert after_a_tick(world, run).status == "running"
    world.database.update_run(run, heartbeat_at=time.time() - SILENT_S - 5.0)
    assert after_a_tick(world, run).status == "queued"


def test_a_run_that_ends_its_worker_each_time_is_given_up_and_says_so(make_world):
    world = make_world(3)
    run = taken(world, "elsewhere:7", silent_s=99.0, attempt=MOST_ATTEMPTS)
    given_up = after_a_tick(world, run)
    assert (given_up.status, given_up.error) == ("failed", GIVEN_UP)
    assert given_up.finished_at is not None
