"""Turn predictions that were proved good enough into annotations, and take them back.

A task is marked before its annotation is made, so that whoever reads labels meanwhile never takes
it for a person's; a job that broke off finds what it made by how Label Studio marks it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from backend.acceptance import (
    ACCEPTED,
    ACCEPTING,
    CERTIFIED,
    FEWEST_WATCHED,
    STANDING,
    UNDOING,
    UNDONE,
    WATCHED,
    WATCHED_SHARE,
)
from backend.edges.database.audits import PENDING
from backend.edges.labels.config import TaskSpec
from backend.edges.labels.results import from_result
from backend.errors import BackendError
from backend.jobs.base import Job
from backend.jobs.sync import synchronise
from backend.records import Audit, AuditItem

CHUNK = 200
# What one request of that many tasks keeps Label Studio busy.
CHUNK_S = 1.0
DELETE_S = 0.15


def run(job: Job) -> str:
    """Accept what the audit named in the payload has proved."""
    database, key = job.app.database, job.run.project
    audit = _audit(job)
    if audit.status not in (CERTIFIED, ACCEPTING):
        return f"nothing to accept: the audit is {audit.status}"
    job.say(0.02, "reading labels")
    synchronise(job)
    project = job.project
    if audit.status == CERTIFIED:
        if project.live_version != audit.version:
            raise BackendError("another version is live now; what it says needs its own audit")
        _choose(job, audit)
    spec = job.require_spec(project)
    todo = database.audit_items(audit.id, state=PENDING)
    for start in range(0, len(todo), CHUNK):
        job.say(0.1 + 0.8 * start / len(todo), f"accepting: {start} of {len(todo)}")
        job.wait_for_good_moment(CHUNK_S)
        job.confirm(stage=f"accepting: {start} of {len(todo)}")
        _accept(job, spec, audit, todo[start : start + CHUNK])
    synchronise(job)
    database.update_audit(audit.id, only_if=(ACCEPTING,), status=ACCEPTED)
    job.app.piles_changed(project, None)
    database.add_run(key, "audit", reason="some of what was accepted is checked")
    states = database.audit_states(audit.id)
    return (
        f"{states.get(ACCEPTED, 0)} labels accepted; {states.get(WATCHED, 0)} more are asked for, "
        "to see that it stays true"
    )


def undo(job: Job) -> str:
    """Delete the annotations that were made; those that people changed since are theirs."""
    database = job.app.database
    audit = _audit(job)
    if audit.status not in STANDING:
        return f"nothing to take back: the audit is {audit.status}"
    database.update_audit(audit.id, status=UNDOING)
    spec = job.require_spec(job.project)
    todo = database.audit_items(audit.id, state=ACCEPTED)
    kept = 0
    for start in range(0, len(todo), CHUNK):
        part = todo[start : start + CHUNK]
        job.wait_for_good_moment(CHUNK_S)
        there = job.platform.annotations_of_many(
            job.project.platform_id, [item.task_id for item in part]
        )
        for n, item in enumerate(part):
            job.say((start + n) / len(todo), f"taking back: {start + n} of {len(todo)}")
            ours = [a for a in there.get(item.task_id, ()) if a.id == item.annotation_id]
            if ours and from_result(spec, ours[0].result) != item.label:
                kept += 1
            elif ours:
                job.wait_for_good_moment(DELETE_S, patience_s=1.0)
                job.platform.delete_annotation(ours[0].id)
                database.drop_annotations(job.run.project, [ours[0].id])
        database.update_items(audit.id, [item.task_id for item in part], state=UNDONE)
    synchronise(job)
    database.update_audit(audit.id, status=UNDONE)
    changed = f"; {kept} that people changed since stay" if kept else ""
    return f"{len(todo) - kept} accepted labels taken back{changed}"


def _audit(job: Job) -> Audit:
    number = int(job.run.payload["audit"])
    for audit in job.app.database.audits(job.run.project):
        if audit.id == number:
            return audit
    raise BackendError(f"there is no audit {number}")


def _choose(job: Job, audit: Audit) -> None:
    """Say which tasks are to be accepted, and keep some of them back to be checked."""
    database, key = job.app.database, job.run.project
    size = int((audit.certificate or {})["size"])
    touched = database.touched_tasks(key)
    items = database.audit_items(audit.id, state="", below=size)
    free = [item.task_id for item in items if item.task_id not in touched]
    count = min(len(free), max(FEWEST_WATCHED, math.ceil(WATCHED_SHARE * len(free))))
    chosen = np.random.default_rng(audit.id).permutation(len(free))[:count].tolist()
    watched = {free[n] for n in chosen}
    database.update_items(audit.id, watched, state=WATCHED)
    database.update_items(audit.id, [i for i in free if i not in watched], state=PENDING)
    database.update_audit(audit.id, only_if=(CERTIFIED,), status=ACCEPTING)


def _accept(job: Job, spec: TaskSpec, audit: Audit, items: Sequence[AuditItem]) -> None:
    """Make annotations of the predictions of tasks that nobody has answered meanwhile."""
    database, number = job.app.database, job.project.platform_id
    name = database.version(job.run.project, audit.version).name
    ids = [item.task_id for item in items]
    there = job.platform.annotations_of_many(number, ids)
    answered = [i for i in ids if any(not a.made_in_bulk for a in there.get(i, ()))]
    gone = [i for i in ids if i not in there]
    database.update_items(audit.id, [*answered, *gone], state="")
    left = [i for i in ids if i in there and i not in answered]
    job.platform.accept_predictions(number, name, left)
    made = {
        task: (found.id, from_result(spec, found.result))
        for task, annotations in job.platform.annotations_of_many(number, left).items()
        for found in annotations
        if found.made_in_bulk
    }
    if len(made) < len(left):
        raise BackendError(
            f"Label Studio made annotations of {len(made)} of {len(left)} predictions of {name}; "
            "it is tried again"
        )
    database.mark_accepted(audit.id, made)
