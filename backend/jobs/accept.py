"""Turn predictions that were proved good enough into annotations, and take them back.

A task is marked before its annotation is made, so that whoever reads labels meanwhile never takes
it for a person's; a job that broke off finds what it made by how Label Studio marks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from backend.acceptance import review
from backend.audits import (
    ACCEPTED,
    ACCEPTING,
    CERTIFIED,
    FEWEST_WATCHED,
    REGIONS,
    STANDING,
    UNDOING,
    UNDONE,
    WATCHED,
    WATCHED_SHARE,
    proved,
    regions_of,
)
from backend.edges.database.audits import PENDING
from backend.edges.labelstudio_records import AnnotationRecord, TaskRecord
from backend.errors import BackendError, NotNowError
from backend.jobs.base import Job
from backend.jobs.sync import annotation_rows, synchronise
from backend.records import Audit, AuditItem
from backend.region_audits import draw_regions

CHUNK = 200
UNDO_CHUNK = 60  # as many are read, and deleted, while somebody could save one of them
# What one request of that many tasks keeps Label Studio busy.
CHUNK_S = 1.0
DELETE_S = 0.15


def run(job: Job) -> str:
    """Accept what the audit named in the payload has proved."""
    database, key = job.app.database, job.run.project
    # Asked for twice, two workers would make two annotations of a prediction.
    job.wait_for_others("accept", "undo")
    audit = _audit(job)
    if audit.status not in (CERTIFIED, ACCEPTING):
        return f"nothing to accept: the audit is {audit.status}"
    job.say(0.02, "reading labels")
    synchronise(job)
    if audit.status == CERTIFIED:
        if job.project.live_version != audit.version:
            raise NotNowError("another version is live now; what it says needs its own audit")
        if not database.update_audit(audit.id, only_if=(CERTIFIED,), status=ACCEPTING):
            raise NotNowError("the audit was given up at this moment; nothing was accepted")
    _choose(job, audit)
    todo = database.audit_items(audit.id, state=PENDING)
    for start in range(0, len(todo), CHUNK):
        job.say(0.1 + 0.8 * start / len(todo), f"accepting: {start} of {len(todo)}")
        job.wait_for_good_moment(CHUNK_S)
        job.confirm(stage=f"accepting: {start} of {len(todo)}")
        if _audit(job).status != ACCEPTING:
            return "accepting was ended by `doubtless accept --undo`"
        _accept(job, audit, todo[start : start + CHUNK])
    synchronise(job)
    database.add_run(key, "audit", reason="some of what was accepted is checked")
    database.update_audit(audit.id, only_if=(ACCEPTING,), status=ACCEPTED)
    job.tell_piles()
    states = database.audit_states(audit.id)
    return (
        f"{states.get(ACCEPTED, 0)} labels accepted; {states.get(WATCHED, 0)} more are asked for, "
        "to see that it stays true"
    )


def undo(job: Job) -> str:
    """Delete the annotations that were made; those that people saved again since are theirs."""
    database = job.app.database
    audit = _audit(job)
    if audit.status not in STANDING:
        return f"nothing to take back: the audit is {audit.status}"
    database.update_audit(audit.id, status=UNDOING)
    # Accepting ends with what is being made at this moment, and that is to be taken back as well.
    job.wait_for_others("accept", "undo")
    earlier = database.audit_states(audit.id).get(UNDONE, 0)
    todo = [
        *database.audit_items(audit.id, state=ACCEPTED),
        *database.audit_items(audit.id, state=PENDING),  # of an acceptance that broke off
    ]
    kept = gone = 0
    for start in range(0, len(todo), UNDO_CHUNK):
        part = todo[start : start + UNDO_CHUNK]
        job.say(start / len(todo), f"taking back: {start} of {len(todo)}")
        job.wait_for_good_moment(CHUNK_S)
        ours = _take_back(job, part)
        database.drop_annotations(job.run.project, [i for made in ours.values() for i in made])
        kept += sum(i.annotation_id is not None and i.task_id not in ours for i in part)
        gone += sum(map(len, ours.values()))
        database.update_items(audit.id, [item.task_id for item in part], state=UNDONE)
    synchronise(job)
    database.update_audit(audit.id, status=UNDONE)
    review(database, job.project)  # what was to be checked no longer is
    changed = f"; {kept} that people changed or deleted since are left" if kept else ""
    before = f", after {earlier} of a run that broke off" if earlier else ""
    return f"{gone} accepted labels taken back{before}{changed}"


def _take_back(job: Job, items: Sequence[AuditItem]) -> dict[int, list[int]]:
    """Delete the annotations of some items that are still what was made; task -> their ids.

    In one request where nothing else of their author's is on the task, which that request would
    delete as well; whoever saves something in between has changed the task, and it is left to the
    requests for single annotations.
    """
    number = job.project.platform_id
    records = job.platform.tasks_of_many(number, [item.task_id for item in items])
    ours = _ours(items, records)
    by_author: dict[int, list[TaskRecord]] = {}
    for task, made in ours.items():
        record, author = records[task], made[0].completed_by
        alone = [a.completed_by for a in record.annotations].count(author) == 1
        if alone and author is not None and not record.has_draft:
            by_author.setdefault(author, []).append(record)
    for author, some in by_author.items():
        job.platform.delete_annotations_of(
            number,
            [record.id for record in some],
            author=author,
            unchanged_after=max(datetime.fromisoformat(record.updated_at) for record in some),
        )
    left = _ours(items, job.platform.tasks_of_many(number, list(ours)))
    for annotation in (a for made in left.values() for a in made):
        job.wait_for_good_moment(DELETE_S, patience_s=1.0)
        job.platform.delete_annotation(annotation.id)
    return {task: [a.id for a in made] for task, made in ours.items()}


def _ours(
    items: Sequence[AuditItem], records: Mapping[int, TaskRecord]
) -> dict[int, list[AnnotationRecord]]:
    """Task -> the annotations that were made for its item, where there are any."""
    found = {
        item.task_id: [a for a in records[item.task_id].annotations if _is_ours(item, a)]
        for item in items
        if item.task_id in records
    }
    return {task: made for task, made in found.items() if made}


def _is_ours(item: AuditItem, annotation: AnnotationRecord) -> bool:
    """Whether an annotation was made for an item and nobody has saved it again."""
    if item.annotation_id is None:
        return annotation.made_in_bulk
    return annotation.id == item.annotation_id and annotation.updated_at == item.made_at


def _audit(job: Job) -> Audit:
    number = int(job.run.payload["audit"])
    for audit in job.app.database.audits(job.run.project):
        if audit.id == number:
            return audit
    raise BackendError(f"there is no audit {number}")


def _choose(job: Job, audit: Audit) -> None:
    """Say which tasks are to be accepted, and keep some back to be checked; again after a crash."""
    database, key = job.app.database, job.run.project
    touched = database.touched_tasks(key)
    items = database.audit_items(audit.id, state="", ranks=proved(audit))
    free = [item for item in items if item.task_id not in touched]
    if not database.audit_states(audit.id).get(WATCHED):
        rng, regions = np.random.default_rng(audit.id), regions_of(audit)
        if regions is None:
            chosen = rng.permutation(len(free))[: _to_watch(len(free))].tolist()
            watched = {free[n].task_id for n in chosen}
        else:
            drawn = draw_regions(free, _to_watch, rng)
            images = {image for _, image, _ in drawn}
            watched = {item.task_id for item in free if item.rank in images}
            plan = {**audit.plan, REGIONS: {**regions, WATCHED: drawn}}
            database.update_audit(audit.id, plan=plan)
        database.update_items(audit.id, watched, state=WATCHED)
        free = [item for item in free if item.task_id not in watched]
    database.update_items(audit.id, [item.task_id for item in free], state=PENDING)


def _to_watch(count: int) -> int:
    return min(count // 2, max(FEWEST_WATCHED, math.ceil(WATCHED_SHARE * count)))


def _accept(job: Job, audit: Audit, items: Sequence[AuditItem]) -> None:
    """Make annotations of the predictions of tasks that nobody has answered meanwhile."""
    database, number = job.app.database, job.project.platform_id
    name = database.version(job.run.project, audit.version).name
    ids = [item.task_id for item in items]
    there = job.platform.tasks_of_many(number, ids)
    answered = [
        i for i in ids if i in there and any(not a.made_in_bulk for a in there[i].annotations)
    ]
    gone = [i for i in ids if i not in there]
    # Hidden for an audit before and not shown again yet: an annotation of it would be empty.
    said = database.scores(job.run.project, audit.version, ids)
    hidden = {i for i, row in said.items() if row.hidden}
    left = [i for i in ids if i in there and i not in answered and i not in hidden]
    database.update_items(audit.id, [*answered, *gone, *hidden], state="")
    job.platform.accept_predictions(number, name, left)
    records = job.platform.tasks_of_many(number, left)
    made = {
        task: (found.id, found.updated_at)
        for task, record in records.items()
        for found in record.annotations
        if found.made_in_bulk
    }
    database.mark_accepted(audit.id, made)
    # Known at once: right after so many, Label Studio's list of what changed was seen to lack some.
    annotations = [found for record in records.values() for found in record.annotations]
    rows = annotation_rows(job.require_spec(job.project), annotations)
    database.put_annotations(job.run.project, rows)
    # A prediction may be gone, with its version or by hand: such a task stays open.
    database.update_items(audit.id, [i for i in left if i not in made], state="")
