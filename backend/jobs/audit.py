"""Put what has to be checked in front of the queue, such as the labels of an audit."""

from __future__ import annotations

from typing import Any

from backend.audits import to_check
from backend.drift import DRIFT
from backend.jobs.base import Job
from backend.ordering import audit_score

LOOK_UP = 20


def run(job: Job) -> str:
    """Give each task that is not labelled yet the lowest score and a cluster of its own."""
    database, project = job.app.database, job.project
    if project.live_version is None:
        return "no version is live"
    version = database.version(project.key, project.live_version)
    waiting = checks(job)
    scores = database.scores(project.key, version.number, list(waiting))
    ids = [task for task in waiting if task in scores]
    _, cluster = database.take_numbers(project.key, clusters=len(ids))
    place = {task: (audit_score(n, len(ids)), cluster + n) for n, task in enumerate(ids)}
    for start in range(0, len(ids), LOOK_UP):
        part = ids[start : start + LOOK_UP]
        job.say(start / len(ids), f"asking for audit labels: {start} of {len(ids)}")
        job.wait_for_pause()
        found = job.platform.predictions_of_many(project.platform_id, part)
        for task in part:
            for item in found.get(task, ()):
                if item.get("model_version") == version.name:
                    score, number = place[task]
                    fields: dict[str, Any] = {"score": score, "cluster": number}
                    if waiting[task]:
                        fields["result"] = []
                    job.wait_for_pause()
                    job.platform.update_prediction(int(item["id"]), **fields)
        database.place_scores(project.key, version.number, {task: place[task] for task in part})
    job.tell_piles()  # an audit may have been given up
    return f"{len(ids)} tasks to check come first in the queue"


def checks(job: Job) -> dict[int, bool]:
    """Tasks to look at that nobody has labelled yet; whether without what is predicted.

    Those drawn for an audit, some of what was accepted, and some of new tasks that are unlike the
    others.
    """
    database, key = job.app.database, job.run.project
    touched = database.touched_tasks(key)
    unlike = {task: False for task in database.draws(key, kind=DRIFT) if task not in touched}
    found = to_check(database, job.project)
    return found | {task: blind for task, blind in unlike.items() if task not in found}
