"""Before the first label: typical and diverse images first, and a fifth of them by chance."""

from __future__ import annotations

import time

import numpy as np

from backend.edges.labels import answers
from backend.jobs.base import Job
from backend.jobs.publish import placed_scores, publish, store
from backend.jobs.rounds import front_size, next_round, read_pool
from backend.ordering import cold_order, interleave
from backend.records import Version


def run(job: Job) -> str:
    """Publish an order without predictions: score = rank, lowest first."""
    app, key = job.app, job.run.project
    project = job.project
    spec = job.require_spec(project)
    pool = read_pool(job)
    number, _ = app.database.take_numbers(key, versions=1)
    version = Version(
        project=key, number=number, name=f"cold-{number}", kind="cold", status="building",
        reason="nothing is labelled yet: typical and diverse images first",
        created_at=time.time(), published_at=None, changes=0, labels=0,
        config_hash=spec.config_hash, bundle=None, metrics={}, on_platform=False,
    )  # fmt: skip
    job.confirm()
    app.database.add_version(version)
    job.say(0.1, f"looking for typical images among {len(pool.task_ids)}")
    labels = app.labels(key, spec)
    chosen = next_round(
        job,
        pool,
        version=number,
        labels=labels,
        counts=answers.counts(spec, labels.values(), spec.classes),
        said=None,
        front=max(front_size(job, len(labels)), 3 * app.settings.retrain_after),
        acquisition="auto",
    )
    order = interleave(chosen.chosen, chosen.draws, app.settings.random_share)
    rest = np.setdiff1d(pool.task_ids, order)
    shuffled = np.random.default_rng(number).permutation(rest)
    rows = store(job, version, placed_scores(cold_order(order, shuffled.tolist())))
    publish(job, version, spec, rows)
    return f"{version.name} is live: {len(order)} typical images lead a queue of {len(rows)}"
