"""What audits are about and what they have shown so far, read from the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.edges.database import Database
from backend.edges.labels.answers import is_known, merged
from backend.edges.labels.config import TaskSpec, parse_config
from backend.kinds import kind_of
from backend.records import Audit, AuditItem, Project
from backend.region_audits import are_wrong, look_at
from model.acceptance.plan import EXPECTED, AuditPlan, Promise
from model.acceptance.watch import evidence_against

OPEN, CERTIFIED, REFUSED = "open", "certified", "refused"
ACCEPTING, ACCEPTED, WITHDRAWN = "accepting", "accepted", "withdrawn"
UNDOING, UNDONE, CANCELLED = "undoing", "undone", "cancelled"
# While one of these is under way the version it is about stays live: nothing is trained.
HOLDING = (OPEN, CERTIFIED, ACCEPTING)
STANDING = (ACCEPTING, ACCEPTED, WITHDRAWN, UNDOING)

# What a promise counts: tasks, tasks of each class by itself, or regions on images.
TASKS, CLASSES, REGIONS = "tasks", "classes", "regions"
BY = (TASKS, CLASSES, REGIONS)

DRAWN, WATCHED = "drawn", "watched"
# Of what is accepted so much is asked for instead, to see whether it stays true.
WATCHED_SHARE, FEWEST_WATCHED = 0.05, 20


@dataclass(frozen=True)
class Part:
    """What one plan of an audit is about: all of the pool, or what is predicted to be of a class.

    Attributes:
        name: the class; None for the whole pool.
        start: rank in the audit of the part's surest item.
        plan: with ranks that begin at 0.
    """

    name: str | None
    start: int
    plan: AuditPlan

    @property
    def stop(self) -> int:
        """The rank after that of the part's last item."""
        return self.start + self.plan.reach


def current(database: Database, project: Project) -> Audit | None:
    """The audit that everything is about: the newest that was not given up or taken back."""
    found = [a for a in database.audits(project.key) if a.status not in (CANCELLED, UNDONE)]
    return found[-1] if found else None


def parts_of(audit: Audit) -> list[Part]:
    """The plans as they were when the audit was drawn."""
    found, start = [], 0
    for facts in audit.plan.get("parts", [audit.plan]):
        promise = Promise(audit.max_error, facts["confidence"], audit.of)
        unit = REGIONS if REGIONS in facts else ""
        plan = AuditPlan(promise, facts["pool"], tuple(facts["sizes"]), facts["audit"], unit=unit)
        found.append(Part(facts.get("name"), start, plan))
        start = found[-1].stop
    return found


def regions_of(audit: Audit) -> dict[str, Any] | None:
    """What an audit of regions has beside its plan; None for one of tasks.

    ``images``: of each part its number of images; ``of_images``: with regions, in the pool;
    ``drawn``: the regions to look at, see `backend.region_audits`; ``watched``: those that are
    looked at after accepting, once they are drawn.
    """
    found: dict[str, Any] | None = audit.plan.get(REGIONS)
    return found


def to_check(database: Database, project: Project, version: int) -> dict[int, bool]:
    """Tasks that audits ask for and nobody has labelled yet, in the order they are asked for.

    Args:
        database: the facts.
        project: whose.
        version: the one that is live, or is about to be: it ends the audits of another.

    Returns:
        Task -> whether it is to be labelled without seeing what is predicted.
    """
    found: dict[int, bool] = {}
    for audit in database.audits(project.key, status=(*HOLDING, ACCEPTED)):
        blind = bool(audit.plan.get("blind"))
        states = [DRAWN] if audit.status in HOLDING and audit.version == version else []
        # Chosen before the last label is accepted; whichever version is live, they are checked.
        states += [WATCHED] if audit.status in (ACCEPTING, ACCEPTED) else []
        for state in states:
            for item in in_chance_order(audit, database.audit_items(audit.id, state=state)):
                found.setdefault(item.task_id, blind)
    touched = database.touched_tasks(project.key, list(found))
    return {task: blind for task, blind in found.items() if task not in touched}


def needed_versions(database: Database, project: Project) -> set[int]:
    """Versions whose predictions have to stay in Label Studio: some of them may be accepted."""
    return {audit.version for audit in database.audits(project.key, status=(CERTIFIED, ACCEPTING))}


