"""Images to features, once for each image content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from backend.errors import MediaError
from backend.jobs.base import Job
from backend.kinds import kind_of


def run(job: Job) -> str:
    """Compute the features of the tasks in the run's payload."""
    ready, broken, later = compute(job, [int(i) for i in job.run.payload["task_ids"]])
    if not job.app.database.task_counts(job.run.project)["new"]:
        job.app.features.compact(kind_of(job.app.spec(job.project)).code(job.app))
    said = f"{ready} images read"
    if broken:
        said += f", {broken} unreadable"
    if later:
        said += f", {later} not reachable now"
    return said


def compute(job: Job, task_ids: Sequence[int]) -> tuple[int, int, int]:
    """Fetch, decode and embed the images of tasks, and record each outcome.

    Returns:
        How many are ready, unreadable, and to be tried again because their source did not answer.
    """
    app = job.app
    wanted = set(task_ids)
    todo = {
        t.task_id: t.reference
        for t in app.database.tasks(job.run.project, state="new")
        if t.task_id in wanted
    }
    owners: dict[str, list[int]] = {}
    spec = job.require_spec(job.project)
    kind = kind_of(spec)
    missing = f"the task has no image under '{spec.value_key}'; check the labeling config"
    broken: dict[int, str] = {i: missing for i, reference in todo.items() if not reference}
    todo = {i: reference for i, reference in todo.items() if reference}
    later: dict[int, str] = {}
    arrived = 0

    def unseen() -> Iterator[tuple[str, bytes]]:
        nonlocal arrived
        for task_id, got in job.media.fetch_many(todo.items()):
            arrived += 1
            job.say(arrived / len(todo), f"reading images: {arrived} of {len(todo)}")
            if isinstance(got, MediaError):
                (later if got.transient else broken)[task_id] = str(got)
                continue
            key = hashlib.sha256(got).hexdigest()
            owners.setdefault(key, []).append(task_id)
            if len(owners[key]) == 1 and kind.missing(app, [key]):
                yield key, got

    bad: dict[str, str] = {}
    for _, errors in kind.read(app, unseen()):
        bad |= errors
    ready = {i: key for key, ids in owners.items() if key not in bad for i in ids}
    broken |= {i: bad[key] for key, ids in owners.items() if key in bad for i in ids}
    app.database.mark_images(job.run.project, ready, broken)
    if later and not ready and not broken:
        raise MediaError(f"no image could be fetched; the first: {next(iter(later.values()))}")
    return len(ready), len(broken), len(later)
