"""Runs wait in Redis as rq jobs that carry nothing but a run's number.

Jobs are serialised as JSON: whoever can write to Redis can start a run that the database already
knows, and nothing else (rq's default, pickle, would be code execution).
"""

from __future__ import annotations

import socket
from typing import Any

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import Worker

from backend.edges.processes import is_alive
from backend.errors import LaunchError
from backend.settings import without_password

QUEUES = {
    "train": "doubtless-train",
    "cold": "doubtless-train",
    "republish": "doubtless-train",
    "sync": "doubtless-sync",
    "extend": "doubtless-sync",
    "audit": "doubtless-sync",
    "accept": "doubtless-train",
    "undo": "doubtless-train",
    "features": "doubtless-features",
    "prune": "doubtless-idle",
}
# In the order a free worker looks at them.
QUEUE_NAMES = ("doubtless-train", "doubtless-sync", "doubtless-features", "doubtless-idle")
WAITING = {JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED}


def connect(url: str) -> redis.Redis:
    """A connection to Redis or Valkey that notices a dead peer."""
    return redis.Redis.from_url(
        url, socket_timeout=30, socket_connect_timeout=2, health_check_interval=30
    )


def require_redis(url: str) -> None:
    """Make sure that a Redis answers before anything that needs it is started.

    Raises:
        LaunchError: it does not, or refuses.
    """
    try:
        with connect(url) as connection:
            connection.ping()
    except redis.RedisError as exc:
        raise LaunchError(
            f"no Redis answers at {without_password(url)} ({str(exc).rstrip('.')}); start it, or "
            "correct DOUBTLESS_REDIS_URL (without it `doubtless up` brings its own Valkey)"
        ) from exc


class RqQueue:
    """`JobQueue` on rq."""

    def __init__(self, url: str, *, job_timeout_s: int = 3600) -> None:
        self.url = url
        self.connection = connect(url)
        self.job_timeout_s = job_timeout_s
        self.queues: dict[str, Queue] = {
            name: Queue(name, connection=self.connection, serializer=JSONSerializer)
            for name in QUEUE_NAMES
        }

    @staticmethod
    def job_id(run_id: int, attempt: int) -> str:
        """Id of the job of one attempt at a run; rq allows letters, digits, ``_`` and ``-``."""
        return f"run-{run_id}-{attempt}"

    def enqueue(self, run_id: int, kind: str, attempt: int) -> None:
        """See `backend.ports.JobQueue`."""
        self.queues[QUEUES[kind]].enqueue(
            "backend.jobs.execute",
            run_id,
            job_id=self.job_id(run_id, attempt),
            job_timeout=self.job_timeout_s,
            result_ttl=60,
            failure_ttl=3600,
        )

    def holds(self, run_id: int, kind: str, attempt: int) -> bool:
        """See `backend.ports.JobQueue`."""
        try:
            job = Job.fetch(
                self.job_id(run_id, attempt),
                connection=self.connection,
                serializer=JSONSerializer,
            )
        except NoSuchJobError:
            return False
        return job.get_status(refresh=False) in WAITING

    def depth(self) -> dict[str, int]:
        """See `backend.ports.JobQueue`."""
        return {name: queue.count for name, queue in self.queues.items()}

    def workers(self) -> int:
        """See `backend.ports.JobQueue`."""
        found: list[Any] = Worker.all(connection=self.connection)
        ours = [w for w in found if set(w.queue_names()) & set(QUEUE_NAMES)]
        return len({w.name for w in ours if not _was_killed(w)})

    def ping(self) -> None:
        """See `backend.ports.JobQueue`."""
        self.connection.ping()


def _was_killed(worker: Any) -> bool:
    """Whether a worker of this machine ended without a word; Redis lists it for 80 s more."""
    here = worker.hostname == socket.gethostname()
    return here and worker.pid is not None and not is_alive(worker.pid)
