"""Put a version's predictions into Label Studio so that nobody ever sees half of it.

Order: import everything under the new name, tag the front of the queue with clusters, then one
PATCH that makes the version live. A crash before the PATCH leaves the old version in force; the
half-imported one is abandoned, never continued, and deleted later: a name is used once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.acceptance import review
from backend.audits import to_check
from backend.edges.labels import answers
from backend.edges.labels.config import TaskSpec
from backend.edges.labels.results import check_prediction, to_result
from backend.edges.labelstudio_records import TasksGoneError
from backend.errors import PlatformError
from backend.jobs.base import Job
from backend.jobs.rounds import Pool, front_size, next_round
from backend.kinds import kind_of
from backend.kinds.base import Model
from backend.ordering import MOST_TAGGED, UNREADABLE, Placed, place, published_score
from backend.records import Score, Version

log = logging.getLogger(__name__)

SAMPLING = "Uncertainty sampling"
# Any import makes Label Studio recount the whole project, so requests are large.
IMPORT_CHUNK = 20_000
# Tasks that have their cluster when the version goes live: they are there before anybody has
# labelled the first of them. The rest of the front follows within seconds (25 ms a task).
TAGGED_BEFORE = 5
LOOK_UP = 20
# Seconds an import takes, before one was measured: a fixed part and one for each task.
IMPORT_S = (0.3, 0.9e-3)


def score_pool(
    job: Job,
    pool: Pool,
    model: Model,
    spec: TaskSpec,
    version: Version,
    labels: Mapping[int, str],
    *,
    of_labels: Mapping[int, float] | None = None,
) -> list[Score]:
    """Score every task with a trained version, choose the next round, and store both.

    A labelled task is served to nobody, and what a version says of what it was fitted on is worth
    little: its score in Label Studio is that of the label, where `of_labels` has it.
    """
    app = job.app
    said = kind_of(spec).say(
        app,
        model,
        spec,
        keys=pool.keys,
        features=pool.features,
        progress=lambda share, what: job.say(0.5 + 0.1 * share, f"scoring: {what}"),
    )
    job.confirm(progress=0.6, stage="choosing what to label next")
    chosen = next_round(
        job,
        pool,
        version=version.number,
        labels=labels,
        counts=answers.counts(spec, labels.values(), model.classes),
        said=said,
        front=front_size(job, len(labels)),
        acquisition=said.rule,
    )
    _, cluster = app.database.take_numbers(version.project, clusters=MOST_TAGGED)
    p_right = dict(zip(pool.task_ids.tolist(), said.p_right.tolist(), strict=True))
    placed = place(p_right, chosen.chosen, chosen.draws, cluster, share=app.settings.random_share)
    index, of_label = pool.index, of_labels or {}
    rows = [
        Score(
            task_id=item.task_id,
            label=said.label[row],
            score=published_score(of_label[item.task_id])
            if item.task_id in of_label
            else item.score,
            p_right=float(said.p_right[row]),
            total=float(said.total[row]),
            aleatoric=float(said.aleatoric[row]),
            epistemic=float(said.epistemic[row]),
            cluster=item.cluster,
            probs=said.probs[row],
        )
        for item in placed
        for row in [index[item.task_id]]
    ]
    return store(job, version, rows)


def store(job: Job, version: Version, rows: Sequence[Score]) -> list[Score]:
    """Store a version's scores, unreadable tasks included (last in the queue, never accepted)."""
    database = job.app.database
    known = {row.task_id for row in rows}
    broken = [
        Score(task_id=t.task_id, label=None, score=UNREADABLE, p_right=None)
        for t in database.tasks(version.project, state="broken")
        if t.task_id not in known
    ]
    everything = [*rows, *broken]
    database.put_scores(version.project, version.number, everything)
    return everything


def placed_scores(placed: Sequence[Placed]) -> list[Score]:
    """Cold-start places as scores: there is no label and no P(right) yet."""
    return [
        Score(task_id=p.task_id, label=None, score=p.score, p_right=None, cluster=p.cluster)
        for p in placed
    ]


def prediction(spec: TaskSpec, version: str, row: Score) -> dict[str, Any]:
    """One prediction as Label Studio takes it."""
    item: dict[str, Any] = {
        "task": row.task_id,
        "score": row.score,
        "model_version": version,
        "result": [] if row.label is None else to_result(spec, row.label, row.p_right, row.probs),
    }
    if row.cluster is not None:
        item["cluster"] = row.cluster
    return item


