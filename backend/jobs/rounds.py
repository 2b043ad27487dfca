"""What one round asks for: random draws first, then what acquisition chooses from the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.checks import checks
from backend.errors import BackendError
from backend.jobs.base import Job
from backend.kinds import Said, kind_of
from backend.ordering import MOST_TAGGED, draws_wanted, random_draws
from backend.records import Draw, PoolTask
from backend.retraining import round_size
from model.acquisition import select


@dataclass(frozen=True)
class Pool:
    """Readable tasks of a project with their features, and who is labelled.

    Attributes:
        task_ids: ``(N,)`` of every readable task, ascending.
        keys: SHA-256 of each image.
        features: ``(N, D)`` float32, in the order of `task_ids`.
        open: ``(N,)`` whether nobody has submitted or skipped the task yet.
    """

    task_ids: NDArray[np.int64]
    keys: list[str]
    features: NDArray[np.float32]
    open: NDArray[np.bool_]

    @property
    def index(self) -> dict[int, int]:
        """Task id -> row."""
        return {int(task): row for row, task in enumerate(self.task_ids)}


@dataclass(frozen=True)
class Round:
    """The front of the queue: what is to be checked, draws as they were made, the chosen tasks."""

    draws: list[int]
    chosen: list[int]


def read_pool(job: Job) -> Pool:
    """Features of every readable task, from the cache.

    Raises:
        BackendError: some are not there, because the backbone is another one now or the cache was
            deleted. Those images are read again; the job is repeated when they are.
    """
    app = job.app
    ready: list[PoolTask] = app.database.tasks(job.run.project, state="ready")
    kind = kind_of(app.spec(job.project))
    keys = [t.image_hash or "" for t in ready]
    lost = set(kind.missing(app, keys))
    if lost:
        gone = [t.task_id for t in ready if t.image_hash in lost]
        app.database.read_images_again(job.run.project, gone)
        raise BackendError(
            f"{len(gone)} images have no features of {kind.backbone(app.settings)} (the backbone "
            "was changed, or its features deleted); they are read again, then it goes on by itself"
        )
    touched = app.database.touched_tasks(job.run.project)
    return Pool(
        task_ids=np.array([t.task_id for t in ready], np.int64),
        keys=keys,
        features=app.features.load(kind.code(app), keys),
        open=np.array([t.task_id not in touched for t in ready], bool),
    )


def next_round(
    job: Job,
    pool: Pool,
    *,
    version: int,
    labels: Mapping[int, str],
    counts: NDArray[np.int64],
    said: Said | None,
    front: int,
    acquisition: str,
) -> Round:
    """Choose the front of the queue and record the new draws.

    Args:
        job: the job that asks.
        pool: all readable tasks.
        version: number of the version this is for.
        labels: task -> label, of the labelled tasks.
        counts: ``(C,)`` labels of each class.
        said: by the version of every row of `pool`, or ``None`` when nothing is trained.
        front: tasks to choose besides the draws.
        acquisition: name of the rule.
    """
    app, settings = job.app, job.app.settings
    size = round_size(
        len(labels), retrain_after=settings.retrain_after, retrain_growth=settings.retrain_growth
    )
    index = pool.index
    asked = [i for i in checks(app.database, job.project, version) if i in index]
    earlier = app.database.draws(job.run.project)
    waiting = [i for i in earlier if i in index and pool.open[index[i]]]
    wanted = draws_wanted(
        share=settings.random_share,
        labels=len(labels),
        drawn_labels=sum(i in labels for i in earlier),
        waiting=len(waiting),
        size=size,
    )
    candidates = pool.task_ids[pool.open & ~np.isin(pool.task_ids, waiting + asked)]
    drawn, probability = random_draws(candidates, wanted, seed=version)
    app.database.add_draws(
        job.run.project,
        [
            Draw(task_id=int(i), kind="random", version=version, probability=probability)
            for i in drawn
        ],
    )
    draws = asked + waiting + [int(i) for i in drawn]

    rows = np.flatnonzero(pool.open & ~np.isin(pool.task_ids, draws))
    known = [index[i] for i in labels if i in index]
    n = min(front, len(rows))
    if said is None:
        picked = select(
            acquisition,
            pool=pool.features[rows],
            n=n,
            labelled=pool.features[known] if known else None,
            label_counts=counts,
            seed=version,
        )
    else:
        picked = said.choose(rows, n, np.array(known, np.int64), counts, version)
    chosen = [int(i) for i in pool.task_ids[rows[picked.rows]]]
    chances = None if picked.probability is None else picked.probability.tolist()
    app.database.put_acquired(job.run.project, version, acquisition, chosen, chances)
    return Round(draws=draws, chosen=chosen)


def front_size(job: Job, labels: int) -> int:
    """Tasks to choose: a round with something to spare, within what can be tagged."""
    settings = job.app.settings
    size = round_size(
        labels, retrain_after=settings.retrain_after, retrain_growth=settings.retrain_growth
    )
    return max(settings.front, min(math.ceil(1.2 * size), MOST_TAGGED))
