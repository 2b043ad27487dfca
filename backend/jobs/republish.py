"""Publish an earlier bundle again: a rollback, or fresh scores from the live version."""

from __future__ import annotations

import time

from backend.jobs.base import Job
from backend.jobs.compare import compare_doubtful
from backend.jobs.publish import publish, score_pool
from backend.jobs.rounds import read_pool
from backend.records import Version


def run(job: Job) -> str:
    """Score the pool with the bundle named in the payload, under a new version number."""
    app, key = job.app, job.run.project
    source = app.database.version(key, int(job.run.payload["version"]))
    bundle = job.load_bundle(source)
    project = job.project
    spec = job.require_spec(project)
    number, _ = app.database.take_numbers(key, versions=1)
    version = Version(
        project=key, number=number, name=f"v{number}", kind="rollback", status="building",
        reason=job.run.reason or f"{source.name} published again", created_at=time.time(),
        published_at=None, changes=source.changes, labels=source.labels,
        config_hash=source.config_hash, bundle=source.bundle, metrics=source.metrics,
        on_platform=False,
    )  # fmt: skip
    job.confirm()
    app.database.add_version(version)
    app.database.put_judgements(key, number, app.database.judgements(key, source.number))
    pool = read_pool(job)
    labels = app.labels(key, spec)
    job.say(0.3, f"scoring {len(pool.task_ids)} tasks with {source.name}")
    rows = score_pool(job, pool, bundle, spec, version, labels)
    publish(job, version, spec, rows)
    compare_doubtful(job, pool, labels)
    return f"{version.name} is live with the model of {source.name}"
