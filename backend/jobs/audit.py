"""Put what has to be checked in front of the queue, such as the labels of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.audits import released
from backend.jobs.base import Job
from backend.jobs.publish import prediction
from backend.jobs.rounds import checks
from backend.ordering import audit_score, published_score
from backend.records import Version

LOOK_UP = 20


def run(job: Job) -> str:
    """Give each task that is not labelled yet the lowest score and a cluster of its own.

    Those that an audit asked for which has ended are put back where the version has them.
    """
    database, project = job.app.database, job.project
    if project.live_version is None:
        return "no version is live"
    version = database.version(project.key, project.live_version)
    waiting = checks(job, version.number)
    scores = database.scores(project.key, version.number, list(waiting))
    ids = [task for task in waiting if task in scores]
    back = _places_before(job, version)
    _, cluster = database.take_numbers(project.key, clusters=len(ids))
    changes: dict[int, dict[str, Any]] = {
        task: {
            "score": audit_score(n, len(ids)),
            "cluster": cluster + n,
            **({"result": []} if waiting[task] else {}),
        }
        for n, task in enumerate(ids)
    }
    _change(job, version, changes | back)
    job.tell_piles()  # an audit may have been given up
    said = f"{len(ids)} tasks to check come first in the queue"
    return f"{said}; {len(back)} are back in their places" if back else said


def _places_before(job: Job, version: Version) -> dict[int, dict[str, Any]]:
    """What predictions are put in front for nothing, as the version has them: task -> fields.

    What was chosen to be labelled next gets a new cluster, as its own may have been used since.
    """
    database, key = job.app.database, job.run.project
    rows = database.scores(key, version.number, released(database, job.project, version.number))
    chosen = {task for task, *_ in database.acquired(key, version.number)} & rows.keys()
    _, first = database.take_numbers(key, clusters=len(chosen))
    cluster = {task: first + n for n, task in enumerate(sorted(chosen))}
    fields: dict[int, dict[str, Any]] = {
        task: {"score": published_score(float(row.p_right or 0.0)), "cluster": cluster.get(task)}
        for task, row in rows.items()
    }
    spec = job.app.spec(job.project)
    # Another config may not know what the version says.
    if spec is not None and version.config_hash == job.project.config_hash:
        for task, row in rows.items():
            fields[task]["result"] = prediction(spec, version.name, row)["result"]
    return fields


def _change(job: Job, version: Version, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """Change fields of a version's predictions, in Label Studio and as it is known here."""
    ids = list(changes)
    for start in range(0, len(ids), LOOK_UP):
        part = ids[start : start + LOOK_UP]
        job.say(start / len(ids), f"putting the queue in order: {start} of {len(ids)}")
        job.wait_for_pause()
        found = job.platform.predictions_of_many(job.project.platform_id, part)
        for task in part:
            for item in found.get(task, ()):
                if item.get("model_version") == version.name:
                    job.wait_for_pause()
                    job.platform.update_prediction(int(item["id"]), **changes[task])
        places = {task: (changes[task]["score"], changes[task]["cluster"]) for task in part}
        job.app.database.place_scores(version.project, version.number, places)
