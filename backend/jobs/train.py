"""Train a version on the labels there are, judge it, and publish it if it is no worse."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace

import numpy as np

from backend.annotators import weigh_people, weights_of
from backend.drift import look
from backend.edges.labels.config import TaskSpec
from backend.errors import BackendError
from backend.forecast import pool_accuracy
from backend.jobs import features, views
from backend.jobs.base import Job
from backend.jobs.compare import compare_doubtful
from backend.jobs.publish import publish, score_pool
from backend.jobs.rounds import Pool, read_pool
from backend.jobs.sync import synchronise
from backend.kinds import Fitted, kind_of
from backend.records import Contradicted, Project, Version
from backend.retraining import Verdict, compare
from model.calibration.metrics import reliability


def run(job: Job) -> str:
    """Labels -> features -> head -> calibration -> evaluation -> version -> publication."""
    app, key = job.app, job.run.project
    database = app.database
    began = time.time()
    job.say(0.02, "reading labels")
    synchronise(job, only_if_missed=True)
    project = job.project
    job.lap("labels")
    spec = job.require_spec(project)
    changes = project.changes
    labels = app.labels(key, spec)
    waiting = {t.task_id for t in database.tasks(key, state="new")} & labels.keys()
    if waiting:
        features.compute(job, sorted(waiting))
        job.lap("features")
    pool = read_pool(job)
    job.lap("pool")
    index = pool.index
    usable = {i: c for i, c in labels.items() if i in index}
    if not usable:
        database.update_project(key, requested_at=None, request_reason=None)
        raise BackendError(
            f"none of the {len(labels)} labelled tasks has a readable image; "
            "see `doubtless status` for the reasons"
        )
    views.compute(job, {i: pool.keys[index[i]] for i in usable}, began=0.1, span=0.1)
    job.lap("views")
    job.say(0.2, f"training on {len(usable)} labels")
    fitted = _fit(job, pool, usable, spec)
    bundle = fitted.model
    right = _right_out_of_fold(fitted, usable)
    job.lap("fit")
    number, _ = database.take_numbers(key, versions=1)
    folder = f"v{number}"
    bundle.save(app.versions_folder(key) / folder)
    verdict = _judge(job, project, spec, usable, right)
    version = Version(
        project=key, number=number, name=f"v{number}", kind="trained",
        status="building" if verdict.promote else "kept", reason=verdict.reason,
        created_at=time.time(), published_at=None, changes=changes, labels=len(usable),
        config_hash=spec.config_hash, bundle=folder,
        metrics={
            **bundle.metrics, "backbone": kind_of(spec).backbone(app.settings),
            "estimator": kind_of(spec).estimator(app.settings),
            "reliability": _reliability(fitted),
        },
        on_platform=False,
    )  # fmt: skip
    job.confirm()
    database.add_version(version)
    database.put_judgements(key, number, right)
    contradicted = _contradicted(fitted, usable, spec)
    weighed = weigh_people(database, key, spec, bundle, usable, contradicted)
    contradicted = weighed.contradicted
    database.put_annotators(key, weighed.annotators)
    database.put_consensus(key, weighed.consensus)
    database.put_label_errors(key, number, contradicted)
    if not verdict.promote:
        _answer_request(job, began)
        compare_doubtful(job, pool, usable)
        return f"{version.name} was trained and kept back: {verdict.reason}"
    job.lap("judge")
    job.say(0.5, f"scoring {len(pool.task_ids)} tasks with {version.name}")
    of_labels = {row.task_id: row.p_right for row in contradicted}
    known = [] if project.live_version is None else database.scored_tasks(key, project.live_version)
    placed = score_pool(job, pool, bundle, spec, version, usable, of_labels=of_labels)
    metrics = {**version.metrics, "pool_accuracy": pool_accuracy(fitted, placed, usable)}
    version = replace(version, metrics=metrics)
    job.lap("score")
    publish(job, version, spec, placed)
    _answer_request(job, began)
    compare_doubtful(job, pool, usable)
    unlike = _unlike(job, pool, known)
    return f"{version.name} is live: {len(usable)} labels, {verdict.reason}{unlike}"


def _unlike(job: Job, pool: Pool, known: Collection[int]) -> str:
    """What is to be said of tasks that came since the version before, if they are unlike others."""
    said = look(job.app.database, job.project, pool.task_ids, pool.features, known=known)
    if said:
        job.app.database.add_run(job.run.project, "audit", reason="new tasks are unlike the others")
    return "".join(f"; {sentence}" for sentence in said)


def _answer_request(job: Job, began: float) -> None:
    """A "Start Training" from before this training is served; a later one is not."""
    if (job.project.requested_at or 0.0) <= began:
        job.app.database.update_project(job.run.project, requested_at=None, request_reason=None)


def _fit(job: Job, pool: Pool, labels: Mapping[int, str], spec: TaskSpec) -> Fitted:
    """Fit on the labelled rows, in ascending order of their tasks."""
    index = pool.index
    order = sorted(labels)
    draws = job.app.database.draws(job.run.project)
    began, span = 0.2, 0.3
    return kind_of(spec).fit(
        job.app,
        spec,
        keys=[pool.keys[index[i]] for i in order],
        texts=[labels[i] for i in order],
        random=np.array([i in draws for i in order], bool),
        pool=pool.features,
        weights=weights_of(job.app.database, job.run.project, labels),
        progress=lambda part, what: job.say(began + span * part, what),
    )


def _right_out_of_fold(fitted: Fitted, labels: Mapping[int, str]) -> dict[int, bool]:
    """Task -> whether it was predicted right out of fold, of the random-share labels."""
    right = fitted.model.out_of_fold_right
    return {
        task: bool(right[n])
        for n, task in enumerate(sorted(labels))
        if fitted.random[n] and right is not None
    }


def _contradicted(fitted: Fitted, labels: Mapping[int, str], spec: TaskSpec) -> list[Contradicted]:
    """What the version makes of each label, out of fold."""
    order = sorted(labels)
    texts = [labels[i] for i in order]
    found = kind_of(spec).contradictions(fitted.model, spec, texts)
    return [
        Contradicted(task_id=task, p_right=p_right, label=labels[task], why=why)
        for task, (p_right, why) in zip(order, found, strict=bool(found))
    ]


def _reliability(fitted: Fitted) -> list[dict[str, float]]:
    """The bins of the reliability diagram, as JSON: all labels, each predicted out of fold."""
    right, p_right = fitted.model.out_of_fold_right, fitted.model.out_of_fold_p_right
    if right is None or p_right is None:
        return []
    return [asdict(part) for part in reliability(p_right, right)]


def _judge(
    job: Job,
    project: Project,
    spec: TaskSpec,
    labels: Mapping[int, str],
    candidate: Mapping[int, bool],
) -> Verdict:
    """Compare with the live version on labels neither was fitted to."""
    database = job.app.database
    if project.live_version is None:
        return compare(candidate, None)
    live = database.version(project.key, project.live_version)
    if live.kind == "cold" or live.bundle is None:
        return compare(candidate, None)
    # Out of fold for labels the live version was trained on; what it published for newer ones.
    said = database.scores(project.key, live.number, list(candidate))
    kind = kind_of(spec)
    known = {
        i: kind.is_right(spec, s.label, labels[i]) for i, s in said.items() if s.label is not None
    }
    known |= database.judgements(project.key, live.number)
    is_current = live.is_of(spec.config_hash, kind.backbone(job.app.settings))
    return compare(candidate, known, outdated=not is_current)