def by_of(audit: Audit) -> str:
    """What the promise of an audit counts; one of `BY`."""
    if regions_of(audit) is not None:
        return REGIONS
    return CLASSES if "parts" in audit.plan else TASKS


def proved(audit: Audit) -> list[tuple[int, int]]:
    """Ranks of tasks that may be accepted: each from a first one up to before a last one."""
    if regions_of(audit) is not None:
        images = int((audit.certificate or {}).get("images", 0))
        return [(0, images)] if images else []
    return [
        (part.start, part.start + int(facts["size"]))
        for part, facts in zip(parts_of(audit), _certified(audit), strict=False)
        if facts.get("size")
    ]


def progress(database: Database, project: Project, audit: Audit) -> tuple[int, int]:
    """Audit labels that are there, and how many were asked for."""
    ids = [item.task_id for item in database.audit_items(audit.id, state=DRAWN)]
    done = database.judged_tasks(project.key, ids, skips=True)
    return len(done | database.gone_tasks(project.key, ids)), len(ids)


def verdicts(database: Database, project: Project, items: Sequence[AuditItem]) -> dict[int, bool]:
    """Rank -> whether the prediction was wrong, of the tasks that people have judged.

    A task that was skipped, deleted or answered with something the config no longer knows counts
    as wrong: left out, what is hard to judge would count as right.
    """
    spec = parse_config(project.label_config).spec
    if spec is None:
        return {}
    ids = [item.task_id for item in items]
    answers = database.answers(project.key, ids)
    judged = database.judged_tasks(project.key, ids, skips=True)
    judged |= database.gone_tasks(project.key, ids)
    return {item.rank: _is_wrong(spec, item, answers) for item in items if item.task_id in judged}


def _is_wrong(spec: TaskSpec, item: AuditItem, answers: Mapping[int, list[str]]) -> bool:
    answer = merged(spec, answers.get(item.task_id, []))
    if answer is None or item.said is None or not is_known(spec, answer):
        return True
    return not kind_of(spec).is_right(spec, item.said, answer)


def in_chance_order(audit: Audit, items: Sequence[AuditItem]) -> list[AuditItem]:
    """Tasks of an audit in the order they are asked for, which says nothing of how sure they are.

    What is concluded from the first of them holds for all, however many people get to.
    """
    order = np.random.default_rng(audit.id).permutation(len(items)).tolist()
    return [items[n] for n in order]


def watched(database: Database, project: Project, audit: Audit) -> dict[str, Any]:
    """What checking accepted labels has shown: how many, how many wrong, and what that says.

    Tasks that were skipped or deleted since say nothing of what was accepted.
    """
    items = in_chance_order(audit, database.audit_items(audit.id, state=WATCHED))
    ids = [item.task_id for item in items]
    looked = database.judged_tasks(project.key, ids, skips=False)
    seen = [item for item in items if item.task_id in looked]
    regions = regions_of(audit)
    if regions is None:
        judged = verdicts(database, project, seen)
        order = [item.rank for item in items]
    else:
        spec = parse_config(project.label_config).spec
        answers = database.answers(project.key, [item.task_id for item in seen])
        found = {} if spec is None else look_at(spec, seen, answers)
        judged = are_wrong(regions.get(WATCHED, ()), found)
        # Images are asked for in chance order; what is drawn on one comes with it.
        place = {item.rank: n for n, item in enumerate(items)}
        drawn = sorted(regions.get(WATCHED, ()), key=lambda one: (place[one[1]], one[0]))
        order = [rank for rank, *_ in drawn]
    evidence, bounds = [], []
    for part, facts in zip(parts_of(audit), _certified(audit), strict=False):
        if not facts.get("size"):
            continue
        inside = [rank for rank in order if rank in judged and part.start <= rank < part.stop]
        bounds.append(_bound_among_unseen(part.plan, facts))
        against = np.ones(1)
        if inside and bounds[-1] < 1:
            wrong = np.array([judged[rank] for rank in inside], bool)
            against = evidence_against(wrong, max_error=bounds[-1])
        evidence.append(float(against[-1]))
    return {
        "asked": len(order),
        "checked": len(judged),
        "wrong": sum(judged.values()),
        "max_error": max(bounds, default=audit.max_error),
        # While all promises hold, the mean of what speaks against each is as rarely large as one.
        "evidence": float(np.mean(evidence)) if evidence else 1.0,
    }


