"""What may be accepted unseen: audits from being asked for to what they prove, by the facts alone.

Nothing here talks to Label Studio: what has to be done there is done by jobs (`backend.jobs.audit`,
`backend.jobs.accept`), which this asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.edges.database import Database
from backend.edges.labels.answers import is_known, merged
from backend.edges.labels.config import TaskSpec, parse_config
from backend.errors import NotNowError
from backend.kinds import kind_of
from backend.records import Audit, AuditItem, Project
from model.acceptance.certificate import certify, confidence_of_attempt
from model.acceptance.plan import AuditPlan, Promise, plan_audit
from model.acceptance.watch import evidence_against

OPEN, CERTIFIED, REFUSED = "open", "certified", "refused"
ACCEPTING, ACCEPTED, WITHDRAWN = "accepting", "accepted", "withdrawn"
UNDOING, UNDONE, CANCELLED = "undoing", "undone", "cancelled"
# While one of these is under way the version it is about stays live: nothing is trained.
HOLDING = (OPEN, CERTIFIED, ACCEPTING)
STANDING = (ACCEPTING, ACCEPTED, WITHDRAWN, UNDOING)

DRAWN, WATCHED = "drawn", "watched"
# Of what is accepted so much is asked for instead, to see whether it stays true.
WATCHED_SHARE, FEWEST_WATCHED = 0.05, 20


def propose(
    database: Database,
    project: Project,
    promise: Promise,
    *,
    audit: int | None = None,
    reach: float | None = None,
) -> Audit:
    """Plan an audit of what the live version says, draw it, and have it put in front of the queue.

    Args:
        database: the facts.
        project: the project.
        promise: what shall be true of what is accepted.
        audit: labels to spend; None leaves that to the plan.
        reach: largest share of the pool that may be accepted; None leaves it to the plan.

    Raises:
        NotNowError: there is nothing to accept, no audit would pay, or another one is under way.
        ModelError: an `audit` or `reach` that cannot be.
    """
    _refuse_while_busy(database, project)
    live = None
    if project.live_version is not None:
        live = database.version(project.key, project.live_version)
    if live is None or live.bundle is None:
        raise NotNowError(
            "nothing is trained yet, so nothing can be accepted; label some tasks first"
        )
    if not live.is_of(project.config_hash, live.metrics.get("backbone", "")):
        raise NotNowError(
            f"{live.name} was trained for another labeling config; let a new version be trained "
            "first, for example with `doubtless train`"
        )
    # The same model published again is no new chance.
    same = {v.number for v in database.versions(project.key) if v.bundle == live.bundle}
    attempt = sum(a.version in same for a in database.audits(project.key))
    at_once = replace(promise, confidence=confidence_of_attempt(promise.confidence, attempt))
    pool = _pool(database, project, live.number)
    if not pool:
        raise NotNowError("every readable task is labelled or about to be; nothing is left over")
    p_right = np.array([p for p, _, _ in pool])
    try_size = None if audit is None else min(audit, len(pool))
    plan = plan_audit(p_right, at_once, audit=try_size, reach=reach)
    if plan is None:
        sure = int(np.ceil(0.1 * len(pool)))
        raise NotNowError(
            f"no audit would pay: {live.name} itself expects {np.mean(1 - p_right):.1%} of its "
            f"{len(pool)} predictions to be wrong, and {np.mean(1 - p_right[:sure]):.1%} of its "
            f"surest {sure}, where at most {promise.max_error:.1%} may be. Label more, or allow "
            "more errors with --max-error; --audit N asks for an audit of N labels all the same."
        )
    number = database.add_audit(
        {
            "project": project.key,
            "version": live.number,
            "attempt": attempt,
            "status": OPEN,
            "max_error": promise.max_error,
            "confidence": promise.confidence,
            "of": promise.of,
            "plan": {
                "pool": plan.pool,
                "sizes": list(plan.sizes),
                "audit": plan.audit,
                "confidence": at_once.confidence,
                "expected": round(plan.expected),
            },
        },
        _items(pool, plan, seed=live.number * 1000 + attempt),
    )
    if number is None:
        raise NotNowError("another audit of the same version was asked for at this moment")
    database.add_run(project.key, "audit", reason=f"an audit of {plan.audit} labels")
    return next(a for a in database.audits(project.key) if a.id == number)


def plan_of(audit: Audit) -> AuditPlan:
    """The plan as it was when the audit was drawn."""
    promise = Promise(audit.max_error, audit.plan["confidence"], audit.of)
    return AuditPlan(promise, audit.plan["pool"], tuple(audit.plan["sizes"]), audit.plan["audit"])


def current(database: Database, project: Project) -> Audit | None:
    """The audit that everything is about: the newest that was not given up or taken back."""
    found = [a for a in database.audits(project.key) if a.status not in (CANCELLED, UNDONE)]
    return found[-1] if found else None


def held(database: Database, project: Project) -> str | None:
    """Why no version is trained at the moment, as far as audits are concerned."""
    for audit in database.audits(project.key, status=HOLDING):
        if audit.status == OPEN:
            done, wanted = progress(database, project, audit)
            return (
                f"an audit is under way ({done} of {wanted} labels), and what is audited stays "
                "live; `doubtless accept --cancel` gives it up"
            )
        if audit.status == CERTIFIED:
            return (
                "an audit has proved that labels may be accepted: `doubtless accept` accepts "
                "them, `doubtless accept --cancel` does not"
            )
        return "labels are being accepted"
    return None


def progress(database: Database, project: Project, audit: Audit) -> tuple[int, int]:
    """Audit labels that are there, and how many were asked for."""
    ids = [item.task_id for item in database.audit_items(audit.id, state=DRAWN)]
    done = database.judged_tasks(project.key, ids, skips=True)
    return len(done | database.gone_tasks(project.key, ids)), len(ids)


def review(database: Database, project: Project) -> list[str]:
    """Draw the conclusions from labels that came: certify, refuse, withdraw, give up.

    Returns:
        What was concluded, a sentence each; mostly nothing.
    """
    said = []
    for audit in database.audits(project.key, status=(OPEN, CERTIFIED, ACCEPTED)):
        conclusion = None
        if audit.status in (OPEN, CERTIFIED) and project.live_version != audit.version:
            conclusion = CANCELLED, "another version is live now; what it says needs its own audit"
        elif audit.status in (OPEN, CERTIFIED) and _asks_otherwise(database, project, audit):
            conclusion = CANCELLED, "the labeling config asks for something else now"
        elif audit.status == OPEN:
            conclusion = _verdict(database, project, audit)
        elif audit.status == ACCEPTED:
            conclusion = _watch(database, project, audit)
        if conclusion is not None:
            status, reason = conclusion
            if database.update_audit(
                audit.id, only_if=(audit.status,), status=status, reason=reason
            ):
                said.append(reason)
    return said


def _asks_otherwise(database: Database, project: Project, audit: Audit) -> bool:
    return database.version(project.key, audit.version).config_hash != project.config_hash


def _refuse_while_busy(database: Database, project: Project) -> None:
    for audit in database.audits(project.key, status=HOLDING):
        raise NotNowError(
            f"an audit is {audit.status} already: at most {audit.max_error:.1%} wrong; "
            "`doubtless accept` goes on with it, `doubtless accept --cancel` gives it up"
        )
    for audit in database.audits(project.key, status=(ACCEPTED,)):
        if audit.version == project.live_version:
            raise NotNowError(
                "what the live version says was accepted already as far as that was proved; "
                "label more and let it train, or take it back with `doubtless accept --undo`"
            )
    busy = [run for run in database.runs(project.key) if run.kind in ("train", "republish")]
    if busy:
        raise NotNowError(
            f"a new version is on its way ({busy[0].kind}, {busy[0].status}); audit what it says "
            "when it is live"
        )


def _pool(database: Database, project: Project, version: int) -> list[tuple[float, int, str]]:
    """P(right), task and prediction of what may be accepted, the surest first.

    What was drawn by chance for training is left out: people label it anyway.
    """
    ready = {t.task_id for t in database.tasks(project.key, state="ready")}
    left = ready - database.touched_tasks(project.key) - database.draws(project.key).keys()
    # What is accepted is checked by these: they must not be accepted themselves.
    for audit in database.audits(project.key, status=STANDING):
        left -= {item.task_id for item in database.audit_items(audit.id, state=WATCHED)}
    found = [
        (row.p_right, row.task_id, row.label)
        for row in database.scores(project.key, version).values()
        if row.task_id in left and row.p_right is not None and row.label is not None
    ]
    return sorted(found, key=lambda item: (-item[0], item[1]))


def _items(
    pool: Sequence[tuple[float, int, str]], plan: AuditPlan, *, seed: int
) -> list[AuditItem]:
    drawn = set(plan.draw(seed).tolist())
    return [
        AuditItem(task_id=task, rank=rank, state=DRAWN if rank in drawn else "", said=said)
        for rank, (_, task, said) in enumerate(pool[: plan.reach])
    ]


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


def _verdict(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    items = database.audit_items(audit.id, state=DRAWN)
    judged = verdicts(database, project, items)
    if len(judged) < len(items):
        return None
    ranks = np.array(sorted(judged), np.int64)
    wrong: NDArray[np.bool_] = np.array([judged[int(rank)] for rank in ranks], bool)
    found = certify(plan_of(audit), ranks, wrong)
    database.update_audit(audit.id, certificate=found.facts())
    return (CERTIFIED if found.size else REFUSED), found.sentence


def _watch(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    facts = watched(database, project, audit)
    if facts["evidence"] < 1.0 / (1.0 - audit.confidence):
        return None
    return WITHDRAWN, (
        f"{facts['wrong']} of {facts['checked']} accepted labels that were checked are wrong, too "
        f"many for at most {facts['max_error']:.1%}; `doubtless accept --undo` takes them back"
    )


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
    judged = verdicts(database, project, [item for item in items if item.task_id in looked])
    wrong = np.array([judged[item.rank] for item in items if item.rank in judged], bool)
    bound = _bound_among_accepted(audit)
    evidence = evidence_against(wrong, max_error=bound) if len(wrong) and bound < 1 else np.ones(1)
    return {
        "asked": len(items),
        "checked": len(wrong),
        "wrong": int(wrong.sum()),
        "max_error": bound,
        "evidence": float(evidence[-1]),
    }


def _bound_among_accepted(audit: Audit) -> float:
    """Largest share of wrong ones among what nobody saw, if the promise is kept.

    The certificate bounds the wrong predictions of the whole part; those that the audit found are
    people's labels now, and the others may all be among what was accepted.
    """
    facts = audit.certificate or {}
    size = int(facts.get("size", 0))
    passed = [test for test in facts.get("tests", ()) if test["size"] == size]
    if not passed:
        return audit.max_error
    allowed = plan_of(audit).promise.broken_by(size, int(audit.plan["pool"])) - 1
    left = size - passed[0]["drawn"]
    return float(np.clip((allowed - passed[0]["errors"]) / max(left, 1), 1e-4, 1.0))


def describe(database: Database, project: Project) -> dict[str, Any] | None:
    """The current audit as plain values, for status and commands; None without one."""
    audit = current(database, project)
    if audit is None:
        return None
    states = database.audit_states(audit.id)
    done, wanted = progress(database, project, audit)
    found: dict[str, Any] = {
        "audit": audit.id,
        "status": audit.status,
        "version": database.version(project.key, audit.version).name,
        "max_error": audit.max_error,
        "confidence": audit.confidence,
        "of": audit.of,
        "pool": audit.plan["pool"],
        "reach": audit.plan["sizes"][-1],
        "audit_labels": wanted,
        "audit_labels_done": done,
        "may_be_accepted": (audit.certificate or {}).get("size", 0),
        "accepted": states.get(ACCEPTED, 0),
        "sentence": audit.reason or _sentence(audit, done, wanted),
    }
    found["checked"] = watched(database, project, audit) if audit.status in STANDING else None
    return found


def _sentence(audit: Audit, done: int, wanted: int) -> str:
    return (
        f"{done} of {wanted} audit labels are there; they come first in the queue. When all are "
        f"there it shows how many of the surest {audit.plan['sizes'][-1]} of {audit.plan['pool']} "
        f"tasks may be accepted with at most {audit.max_error:.1%} wrong; by P(right) some "
        f"{audit.plan.get('expected', 0)} are to be expected."
    )
