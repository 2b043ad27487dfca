"""Audits for each predicted class by itself, so that the promise holds for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.acceptance.plan import EXPECTED, AuditPlan, Promise, plan_audit
from model.errors import ShapeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ClassPlan:
    """The plan for what is predicted to be of one class.

    Attributes:
        name: the class.
        rows: ``(pool,)`` its items as rows of the whole pool, the surest first.
        plan: of these items alone; its promise has the confidence of this class.
    """

    name: str
    rows: Ints
    plan: AuditPlan


def plan_by_class(
    p_right: Floats, said: Sequence[str], promise: Promise, *, audit: int | None = None
) -> list[ClassPlan]:
    """Plan an audit for each class for which one is expected to spare people work.

    The chance of a mistake is divided by the number of classes that are audited (Bonferroni): all
    statements together hold with the confidence of the promise. Which classes these are follows
    from P(right) alone, before any label. An expectation is held for each class without that.

    Args:
        p_right: ``(N,)`` of the pool, descending.
        said: ``(N,)`` the class that is predicted of each.
        promise: what is to be proved of each class.
        audit: labels to spend on each class that so many pay for; None leaves that to the plan.

    Returns:
        By name; empty where no audit would pay.

    Raises:
        ShapeError: not one class an item.
        ModelError: as `plan_audit`.
    """
    if len(said) != len(p_right):
        raise ShapeError("said", expected=f"({len(p_right)},)", got=(len(said),))
    names, of = np.unique(np.asarray(said, dtype=object), return_inverse=True)
    rows = {str(name): np.flatnonzero(of == n) for n, name in enumerate(names)}
    # Fewer classes leave more confidence for each, so those that paid before pay again.
    found: list[ClassPlan] = []
    while rows:
        each = promise
        if promise.of != EXPECTED:
            each = replace(promise, confidence=1.0 - (1.0 - promise.confidence) / len(rows))
        found = [
            ClassPlan(name, mine, plan)
            for name, mine in rows.items()
            if (plan := _plan(p_right[mine], each, audit)) is not None
        ]
        if len(found) == len(rows):
            return found
        rows = {part.name: part.rows for part in found}
    return []


def _plan(p_right: Floats, promise: Promise, audit: int | None) -> AuditPlan | None:
    if audit is not None and audit > len(p_right):
        return None
    plan = plan_audit(p_right, promise, audit=audit)
    return plan if plan is not None and plan.expected > plan.audit else None
