"""One contract, run over both implementations of `JobQueue`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker

from backend.edges.rq_queue import RqQueue
from backend.testing import InMemoryQueue


@pytest.fixture(params=["memory", "rq"])
def queue(request):
    if request.param == "memory":
        return InMemoryQueue()
    return RqQueue(request.getfixturevalue("valkey").url)


def test_an_enqueued_run_is_held_until_it_is_forgotten(queue):
    queue.ping()
    queue.enqueue(7, "train", 1)
    assert queue.holds(7, "train", 1)
    assert not queue.holds(7, "train", 2)
    assert not queue.holds(8, "train", 1)


def test_depth_counts_what_waits(queue):
    assert sum(queue.depth().values()) == 0
    queue.enqueue(1, "train", 1)
    queue.enqueue(2, "prune", 1)
    assert sum(queue.depth().values()) == 2


def test_the_same_attempt_twice_is_harmless(queue):
    queue.enqueue(1, "train", 1)
    queue.enqueue(1, "train", 1)
    assert queue.holds(1, "train", 1)


def test_a_run_done_is_not_held_and_may_come_again(valkey, monkeypatch):
    done = []
    monkeypatch.setattr("backend.jobs.execute", lambda run_id: done.append(run_id) or "said")
    queue = RqQueue(valkey.url)
    worker = SimpleWorker(
        list(queue.queues.values()), connection=queue.connection, serializer=JSONSerializer
    )
    for attempt in (1, 2):
        queue.enqueue(3, "sync", attempt)
        worker.work(burst=True)
        assert not queue.holds(3, "sync", attempt)
    assert done == [3, 3]


def test_what_stands_in_redis_is_json(valkey):
    """Whoever can write to Redis must not be able to run code."""
    queue = RqQueue(valkey.url)
    queue.enqueue(3, "train", 1)
    data = queue.connection.hget("rq:job:run-3-1", "data")
    import zlib

    assert b"backend.jobs.execute" in zlib.decompress(data)
    assert b"\x80" not in zlib.decompress(data)[:2]


def test_a_worker_killed_on_this_machine_is_not_counted(valkey):
    queue = RqQueue(valkey.url)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def register(**said):
        worker = SimpleWorker(list(queue.queues.values()), connection=queue.connection)
        for name, value in said.items():
            setattr(worker, name, value)
        worker.register_birth()

    register()
    assert queue.workers() == 1
    register(pid=ended.pid)
    assert queue.workers() == 1
    register(pid=ended.pid, hostname="another-machine")  # whose process ids say nothing here
    assert queue.workers() == 2