def publish(job: Job, version: Version, spec: TaskSpec, rows: Sequence[Score]) -> None:
    """Import, tag, flip. See the module's first lines.

    Raises:
        PlatformError: Label Studio refused something; the version before stays in force.
        TakenAwayError: another worker has this run now.
    """
    database, project = job.app.database, job.project
    job.confirm()
    database.update_version(project.key, version.number, status="publishing", on_platform=True)
    unseen = {task for task, blind in to_check(database, project, version.number).items() if blind}
    places = {row.task_id: (row.score, row.cluster, True) for row in rows if row.task_id in unseen}
    database.place_scores(project.key, version.number, places)
    rows = [replace(row, label=None) if row.task_id in unseen else row for row in rows]
    tagged = [row for row in rows if row.cluster is not None]
    first = sorted(tagged, key=lambda row: row.score)[:TAGGED_BEFORE]
    early = {row.task_id for row in first}
    bulk = [row for row in rows if row.task_id not in early]
    import_bulk(job, version.name, spec, bulk, label=f"publishing {version.name}")
    for n, row in enumerate(first):
        job.say(0.85 + 0.1 * n / len(first), f"tagging the front: {n} of {len(first)}")
        _create(job, spec, version.name, row)
    job.lap("front")
    job.wait_for_pause()
    job.confirm(stage=f"switching to {version.name}", progress=0.96)
    job.platform.update_project(
        project.platform_id,
        model_version=version.name,
        sampling=SAMPLING,
        show_collab_predictions=True,
    )
    if not database.go_live(project.key, version.number, expected=project.live_version):
        raise PlatformError(
            f"another version went live while {version.name} was published; it will be repeated"
        )
    job.lap("switch")
    metrics = {**version.metrics, "stage_seconds": dict(job.laps), "published": len(rows)}
    database.update_version(project.key, version.number, metrics=metrics)
    try:
        if project.live_version is None:
            job.app.first_published(project)
        elif version.kind != "cold":
            job.tell_piles()
        _tag(job, version, [row for row in tagged if row.task_id not in early])
    except PlatformError as exc:
        # The version is live and complete; only the tab or some clusters are missing.
        log.warning("%s is live, but not everything around it: %s", version.name, exc)
    review(database, job.project)  # it ends audits of the version before


def import_bulk(
    job: Job, version: str, spec: TaskSpec, rows: Sequence[Score], *, label: str
) -> None:
    """Import predictions in as few requests as possible, each at a good moment."""
    sent = 0
    for start in range(0, len(rows), IMPORT_CHUNK):
        items = [prediction(spec, version, row) for row in rows[start : start + IMPORT_CHUNK]]
        for item in items:
            problems = check_prediction(spec, item)
            if problems:
                raise PlatformError(
                    f"prediction of task {item['task']} would be refused: {'; '.join(problems)}"
                )
        job.say(0.6 + 0.25 * sent / len(rows), f"{label}: {sent} of {len(rows)}")
        job.lap("prepare")
        job.wait_for_good_moment(_expected_s(job, len(items)))
        job.lap("wait")
        job.confirm(stage=f"{label}: {sent} of {len(rows)}")
        try:
            created = job.platform.import_predictions(job.project.platform_id, items)
        except TasksGoneError as exc:
            job.app.database.drop_tasks(job.run.project, exc.task_ids)
            raise
        job.lap("import")
        sent += len(items)
        if created != len(items):
            # Label Studio drops what it finds invalid and still answers 201.
            raise PlatformError(
                f"Label Studio took {created} of {len(items)} predictions of {version}; run "
                "`doubtless doctor`: its labeling config may have changed in between"
            )


def _create(job: Job, spec: TaskSpec, version: str, row: Score) -> None:
    job.wait_for_pause()
    try:
        job.platform.create_prediction(prediction(spec, version, row))
    except PlatformError as exc:
        if exc.code not in (400, 404):
            raise
        log.warning("task %s is gone: %s", row.task_id, exc)


def _tag(job: Job, version: Version, rows: Sequence[Score]) -> None:
    """Give tasks that were imported in bulk their clusters, in the order they will be served.

    Not those that another worker has put in front for an audit meanwhile.
    """
    number = job.project.platform_id
    for start in range(0, len(rows), LOOK_UP):
        part = sorted(rows, key=lambda row: row.score)[start : start + LOOK_UP]
        job.say(0.97, f"tagging more of the queue: {start} of {len(rows)}")
        job.wait_for_pause()
        ids = [row.task_id for row in part]
        found = job.platform.predictions_of_many(number, ids)
        known = job.app.database.scores(version.project, version.number, ids)
        for row in part:
            if row.task_id not in known or known[row.task_id].cluster != row.cluster:
                continue
            for item in found.get(row.task_id, ()):
                if item.get("model_version") == version.name:
                    job.wait_for_pause()
                    job.platform.update_prediction(int(item["id"]), cluster=row.cluster)


def _expected_s(job: Job, n: int) -> float:
    """How long an import of `n` will take: as the last one did, per prediction."""
    for version in reversed(job.app.database.versions(job.run.project)):
        seconds = version.metrics.get("stage_seconds", {}).get("import")
        count = version.metrics.get("published")
        if seconds and count:
            return float(seconds * max(0.5, n / count))
    return IMPORT_S[0] + IMPORT_S[1] * n
