"""Put what has to be checked in front of the queue, such as the labels of an audit.

That a task is in front, or hidden, is noted before Label Studio has it so; that it no longer is,
afterwards. So whatever breaks off, here is known what may have to be put right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.checks import Misplaced, checks, misplaced
from backend.edges.labels.answers import is_prediction
from backend.jobs.base import Job
from backend.jobs.publish import prediction
from backend.ordering import audit_score, published_score
from backend.records import Score, Version

LOOK_UP = 20
AGAIN = "meanwhile something else is asked for"


@dataclass(frozen=True)
class Change:
    """What becomes of one prediction.

    Attributes:
        before: what is known of it.
        score: its place from now on.
        cluster: the same.
        result: what people see of it from now on; None leaves that as it is.
        blind: whether that is nothing because they are to check it blind; a prediction may say
            that there is nothing, too.
    """

    before: Score
    score: float
    cluster: int | None
    result: list[Any] | None
    blind: bool = False

    @property
    def hidden(self) -> bool:
        """Whether people do not see what is predicted, once the change is made."""
        return self.blind or (self.result is None and bool(self.before.hidden))


def run(job: Job) -> str:
    """Give each task that is not labelled yet the lowest score and a cluster of its own.

    Those that an audit asked for which has ended are put back where the version has them.
    """
    database, key = job.app.database, job.run.project
    # Two at a time could undo each other's changes.
    if job.running_before("audit"):
        return "another run puts the queue in order, and looks again at its end"
    project = job.project
    if project.live_version is None:
        return "no version is live"
    version = database.version(key, project.live_version)
    waiting = checks(database, project, version.number)
    rows = database.scores(key, version.number, list(waiting))
    ids = [task for task in waiting if task in rows]
    _, cluster = database.take_numbers(key, clusters=len(ids))
    changes = {
        task: Change(
            rows[task],
            audit_score(n, len(ids)),
            cluster + n,
            [] if waiting[task] else _shown(job, version, rows[task]),
            blind=waiting[task],
        )
        for n, task in enumerate(ids)
    }
    back = _places_before(job, version, misplaced(database, project, version.number))
    _change(job, version, changes | back)
    job.tell_piles()  # an audit may have been given up
    # Somebody may have given up an audit while this was under way.
    project = job.project
    live = project.live_version
    if live is not None and job.run.reason != AGAIN and misplaced(database, project, live):
        database.add_run(key, "audit", reason=AGAIN)
    said = f"{len(ids)} tasks to check come first in the queue"
    return f"{said}; {len(back)} are back in their places" if back else said


def _shown(job: Job, version: Version, row: Score) -> list[Any] | None:
    """What people see of a prediction; None if it says what they cannot answer any more."""
    spec = job.app.spec(job.project)
    if spec is None or version.config_hash != job.project.config_hash:
        return None
    if not is_prediction(spec, row.label):
        return None
    result: list[Any] = prediction(spec, version.name, row)["result"]
    return result


def _places_before(job: Job, version: Version, wrong: Misplaced) -> dict[int, Change]:
    """What is in front or hidden for nothing, as the version has it.

    What was chosen to be labelled next gets a new cluster, as its own may have been used since.
    """
    database, key = job.app.database, job.run.project
    rows = database.scores(key, version.number, [*wrong.released, *wrong.shown])
    chosen = {task for task, *_ in database.acquired(key, version.number)} & set(wrong.released)
    _, first = database.take_numbers(key, clusters=len(chosen))
    cluster = {task: first + n for n, task in enumerate(sorted(chosen))}
    back = {
        task: Change(
            rows[task],
            published_score(float(rows[task].p_right or 0.0)),
            cluster.get(task),
            _shown(job, version, rows[task]),
        )
        for task in wrong.released
    }
    # Drawn by chance: they keep their places.
    return back | {
        task: Change(
            rows[task], rows[task].score, rows[task].cluster, _shown(job, version, rows[task])
        )
        for task in wrong.shown
    }


def _change(job: Job, version: Version, changes: Mapping[int, Change]) -> None:
    """Change predictions of a version, in Label Studio and as it is known here."""
    ids = list(changes)
    for start in range(0, len(ids), LOOK_UP):
        part = {task: changes[task] for task in ids[start : start + LOOK_UP]}
        job.wait_for_pause()
        job.confirm(
            progress=start / len(ids), stage=f"putting the queue in order: {start} of {len(ids)}"
        )
        _note(
            job,
            version,
            {
                task: (
                    min(one.score, one.before.score),
                    one.cluster,
                    one.hidden or bool(one.before.hidden),
                )
                for task, one in part.items()
            },
        )
        found = job.platform.predictions_of_many(job.project.platform_id, list(part))
        for task, one in part.items():
            fields: dict[str, Any] = {"score": one.score, "cluster": one.cluster}
            if one.result is not None:
                fields["result"] = one.result
            for item in found.get(task, ()):
                if item.get("model_version") == version.name:
                    job.wait_for_pause()
                    job.platform.update_prediction(int(item["id"]), **fields)
        _note(job, version, {t: (one.score, one.cluster, one.hidden) for t, one in part.items()})


def _note(job: Job, version: Version, places: Mapping[int, tuple[float, int | None, bool]]) -> None:
    job.app.database.place_scores(version.project, version.number, places)
