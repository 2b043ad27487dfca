"""The worker process: ``python -m backend.worker``.

One rq worker that forks for each job. The parent imports what jobs need, so that a job does not
pay for it, but runs no arithmetic and opens no session: threads do not survive a fork.
"""

from __future__ import annotations

import logging
import os
import sys

from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import Worker

import backend.jobs  # noqa: F401  (imported here so that every forked job has it)
from backend.edges.rq_queue import QUEUE_NAMES, connect, require_redis
from backend.errors import LaunchError, SettingError
from backend.logs import set_up_logging
from backend.model_names import check_model_names
from backend.settings import Settings

log = logging.getLogger(__name__)


class DoubtlessWorker(Worker):
    """An rq worker that is missed soon: with rq's defaults a dead one is noticed after 14 min."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds a job counts as being worked on after its last sign of life."""
        return int(self.job_monitoring_interval) + 10


def make_worker(settings: Settings) -> DoubtlessWorker:
    """A worker on every queue, in order of urgency."""
    return DoubtlessWorker(
        list(QUEUE_NAMES),
        connection=connect(settings.redis_url),
        serializer=JSONSerializer,
        job_monitoring_interval=5,
        maintenance_interval=5,
        worker_ttl=20,
        default_result_ttl=60,
    )


def run(settings: Settings) -> int:
    """Work until a signal says stop; returns the exit code."""
    set_up_logging(settings)
    try:
        check_model_names(settings)
    except SettingError as exc:
        print(f"doubtless worker: {exc}", file=sys.stderr)
        return 2
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(settings.thread_count()))
    if not settings.redis_url:
        print("doubtless worker: set DOUBTLESS_REDIS_URL, or use `doubtless up`", file=sys.stderr)
        return 2
    try:
        require_redis(settings.redis_url)
    except LaunchError as exc:
        print(f"doubtless worker: {exc}", file=sys.stderr)
        return 2
    # Jobs read the settings from the environment of the process that forked them.
    os.environ["DOUBTLESS_REDIS_URL"] = settings.redis_url
    worker = make_worker(settings)
    worker.work(logging_level="WARNING")
    return 0


if __name__ == "__main__":
    sys.exit(run(Settings.load()))
