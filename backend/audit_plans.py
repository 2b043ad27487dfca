"""What an audit asks for: of all open tasks, of each predicted class, or of regions on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backend.audits import DRAWN, STANDING, WATCHED
from backend.edges.database import Database
from backend.edges.labels.boxes import decode_prediction
from backend.records import AuditItem, Project
from model.acceptance.by_class import plan_by_class
from model.acceptance.plan import AuditPlan, Promise, plan_audit
from model.acceptance.regions import rank_images


class OpenTask(NamedTuple):
    """A task that may be accepted.

    Attributes:
        p_right: P(all that is predicted of it is right).
        task_id: of Label Studio.
        said: the prediction, as `scores.label` has it.
    """

    p_right: float
    task_id: int
    said: str


@dataclass(frozen=True)
class Planned:
    """An audit before any of its labels.

    Attributes:
        facts: as the database keeps them; see `backend.audits.parts_of`.
        items: the tasks of its reach.
    """

    facts: dict[str, Any]
    items: list[AuditItem]


def open_tasks(database: Database, project: Project, version: int) -> list[OpenTask]:
    """What may be accepted of what a version says, the surest first.

    What was drawn by chance for training is left out: people label it anyway.
    """
    ready = {t.task_id for t in database.tasks(project.key, state="ready")}
    left = ready - database.touched_tasks(project.key) - database.draws(project.key).keys()
    # What is accepted is checked by these: they must not be accepted themselves.
    for audit in database.audits(project.key, status=STANDING):
        left -= {item.task_id for item in database.audit_items(audit.id, state=WATCHED)}
    found = [
        OpenTask(row.p_right, row.task_id, row.label)
        for row in database.scores(project.key, version).values()
        if row.task_id in left and row.p_right is not None and row.label is not None
    ]
    return sorted(found, key=lambda task: (-task.p_right, task.task_id))


def of_tasks(
    pool: Sequence[OpenTask],
    promise: Promise,
    *,
    audit: int | None,
    reach: float | None,
    seed: int,
) -> Planned | None:
    """Of all tasks together; None where no audit would pay. Arguments as of `plan_audit`."""
    p_right = np.array([task.p_right for task in pool])
    plan = plan_audit(
        p_right, promise, audit=None if audit is None else min(audit, len(pool)), reach=reach
    )
    if plan is None:
        return None
    return Planned(_facts(plan), _items(pool[: plan.reach], plan.draw(seed).tolist(), start=0))


def by_class(
    pool: Sequence[OpenTask], promise: Promise, *, audit: int | None, seed: int
) -> Planned | None:
    """Of each predicted class by itself, laid end to end; None where no audit would pay."""
    p_right = np.array([task.p_right for task in pool])
    plans = plan_by_class(p_right, [task.said for task in pool], promise, audit=audit)
    if not plans:
        return None
    items: list[AuditItem] = []
    for number, part in enumerate(plans):
        mine = [pool[row] for row in part.rows[: part.plan.reach].tolist()]
        items += _items(mine, part.plan.draw([seed, number]).tolist(), start=len(items))
    parts = [{"name": part.name, **_facts(part.plan)} for part in plans]
    sums = {name: sum(part[name] for part in parts) for name in ("audit", "expected")}
    return Planned({"pool": len(pool), **sums, "parts": parts}, items)


def of_regions(
    pool: Sequence[OpenTask],
    promise: Promise,
    *,
    audit: int | None,
    reach: float | None,
    seed: int,
) -> Planned | None:
    """Of the regions on images, which are accepted with all of their regions or not at all.

    Images stand in the order of the mean P(right) of their regions. Regions are drawn uniformly
    from all that the reach has, so a bound on wrong ones is exact however they lie on images. An
    image without a region has nothing that could be proved, and is left to people.

    Args:
        pool: of a project with boxes.
        promise: of regions.
        audit: regions to look at; None leaves that to the plan.
        reach: largest share of the regions that may be accepted.
        seed: of the draw.

    Returns:
        None where no audit would pay.
    """
    found = [decode_prediction(task.said) for task in pool]
    stated = [np.array([] if f is None else [r.p for r in f.regions], np.float64) for f in found]
    order, every, ends = rank_images(stated, np.array([task.p_right for task in pool]))
    if not len(order):
        return None
    plan = plan_audit(
        every,
        promise,
        audit=None if audit is None else min(audit, len(every)),
        reach=reach,
        ends=ends,
        price=len(every) / len(order),
    )
    if plan is None:
        return None
    ranks = np.sort(plan.draw(seed))
    images = np.searchsorted(ends, ranks, side="right")
    drawn = [
        [rank, image, rank - (int(ends[image - 1]) if image else 0)]
        for rank, image in zip(ranks.tolist(), images.tolist(), strict=True)
    ]
    tasks = [pool[row] for row in order.tolist()]
    sizes = [int(n) + 1 for n in np.searchsorted(ends, plan.sizes)]
    facts = {
        **_facts(plan),
        "regions": {"images": sizes, "of_images": len(order), "drawn": drawn},
    }
    return Planned(facts, _items(tasks[: sizes[-1]], set(images.tolist()), start=0))


def _facts(plan: AuditPlan) -> dict[str, Any]:
    return {
        "pool": plan.pool,
        "sizes": list(plan.sizes),
        "audit": plan.audit,
        "confidence": plan.promise.confidence,
        "expected": round(plan.expected),
    }


def _items(
    tasks: Sequence[OpenTask], drawn: Sequence[int] | set[int], *, start: int
) -> list[AuditItem]:
    inside = set(drawn)
    return [
        AuditItem(
            task_id=task.task_id,
            rank=start + rank,
            state=DRAWN if rank in inside else "",
            said=task.said,
        )
        for rank, task in enumerate(tasks)
    ]
