"""Notices new tasks whose images are unlike those that were there, and has some of them labelled.

What is known of a project (``projects.drift``): ``before``, the last task of those compared with;
``until``, the last new one that was compared; ``tests`` so far; ``alarm``, the last one.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import audits
from backend.edges.database import Database
from backend.ordering import random_draws
from backend.records import Draw, Project
from model.drift import level_of_test, shift_of

DRIFT = "drift"  # kind of draws
FALSE_ALARM = 0.05  # in a project, ever
FEWEST_OLD, FEWEST_NEW = 40, 20
# A test for every twentieth of the pool that comes, or every thousand: a series has forty.
NEW_SHARE, ENOUGH_NEW = 0.05, 1000
PROVED = (
    " What audits have proved, they proved of the tasks that were there: it holds, and says "
    "nothing of the new ones."
)
ASKED = 10  # of new tasks that are unlike the others: labels teach what they are


def look(
    database: Database,
    project: Project,
    task_ids: NDArray[np.int64],
    features: NDArray[np.float32],
    *,
    known: Collection[int],
) -> list[str]:
    """Compare the tasks that came since the last time with those before, if they are enough.

    Args:
        database: the facts; a result is kept there, and draws are made.
        project: whose tasks.
        task_ids: ``(N,)`` of all readable tasks, ascending.
        features: ``(N, D)`` of their images.
        known: tasks that were there before the newest ones: where nothing was compared so far,
            those are what is compared with.

    Returns:
        A sentence if they are unlike; else nothing.
    """
    facts = project.drift or {"before": max(known, default=0), "until": 0, "tests": 0}
    last = max(facts["before"], facts["until"])
    old, new = task_ids <= facts["before"], task_ids > last
    wanted = max(FEWEST_NEW, min(ENOUGH_NEW, int(NEW_SHARE * old.sum())))
    if old.sum() < FEWEST_OLD or new.sum() < wanted:
        database.update_project(project.key, drift=facts)
        return []
    number = facts["tests"] + 1
    level = level_of_test(FALSE_ALARM, number)
    found = shift_of(features[old], features[new], level=level, seed=number)
    facts |= {"until": int(task_ids[-1]), "tests": number}
    said = []
    if found.p_value <= level:
        drawn, chance = random_draws(task_ids[new], ASKED, seed=number)
        said.append(
            f"the {int(new.sum())} newest tasks are unlike the others (p = {found.p_value:.1g}); "
            f"{len(drawn)} of them come first in the queue"
        )
        database.add_draws(
            project.key,
            [
                Draw(task_id=int(i), kind=DRIFT, version=project.live_version or 0,
                     probability=chance)
                for i in drawn
            ],
        )  # fmt: skip
        facts |= {
            "before": int(task_ids[-1]),
            "alarm": {
                "at": time.time(),
                "p_value": found.p_value,
                "tasks": int(new.sum()),
                "novelty_before": found.novelty_before,
                "novelty_now": found.novelty_now,
                "draws": [int(i) for i in drawn],
            },
        }
    database.update_project(project.key, drift=facts)
    return said


def alarm_of(database: Database, project: Project) -> dict[str, Any] | None:
    """The last alarm, in words, until what it asked for is labelled; None without one."""
    alarm = (project.drift or {}).get("alarm")
    if alarm is None:
        return None
    touched = database.touched_tasks(project.key, alarm["draws"])
    touched |= database.gone_tasks(project.key, alarm["draws"])
    left = [task for task in alarm["draws"] if task not in touched]
    if not left:
        return None
    proved = (audits.CERTIFIED, *audits.STANDING)
    has_proved = any(one.status in proved for one in database.audits(project.key))
    return {
        **alarm,
        "sentence": (
            f"{alarm['tasks']} new tasks are unlike those before (p = {alarm['p_value']:.1g}, of "
            f"all such tests one in {1 / FALSE_ALARM:.0f} projects has a false alarm): accuracy "
            f"and P(right) say little of them. {len(left)} of them come first in the queue."
            f"{PROVED if has_proved else ''}"
        ),
    }
