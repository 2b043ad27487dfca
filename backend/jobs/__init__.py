"""What workers run. Every job may be run twice, by two workers, or be killed at any line."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable
from functools import lru_cache

from backend.app import App, build
from backend.edges.processes import process_name
from backend.errors import BackendError
from backend.jobs import accept, audit, cold, extend, features, prune, republish, sync, train
from backend.jobs.base import Heartbeat, Job, TakenAwayError
from backend.settings import Settings
from model.errors import ModelError

log = logging.getLogger(__name__)

KINDS: dict[str, Callable[[Job], str]] = {
    "sync": sync.run,
    "features": features.run,
    "cold": cold.run,
    "train": train.run,
    "republish": republish.run,
    "extend": extend.run,
    "prune": prune.run,
    "audit": audit.run,
    "accept": accept.run,
    "undo": accept.undo,
}


@lru_cache(maxsize=1)
def _app(_pid: int) -> App:
    # A forked worker must not share database connections with its parent: one App a process.
    return build(Settings.load())


def execute(run_id: int) -> str:
    """Entry point of the workers: do the work of one run."""
    return perform(_app(os.getpid()), run_id)


def perform(app: App, run_id: int) -> str:
    """Do the work of one run, record how it ended, and never raise for what was expected.

    Returns:
        One line that says what was done.
    """
    owner = f"{time.time_ns()}:{process_name()}"
    run = app.database.claim_run(run_id, owner)
    if run is None:
        return "nothing to do: the run is done or somebody else has it"
    started = time.perf_counter()
    try:
        job = Job(app.of_project(run.project), run, owner)
        with Heartbeat(job):
            said = KINDS[run.kind](job)
    except TakenAwayError as exc:
        log.warning("%s", exc)
        return str(exc)
    except (BackendError, ModelError) as exc:
        log.error("run %s (%s of %s) failed: %s", run.id, run.kind, run.project, exc)
        _finish(app, run_id, owner, "failed", error=str(exc))
        return f"failed: {exc}"
    except Exception as exc:  # recorded for people to see, then raised for rq
        log.exception("run %s (%s of %s) failed", run.id, run.kind, run.project)
        where = traceback.extract_tb(exc.__traceback__)[-1]
        message = f"{type(exc).__name__}: {exc} ({os.path.basename(where.filename)}:{where.lineno})"
        _finish(app, run_id, owner, "failed", error=message)
        raise
    took = time.perf_counter() - started
    log.info("%s of %s: %s (%.1f s)", run.kind, run.project, said, took)
    _finish(app, run_id, owner, "done", stage=said, progress=1.0)
    return said


def _finish(app: App, run_id: int, owner: str, status: str, **values: object) -> None:
    app.database.beat(run_id, owner, status=status, finished_at=time.time(), **values)
