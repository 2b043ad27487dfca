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

from backend.audits import (
    ACCEPTED,
    CANCELLED,
    CERTIFIED,
    DRAWN,
    HOLDING,
    OPEN,
    REFUSED,
    STANDING,
    WATCHED,
    WITHDRAWN,
    parts_of,
    progress,
    verdicts,
    watched,
)
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.errors import NotNowError
from backend.records import Audit, AuditItem, Project
from model.acceptance.by_class import ClassPlan, plan_by_class
from model.acceptance.certificate import Certificate, certify, confidence_of_attempt
from model.acceptance.plan import ACCEPTED as OF_ACCEPTED
from model.acceptance.plan import EXPECTED, AuditPlan, Promise, plan_audit

# Classes named in a sentence; the others are counted.
NAMED = 5


def propose(
    database: Database,
    project: Project,
    promise: Promise,
    *,
    audit: int | None = None,
    reach: float | None = None,
    per_class: bool = False,
) -> Audit:
    """Plan an audit of what the live version says, draw it, and have it put in front of the queue.

    Args:
        database: the facts.
        project: the project.
        promise: what shall be true of what is accepted.
        audit: labels to spend, with `per_class` on each class; None leaves that to the plan.
        reach: largest share of the pool that may be accepted; None leaves it to the plan.
        per_class: the promise shall hold for each predicted class by itself.

    Raises:
        NotNowError: there is nothing to accept, no audit would pay, or another one is under way.
        ModelError: an `audit` or `reach` that cannot be.
    """
    spec = parse_config(project.label_config).spec
    if per_class and (spec is None or spec.boxes or spec.multiple):
        raise NotNowError(
            "a promise for each class needs a project with one choice an image; "
            "make one promise for all instead"
        )
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
    before = [a for a in database.audits(project.key) if a.version in same]
    if promise.of == EXPECTED and any(a.of == EXPECTED for a in before):
        raise NotNowError(
            f"{live.name} was audited for an expected share already; to try until it passes would "
            "break it. Label more and let a new version be trained, or ask for a proof with "
            "--of all"
        )
    at_once = replace(promise, confidence=confidence_of_attempt(promise.confidence, len(before)))
    pool = _pool(database, project, live.number)
    if not pool:
        raise NotNowError("every readable task is labelled or about to be; nothing is left over")
    p_right = np.array([p for p, _, _ in pool])
    if per_class:
        plans = plan_by_class(p_right, [said for _, _, said in pool], at_once, audit=audit)
    else:
        try_size = None if audit is None else min(audit, len(pool))
        whole = plan_audit(p_right, at_once, audit=try_size, reach=reach)
        plans = [] if whole is None else [ClassPlan("", np.arange(len(pool)), whole)]
    if not plans:
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
            "attempt": len(before),
            "status": OPEN,
            "max_error": promise.max_error,
            "confidence": promise.confidence,
            "of": promise.of,
            "plan": _facts(plans, len(pool), per_class),
        },
        _items(pool, plans, seed=live.number * 1000 + len(before)),
    )
    if number is None:
        raise NotNowError("another audit of the same version was asked for at this moment")
    made = next(a for a in database.audits(project.key) if a.id == number)
    database.add_run(project.key, "audit", reason=f"an audit of {made.plan['audit']} labels")
    return made


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


def _facts(plans: Sequence[ClassPlan], pool: int, per_class: bool) -> dict[str, Any]:
    """Plans as they are kept: `backend.audits.parts_of` reads them."""

    def one(plan: AuditPlan) -> dict[str, Any]:
        return {
            "pool": plan.pool,
            "sizes": list(plan.sizes),
            "audit": plan.audit,
            "confidence": plan.promise.confidence,
            "expected": round(plan.expected),
        }

    if not per_class:
        return one(plans[0].plan)
    parts = [{"name": part.name, **one(part.plan)} for part in plans]
    sums = {name: sum(part[name] for part in parts) for name in ("audit", "expected")}
    return {"pool": pool, **sums, "parts": parts}


def _items(
    pool: Sequence[tuple[float, int, str]], plans: Sequence[ClassPlan], *, seed: int
) -> list[AuditItem]:
    found: list[AuditItem] = []
    for number, part in enumerate(plans):
        drawn = set(part.plan.draw([seed, number]).tolist())
        start = len(found)
        for rank, row in enumerate(part.rows[: part.plan.reach].tolist()):
            _, task, said = pool[row]
            state = DRAWN if rank in drawn else ""
            found.append(AuditItem(task_id=task, rank=start + rank, state=state, said=said))
    return found


def _verdict(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    items = database.audit_items(audit.id, state=DRAWN)
    judged = verdicts(database, project, items)
    if len(judged) < len(items):
        return None
    found = {}
    for part in parts_of(audit):
        ranks = np.array(sorted(r for r in judged if part.start <= r < part.stop), np.int64)
        wrong: NDArray[np.bool_] = np.array([judged[int(rank)] for rank in ranks], bool)
        found[part.name] = certify(part.plan, ranks - part.start, wrong)
    size = sum(one.size for one in found.values())
    if None in found:
        facts, sentence = found[None].facts(), found[None].sentence
    else:
        sentence = _sentence_by_class(audit, found)
        parts = [{"name": name, **one.facts()} for name, one in found.items()]
        facts = {"size": size, "sentence": sentence, "parts": parts}
    database.update_audit(audit.id, certificate=facts)
    return (CERTIFIED if size else REFUSED), sentence


def _sentence_by_class(audit: Audit, found: Mapping[str | None, Certificate]) -> str:
    proved = {name: one for name, one in found.items() if one.size}
    refused = [str(name) for name in found if name not in proved]
    if not proved:
        return (
            f"Nothing may be accepted of any of the {len(found)} classes that were audited. More "
            "labels teach the model more than another audit would."
        )
    most = sorted(proved.items(), key=lambda item: -item[1].size)
    named = [f"{one.size} of {one.plan.pool} {name}" for name, one in most[:NAMED]]
    if len(most) > NAMED:
        rest = sum(one.size for _, one in most[NAMED:])
        named.append(f"{rest} of {len(most) - NAMED} other classes")
    sure = "on average" if audit.of == EXPECTED else f"with {100 * audit.confidence:g} % confidence"
    of = "" if audit.of == OF_ACCEPTED else " of all"
    said = (
        f"{sum(one.size for one in proved.values())} of {audit.plan['pool']} may be accepted, of "
        f"each class at most {100 * audit.max_error:g} %{of} wrong, {sure} for all of them "
        f"together: {', '.join(named)}."
    )
    if refused:
        more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        said += f" Nothing of {', '.join(refused[:NAMED])}{more}."
    return said


def _watch(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    facts = watched(database, project, audit)
    if facts["evidence"] < 1.0 / (1.0 - audit.confidence):
        return None
    return WITHDRAWN, (
        f"{facts['wrong']} of {facts['checked']} accepted labels that were checked are wrong, too "
        f"many for at most {facts['max_error']:.1%}; `doubtless accept --undo` takes them back"
    )
