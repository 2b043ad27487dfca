"""Labelled images looked at once more, where training can learn from other views of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping

from backend.errors import MediaError
from backend.jobs.base import Job
from backend.kinds import kind_of

log = logging.getLogger(__name__)


def compute(job: Job, keys: Mapping[int, str], *, began: float, span: float) -> None:
    """Fetch the labelled images that have no views yet, and keep what the network sees of them.

    An image that cannot be fetched now, or is another one by now, is trained on as it is.

    Args:
        job: the training.
        keys: task -> SHA-256 of its image, of all labelled tasks.
        began: share of the job that is done.
        span: share that this is.
    """
    app = job.app
    kind = kind_of(job.require_spec(job.project))
    wanted = set(kind.missing_views(app, [keys[i] for i in sorted(keys)]))
    if not wanted:
        return
    todo = {
        t.image_hash: (t.task_id, t.reference)
        for t in app.database.tasks(job.run.project, state="ready")
        if t.task_id in keys and t.image_hash in wanted
    }

    def fetched() -> Iterator[tuple[str, bytes]]:
        for task_id, got in job.media.fetch_many(todo.values()):
            if isinstance(got, MediaError):
                log.info("task %s is trained on without other views: %s", task_id, got)
            elif hashlib.sha256(got).hexdigest() == keys[task_id]:
                yield keys[task_id], got

    for done, _ in enumerate(kind.read_views(app, fetched()), 1):
        stage = f"other views of labelled images: {done} of {len(todo)}"
        job.say(began + span * done / len(todo), stage)