def _certified(audit: Audit) -> list[dict[str, Any]]:
    """What was proved of each part; as long as there is nothing, of nothing."""
    certificate = audit.certificate or {}
    found: list[dict[str, Any]] = certificate.get("parts", [certificate])
    return found


def _bound_among_unseen(plan: AuditPlan, facts: Mapping[str, Any]) -> float:
    """Largest share of wrong ones among what nobody saw, if the promise is kept.

    The certificate bounds the wrong predictions of the whole part; those that the audit found are
    people's labels now, and the others may all be among what was accepted.
    """
    size = int(facts["size"])
    passed = [test for test in facts.get("tests", ()) if test["size"] == size]
    if not passed:
        return plan.promise.max_error
    allowed = plan.promise.broken_by(size, plan.pool) - 1
    seen, seen_wrong = facts.get("seen", passed[0]["drawn"]), facts.get("seen_wrong")
    found = passed[0]["errors"] if seen_wrong is None else seen_wrong
    return float(np.clip((allowed - found) / max(size - seen, 1), 1e-4, 1.0))


def describe(database: Database, project: Project) -> dict[str, Any] | None:
    """The current audit as plain values, for status and commands; None without one.

    With the ``earlier`` ones whose accepted labels stand.
    """
    audit = current(database, project)
    if audit is None:
        return None
    states = database.audit_states(audit.id)
    done, wanted = progress(database, project, audit)
    certificate, regions, parts = audit.certificate or {}, regions_of(audit), parts_of(audit)
    found: dict[str, Any] = {
        "audit": audit.id,
        "status": audit.status,
        "version": database.version(project.key, audit.version).name,
        "max_error": audit.max_error,
        "confidence": audit.confidence,
        "of": audit.of,
        "by": by_of(audit),
        "blind": bool(audit.plan.get("blind")),
        "pool": audit.plan["pool"] if regions is None else regions["of_images"],
        "reach": sum(part.plan.reach for part in parts)
        if regions is None
        else regions["images"][-1],
        "audit_labels": wanted,
        "audit_labels_done": done,
        "may_be_accepted": certificate.get("size" if regions is None else "images", 0),
        "accepted": states.get(ACCEPTED, 0),
        "sentence": audit.reason or _sentence(audit, done, wanted),
        "classes": _classes(audit),
        "regions": None
        if regions is None
        else {
            "pool": audit.plan["pool"],
            "audited": audit.plan["audit"],
            "may_be_accepted": certificate.get("size"),
            "missed": certificate.get("missed"),
        },
    }
    found["checked"] = watched(database, project, audit) if audit.status in STANDING else None
    found["earlier"] = [
        {
            "audit": one.id,
            "status": one.status,
            "version": database.version(project.key, one.version).name,
            "accepted": database.audit_states(one.id).get(ACCEPTED, 0),
            "sentence": one.reason,
        }
        for one in database.audits(project.key, status=STANDING)
        if one.id != audit.id
    ]
    return found


def _classes(audit: Audit) -> list[dict[str, Any]] | None:
    """What is asked and proved of each class; None where one promise is for all."""
    if by_of(audit) != CLASSES:
        return None
    certified = _certified(audit) if audit.certificate else [{} for _ in audit.plan["parts"]]
    return [
        {
            "name": part.name,
            "pool": part.plan.pool,
            "audit_labels": part.plan.audit,
            "may_be_accepted": facts.get("size"),
        }
        for part, facts in zip(parts_of(audit), certified, strict=True)
    ]


def _sentence(audit: Audit, done: int, wanted: int) -> str:
    parts, regions = parts_of(audit), regions_of(audit)
    reach, pool = sum(part.plan.reach for part in parts), audit.plan["pool"]
    wrong = f"{audit.max_error:.1%} wrong" + (" on average" if audit.of == EXPECTED else "")
    what = "tasks"
    if parts[0].name is not None:
        wrong += f" of each of {len(parts)} classes"
    if regions is not None:
        what = f"regions, all that {regions['images'][-1]} images show,"
    return (
        f"{done} of {wanted} audit labels are there; they come first in the queue. When all are "
        f"there it shows how many of the surest {reach} of {pool} {what} may be accepted with at "
        f"most {wrong}; by P(right) some {audit.plan.get('expected', 0)} are to be expected."
    )
