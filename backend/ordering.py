"""From what the model knows to the numbers Label Studio sorts by.

Label Studio's "Uncertainty sampling" serves the lowest ``score`` first, and before that the
cluster its user has solved least; predictions without a cluster are one cluster of their own.
This is the only file that knows about that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Scores given to draws and to cold-start ranks stay below every calibrated score, which is
# clipped to [LOWEST, HIGHEST]; steps between them survive a float in JSON. Images with boxes that
# have no chance of being right keep their order above LOWEST (`LEAST_IMAGE` of the model).
LOWEST = 5e-4
HIGHEST = 1 - 1e-3
STEP = 1e-7
UNREADABLE = 1.0
# Tasks that get a cluster: each costs Label Studio a request of 25 ms. Behind them stand the
# remaining draws, then everything else, most doubtful first.
MOST_TAGGED = 120


@dataclass(frozen=True)
class Placed:
    """One task as it goes to Label Studio."""

    task_id: int
    score: float
    cluster: int | None


def published_score(p_right: float) -> float:
    """A calibrated P(right) as a valid score: never 0, 1, NaN, or where draws stand."""
    if not math.isfinite(p_right):
        raise ValueError(f"P(right) is {p_right}; a score must be a number in [0, 1]")
    return float(min(max(p_right, LOWEST), HIGHEST))


def audit_score(position: int, count: int) -> float:
    """Score of the n-th of so many tasks to check: before everything else, random draws included.

    Example:
        >>> 0 < audit_score(0, 400) < audit_score(399, 400) < STEP
        True
    """
    return STEP * (position + 1) / (count + 2)


def draws_wanted(*, share: float, labels: int, drawn_labels: int, waiting: int, size: int) -> int:
    """Random draws to add so that after this round `share` of the labels were drawn by chance.

    Args:
        share: the random share, 0 to 1.
        labels: labels so far.
        drawn_labels: how many of them came from random draws.
        waiting: draws made earlier that nobody has labelled yet; they stay in front.
        size: labels this round asks for.
    """
    target = share * (labels + size)
    # Catching up on labels from before the share was switched on must not flood a round.
    most = math.ceil(2 * share * size)
    return max(0, min(round(target) - drawn_labels, most) - waiting)


def interleave(chosen: Sequence[int], drawn: Sequence[int], share: float) -> list[int]:
    """One sequence in which every stretch holds about `share` of `drawn`, drawn first."""
    order: list[int] = []
    rest = list(drawn)
    taken = 0
    for item in chosen:
        while rest and taken <= share * len(order):
            order.append(rest.pop(0))
            taken += 1
        order.append(item)
    return order + rest


def cold_order(order: Sequence[int], others: Sequence[int]) -> list[Placed]:
    """Cold start: the rank itself, mapped into the low end of the scores; no clusters."""
    width = LOWEST - STEP
    n = max(1, len(order) + len(others))
    return [
        Placed(task_id, STEP + width * rank / n, None)
        for rank, task_id in enumerate([*order, *others])
    ]


def place(
    p_right: Mapping[int, float],
    front: Sequence[int],
    draws: Sequence[int],
    first_cluster: int,
    *,
    share: float = 0.2,
) -> list[Placed]:
    """Scores and clusters of a trained version.

    The front gets one new cluster a task, so that Label Studio serves all of it, lowest score
    first, before it comes to a second task of any cluster. Draws carry the lowest scores, in
    their order; their true score is kept in the database.

    Args:
        p_right: task -> calibrated P(right), of every readable task.
        front: tasks the acquisition function chose, without draws.
        draws: random and audit draws nobody has labelled yet.
        first_cluster: first of `MOST_TAGGED` cluster numbers never used before.
        share: share of draws among the tasks that get a cluster.
    """
    tagged = interleave(front, draws, share)[:MOST_TAGGED]
    cluster = {task: first_cluster + i for i, task in enumerate(tagged)}
    rank = {task: i for i, task in enumerate(draws)}
    step = min(STEP, (LOWEST - 2 * STEP) / max(1, len(draws)))
    return [
        Placed(
            task_id=task,
            score=STEP + step * rank[task] if task in rank else published_score(p),
            cluster=cluster.get(task),
        )
        for task, p in p_right.items()
    ]


def random_draws(pool: NDArray[np.int64], n: int, *, seed: int) -> tuple[NDArray[np.int64], float]:
    """Draw uniformly from the pool, before any score is looked at.

    Returns:
        The drawn task ids, and the probability each task of the pool had.
    """
    n = min(n, len(pool))
    if n <= 0:
        return np.empty(0, np.int64), 0.0
    chosen = np.random.default_rng(seed).choice(np.sort(pool), size=n, replace=False)
    return chosen, n / len(pool)
