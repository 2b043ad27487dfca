"""Compares the most doubtful open images with the labelled ones, for the page that shows both.

In a job, because only there features are in memory; with 20,000 labels it takes two seconds. The
rows are read back by task, so that no page waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backend.jobs.base import Job
from backend.jobs.rounds import Pool
from backend.records import Compared
from model.novelty import novelty_of

# The page names at most a hundred; as people label these, others take their place.
MOST_COMPARED = 300


def compare_doubtful(
    job: Job, pool: Pool, labels: Mapping[int, str], *, only_if_new: bool = False
) -> None:
    """Record novelty and nearest labelled images of the live version's most doubtful open tasks.

    Args:
        job: the job that has the features.
        pool: all readable tasks.
        labels: task -> label.
        only_if_new: leave it at what is known, unless a task that the page may name is missing.
    """
    database, project = job.app.database, job.project
    labelled = np.flatnonzero(np.isin(pool.task_ids, list(labels)))
    if project.live_version is None or not len(labelled):
        return
    doubtful = database.most_doubtful(project.key, project.live_version, MOST_COMPARED)
    wanted = [row.task_id for row in doubtful]
    if only_if_new and database.compared(project.key, wanted).keys() >= set(wanted):
        return
    rows = np.flatnonzero(np.isin(pool.task_ids, wanted) & ~np.isin(pool.task_ids, list(labels)))
    found = novelty_of(pool.features, rows, labelled, seed=project.live_version)
    tasks = pool.task_ids[found.nearest]
    database.put_compared(
        project.key,
        [
            Compared(
                task_id=int(pool.task_ids[row]),
                novelty=float(found.share[n]),
                nearest=list(zip(tasks[n].tolist(), found.similarity[n].tolist(), strict=True)),
            )
            for n, row in enumerate(rows)
        ],
    )
