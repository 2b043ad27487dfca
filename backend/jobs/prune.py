"""Delete what superseded versions left in Label Studio, a little at a time.

Deleting a version in one request kept Label Studio's SQLite busy for 45-60 s at 5,000
predictions; one by one they cost 0.05 s each and nobody notices.
"""

from __future__ import annotations

import itertools
import shutil
import time

from backend import pacing
from backend.audits import needed_versions
from backend.jobs.base import Job

# A slice of work, after which more urgent jobs get their turn.
SLICE_S = 8.0
# Tasks whose predictions are looked up in one request, and what the requests cost.
LOOK_UP = 20
LOOK_UP_S = 0.25
DELETE_S = 0.15
DOOMED = ("superseded", "abandoned", "kept")


def run(job: Job) -> str:
    """Delete predictions of superseded versions for some seconds; the scheduler comes again."""
    app, key = job.app, job.run.project
    project = job.project
    versions = app.database.versions(key)
    needed = needed_versions(app.database, project)
    doomed = [
        v for v in versions if v.status in DOOMED and v.on_platform and v.number not in needed
    ]
    names = {v.name for v in doomed}
    if not doomed:
        return tidy(job)
    tasks = [t.task_id for t in app.database.tasks(key)]
    begin = int(job.run.payload.get("from_task", 0))
    todo = [i for i in tasks if i >= begin]
    deadline = time.monotonic() + SLICE_S
    deleted = 0
    for start in range(0, len(todo), LOOK_UP):
        part = todo[start : start + LOOK_UP]
        job.say((len(tasks) - len(todo) + start) / len(tasks), f"{deleted} deleted")
        job.wait_for_good_moment(LOOK_UP_S, patience_s=1.0)
        found = job.platform.predictions_of_many(project.platform_id, part)
        old = [
            int(item["id"])
            for item in itertools.chain.from_iterable(found.values())
            if item.get("model_version") in names
        ]
        for number in old:
            if deleted and time.monotonic() > deadline:
                # More urgent work gets its turn; these tasks are looked up again.
                payload = {"from_task": part[0], "versions": sorted(names)}
                app.database.add_run(key, "prune", reason="more to delete", payload=payload)
                return f"{deleted} old predictions deleted, more to do"
            _delete(job, number, project.host)
            deleted += 1
    # Versions that were superseded meanwhile were not looked for at the first tasks.
    swept = set(job.run.payload.get("versions", names))
    for version in doomed:
        if version.name in swept:
            app.database.update_version(key, version.number, on_platform=False)
            if version.status != "kept":
                app.database.drop_scores(key, version.number)
    return f"{deleted} old predictions deleted; {', '.join(sorted(swept))} are gone"


def _delete(job: Job, prediction_id: int, host: str) -> None:
    """Delete one prediction in a pause between submits, then let Label Studio rest."""
    job.wait_for_good_moment(DELETE_S, patience_s=1.0)
    start = time.perf_counter()
    job.platform.delete_prediction(prediction_id)
    took = time.perf_counter() - start
    job.sleep(pacing.rest_after(took, job.app.database.submit_times(host), time.time()))


def tidy(job: Job) -> str:
    """Remove bundles nobody can roll back to any more."""
    app, key = job.app, job.run.project
    versions = app.database.versions(key)
    used = {v.bundle for v in versions if v.status in ("live", "building", "publishing")}
    old = [v for v in versions if v.bundle and v.bundle not in used]
    folders = list(dict.fromkeys(v.bundle for v in reversed(old)))[app.settings.keep_versions :]
    for folder in folders:
        assert folder is not None
        shutil.rmtree(app.versions_folder(key) / folder, ignore_errors=True)
        for version in old:
            if version.bundle == folder:
                app.database.update_version(key, version.number, bundle=None)
    return f"{len(folders)} old bundles removed"
