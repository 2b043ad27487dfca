"""Bring the database in line with Label Studio, the source of truth for tasks and labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.acceptance import review
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labels.results import from_result
from backend.edges.labelstudio_records import AnnotationRecord, TaskRecord
from backend.errors import MediaError
from backend.jobs.base import SMALL_PATIENCE_S, Job
from backend.records import Project

# Clocks differ, and a transaction becomes visible after its timestamp was taken.
OVERLAP = timedelta(seconds=30)
FULL_EVERY_S = 6 * 3600.0
BATCH = 1000
# Tasks read in one request, so that it fits between two submits: 0.25 s when all are annotated.
PAGE = 100
PAGE_S = 0.3
# The same when few of them are annotated.
LONG_PAGE = 250


def run(job: Job) -> str:
    """Read what changed; everything, when the counters say that something was missed."""
    said = synchronise(job, full=bool(job.run.payload.get("full")))
    concluded = review(job.app.database, job.project)
    if concluded:
        job.tell_piles()
    return "; ".join([said, *concluded])


def synchronise(job: Job, *, full: bool = False, only_if_missed: bool = False) -> str:
    """Read annotations touched since the last time, and repair what differs.

    Webhooks tell that something changed; the changed tasks are found by their time. What was
    missed, as deletions are, shows in Label Studio's counters.

    Args:
        job: the job that asks.
        full: read all tasks.
        only_if_missed: read nothing when the counters agree, for callers in a hurry.

    Returns:
        One line that says what was found.
    """
    database = job.app.database
    before = job.project
    job.wait_for_pause()
    started = time.time()
    facts = job.platform.project(before.platform_id)
    project = refresh_config(job, before, facts)
    spec = job.app.spec(project)
    if spec is None:
        database.update_project(project.key, synced_at=started, sync_requested_at=None)
        return "nothing to predict: " + " ".join(project.problems)
    reconfigured = project.config_hash != before.config_hash
    old = started - (project.full_sync_at or 0.0) > FULL_EVERY_S
    full = full or reconfigured or old or project.sync_cursor is None
    if only_if_missed and not full and not before.pings and not missed(job, project, facts):
        return "nothing was missed"
    read = 0
    changed = 0
    if not full:
        since = datetime.fromisoformat(project.sync_cursor or "") - OVERLAP
        seen, changed = _read(job, project, spec, _pages(job, project, since))
        read = len(seen)
        full = missed(job, project, facts)
    if full:
        seen, more = _read(job, project, spec, _pages(job, project))
        gone = [t.task_id for t in database.tasks(project.key) if t.task_id not in seen]
        database.drop_tasks(project.key, gone)
        changed += more + len(gone)
        read = len(seen)
        database.update_project(project.key, full_sync_at=started)
    cursor = datetime.fromtimestamp(started, UTC).isoformat()
    values: dict[str, Any] = {"synced_at": started, "sync_cursor": cursor}
    if project.sync_requested_at is not None and project.sync_requested_at <= started:
        values["sync_requested_at"] = None
    database.update_project(project.key, **values)
    database.settle_pings(project.key, before.pings)
    return f"{'all' if full else 'recent'} tasks read ({read}), {changed} changes"


def refresh_config(job: Job, project: Project, facts: dict[str, Any]) -> Project:
    """Take over a changed labeling config or title."""
    config = str(facts.get("label_config") or "")
    title = str(facts.get("title") or project.title)
    if (config, title) != (project.label_config, project.title):
        parsed = parse_config(config)
        job.app.database.update_project(
            project.key,
            label_config=config,
            title=title,
            config_hash=parsed.spec.config_hash if parsed.spec else "",
            problems=list(parsed.problems),
        )
    return job.app.database.project(project.key)


def annotation_rows(
    spec: TaskSpec, annotations: Iterable[AnnotationRecord]
) -> list[dict[str, Any]]:
    """Annotations as rows of the database; skips have no label, nor have empty ones of choices.

    One without boxes says that there is no object, which is an answer.
    """
    return [
        {
            "annotation_id": a.id,
            "task_id": a.task_id,
            "label": None if a.was_cancelled else from_result(spec, a.result),
            "cancelled": a.was_cancelled,
            "completed_by": a.completed_by,
            "lead_time": a.lead_time,
            "made_in_bulk": a.made_in_bulk,
            "updated_at": a.updated_at,
        }
        for a in annotations
    ]


def reference_of(spec: TaskSpec, data: dict[str, Any]) -> str:
    """The image of a task; empty when the task has none under the config's key."""
    try:
        return spec.reference(data)
    except MediaError:
        return ""


def _pages(job: Job, project: Project, since: datetime | None = None) -> Iterator[TaskRecord]:
    """Annotated tasks touched since then, or all tasks; each page in a pause between submits."""

    def pause(*_: int) -> None:
        job.wait_for_good_moment(PAGE_S, patience_s=SMALL_PATIENCE_S)

    pause()
    return job.platform.tasks(
        project.platform_id,
        updated_since=since,
        only_annotated=since is not None,
        page_size=LONG_PAGE if since is None else PAGE,
        progress=pause,
    )


def _read(
    job: Job, project: Project, spec: TaskSpec, records: Iterable[TaskRecord]
) -> tuple[set[int], int]:
    database = job.app.database
    known = database.annotation_ids_by_task(project.key)
    seen: set[int] = set()
    changed = 0
    batch: list[TaskRecord] = []

    def flush() -> int:
        ids = {a.id for record in batch for a in record.annotations}
        deleted = [a for record in batch for a in known.get(record.id, ()) if a not in ids]
        count = database.put_tasks(
            project.key, {record.id: reference_of(spec, record.data) for record in batch}
        )
        count += database.put_annotations(
            project.key,
            annotation_rows(spec, [a for record in batch for a in record.annotations]),
        )
        count += database.drop_annotations(project.key, deleted) if deleted else 0
        batch.clear()
        return count

    for record in records:
        seen.add(record.id)
        batch.append(record)
        if len(batch) >= BATCH:
            changed += flush()
            job.say(0.5, f"reading tasks: {len(seen)}")
    return seen, changed + flush()


def missed(job: Job, project: Project, facts: dict[str, Any]) -> bool:
    """Whether Label Studio's counters differ from ours: an event was lost."""
    submitted, skipped = job.app.database.annotation_counts(project.key)
    ours = (sum(job.app.database.task_counts(project.key).values()), submitted, skipped)
    theirs = (
        facts.get("task_number"),
        facts.get("total_annotations_number"),
        facts.get("skipped_annotations_number"),
    )
    return any(b is not None and a != b for a, b in zip(ours, theirs, strict=True))
