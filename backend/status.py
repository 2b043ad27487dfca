"""What stands where: the one function behind ``doubtless status --json`` and the dashboard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from backend import acceptance, audits
from backend.drift import alarm_of
from backend.edges.database import Database
from backend.forecast import forecast
from backend.kinds import kind_of_project
from backend.methods import in_force
from backend.ports import JobQueue
from backend.records import Project, Run
from backend.scheduler import training_decision
from backend.settings import Settings
from backend.triage import piles
from model.engine import ACCURACY

UNREADABLE_SHOWN = 20
# Earlier runs of a kind that say how long one takes; more would remember a smaller pool.
REMEMBERED = 5
# Below, progress says too little about the rate.
LEAST_PROGRESS, LEAST_SECONDS = 0.05, 2.0


def overview(
    settings: Settings,
    database: Database,
    queue: JobQueue | None,
    projects: Sequence[Project] | None = None,
) -> dict[str, Any]:
    """Queue, workers and projects: labels, live version, what runs, what comes next; as JSON.

    Args:
        settings: of what runs.
        database: the facts.
        queue: None when no Redis is known.
        projects: which; all by default.
    """
    chosen = database.projects() if projects is None else projects
    return {
        "server": settings.reachable_url,
        "home": str(settings.home_path),
        "queue": _queue_state(queue),
        "projects": [project_status(settings, database, p) for p in chosen],
    }


def _queue_state(queue: JobQueue | None) -> dict[str, Any]:
    if queue is None:
        return {"state": "not running", "workers": 0, "waiting": {}}
    try:
        return {"state": "ok", "workers": queue.workers(), "waiting": queue.depth()}
    except Exception as exc:  # whatever the client raises, the queue does not answer
        return {"state": f"down: {exc}", "workers": 0, "waiting": {}}


def project_status(settings: Settings, database: Database, project: Project) -> dict[str, Any]:
    """One project, as JSON."""
    versions = database.versions(project.key)
    live = next((v for v in versions if v.number == project.live_version), None)
    trained = [v for v in versions if v.kind != "cold" and v.status in ("live", "superseded")]
    failed = _not_made_good(database, project)
    broken = database.tasks(project.key, state="broken", limit=UNREADABLE_SHOWN)
    decision = training_decision(settings, database, project, versions, time.time())
    metrics = trained[-1].metrics if trained else {}
    counts = database.task_counts(project.key)
    return {
        "key": project.key,
        "title": project.title,
        "label_studio": project.host,
        "project": project.platform_id,
        "paused": project.paused,
        "methods": in_force(settings, database, project, live),
        "tasks": counts,
        "labels": database.label_count(project.key),
        "announced": project.pings,
        "random_labels": database.random_label_count(project.key),
        "live_version": None if live is None else live.name,
        "metric": metrics.get("metric", ACCURACY),
        "accuracy": metrics.get("random_accuracy"),
        "accuracy_interval": metrics.get("random_accuracy_interval"),
        "accuracy_out_of_fold": metrics.get("oof_accuracy"),
        "ece": metrics.get("ece"),
        "stopping": forecast(
            versions,
            target=settings.target_accuracy,
            open_tasks=max(0, counts["ready"] - database.touched_count(project.key)),
        ),
        "running": [run_status(database, r) for r in database.runs(project.key)],
        "next_training": asdict(decision),
        "acceptance": audits.describe(database, project),
        "accept_by": acceptance.ways_to_count(project),
        "piles": piles(database, project),
        "drift": alarm_of(database, project),
        "problems": project.problems,
        "advice": kind_of_project(project).advice(settings, metrics),
        "unreadable": [{"task": t.task_id, "why": t.error} for t in broken],
        "last_error": None if failed is None else run_status(database, failed),
    }


def _not_made_good(database: Database, project: Project) -> Run | None:
    """The newest failed run, unless one of its kind has succeeded since."""
    for failed in database.runs(project.key, status=("failed",), limit=1):
        done = database.runs(project.key, status=("done",))
        if not any(run.id > failed.id and run.kind == failed.kind for run in done):
            return failed
    return None


def run_status(database: Database, run: Run) -> dict[str, Any]:
    """One run, how far it is and how long it may still take, as JSON."""
    now = time.time()
    seconds = (run.finished_at or now) - (run.started_at or run.created_at)
    left = None
    if run.status == "running":
        left = seconds_left(
            run.progress, seconds, database.durations(run.project, run.kind, REMEMBERED)
        )
    return {
        "id": run.id,
        "kind": run.kind,
        "status": run.status,
        "reason": run.reason,
        "progress": run.progress,
        "stage": run.stage,
        "attempt": run.attempt,
        "seconds": round(seconds, 1),
        "seconds_left": None if left is None else round(left, 1),
        "error": run.error,
    }


def seconds_left(progress: float, seconds: float, earlier: Sequence[float]) -> float | None:
    """How long a run may still take.

    The stages of a run are not equally long, so earlier runs of its kind count first and its own
    rate more and more.

    Args:
        progress: share that is done, from 0 to 1.
        seconds: since it began.
        earlier: seconds that earlier runs of its kind took.

    Returns:
        None when neither tells.

    Example:
        >>> seconds_left(0.5, 30.0, [40.0])
        25.0
    """
    share = min(max(progress, 0.0), 1.0)
    rate = None
    if share >= LEAST_PROGRESS and seconds >= LEAST_SECONDS:
        rate = seconds * (1.0 - share) / share
    if not earlier:
        return rate
    usual = median(earlier) * (1.0 - share)
    return usual if rate is None else (1.0 - share) * usual + share * rate
