"""Put what has to be checked in front of the queue: audit labels, and some of what was accepted."""

from __future__ import annotations

from backend.acceptance import DRAWN, HOLDING, WATCHED
from backend.jobs.base import Job
from backend.ordering import audit_score
from backend.records import AuditItem

LOOK_UP = 20


def run(job: Job) -> str:
    """Give each task that is not labelled yet the lowest score and a cluster of its own."""
    database, project = job.app.database, job.project
    if project.live_version is None:
        return "no version is live"
    version = database.version(project.key, project.live_version)
    waiting = to_check(job)
    scores = database.scores(project.key, version.number, [item.task_id for item in waiting])
    waiting = [item for item in waiting if item.task_id in scores]
    _, cluster = database.take_numbers(project.key, clusters=len(waiting))
    place = {
        item.task_id: (audit_score(n, len(waiting)), cluster + n) for n, item in enumerate(waiting)
    }
    ids = list(place)
    for start in range(0, len(ids), LOOK_UP):
        part = ids[start : start + LOOK_UP]
        job.say(start / len(ids), f"asking for audit labels: {start} of {len(ids)}")
        job.wait_for_pause()
        found = job.platform.predictions_of_many(project.platform_id, part)
        for task in part:
            for item in found.get(task, ()):
                if item.get("model_version") == version.name:
                    score, number = place[task]
                    job.wait_for_pause()
                    job.platform.update_prediction(int(item["id"]), score=score, cluster=number)
        database.place_scores(project.key, version.number, {task: place[task] for task in part})
    return f"{len(ids)} tasks to check come first in the queue"


def to_check(job: Job) -> list[AuditItem]:
    """Tasks drawn for an audit, and accepted ones to look at, that nobody has labelled yet."""
    database, key = job.app.database, job.run.project
    touched = database.touched_tasks(key)
    found = []
    for audit in database.audits(key, status=(*HOLDING, "accepted")):
        state = DRAWN if audit.status in HOLDING else WATCHED
        # By chance, not by rank: an audit that is given up half-way has seen no sure ones first.
        items = database.audit_items(audit.id, state=state)
        found += [item for item in items if item.task_id not in touched]
    return found
