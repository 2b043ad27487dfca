"""What may be accepted unseen: audits from being asked for to what they prove, by the facts alone.

Nothing here talks to Label Studio: what has to be done there is done by jobs (`backend.jobs.audit`,
`backend.jobs.accept`), which this asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backend.audit_plans import OpenTask, by_class, of_regions, of_tasks, open_tasks
from backend.audits import (
    ACCEPTED,
    BY,
    CANCELLED,
    CERTIFIED,
    CLASSES,
    DRAWN,
    HOLDING,
    OPEN,
    REGIONS,
    TASKS,
    WITHDRAWN,
    progress,
    watched,
)
from backend.certificates import conclude
from backend.checks import misplaced
from backend.edges.database import Database
from backend.edges.labels.boxes import decode_prediction
from backend.edges.labels.config import parse_config
from backend.errors import NotNowError
from backend.records import Audit, Project, Version
from model.acceptance.certificate import confidence_of_attempt
from model.acceptance.plan import EXPECTED, Promise
from model.errors import UnknownNameError


def propose(
    database: Database,
    project: Project,
    promise: Promise,
    *,
    by: str = TASKS,
    audit: int | None = None,
    reach: float | None = None,
    blind: bool | None = None,
) -> Audit:
    """Plan an audit of what the live version says, draw it, and have it put in front of the queue.

    Args:
        database: the facts.
        project: the project.
        promise: what shall be true of what is accepted.
        by: what it counts: ``tasks``; ``classes``: the tasks of each predicted class by itself;
            ``regions``: of images that are accepted whole.
        audit: labels to spend: tasks, tasks of each class, or regions; None leaves that to the
            plan.
        reach: largest share of the pool that may be accepted; None leaves it to the plan.
        blind: whoever checks does not see what is predicted, and so cannot agree too readily. None:
            for choices, where it costs a click, and not for boxes.

    Raises:
        NotNowError: there is nothing to accept, no audit would pay, or another one is under way.
        ModelError: an `audit` or `reach` that cannot be.
        UnknownNameError: no such `by`.
    """
    _refuse_other_kinds(project, by)
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
    pool = open_tasks(database, project, live.number)
    if not pool:
        raise NotNowError("every readable task is labelled or about to be; nothing is left over")
    seed = live.number * 1000 + len(before)
    if by == CLASSES:
        planned = by_class(pool, at_once, audit=audit, seed=seed)
    else:
        plan = of_regions if by == REGIONS else of_tasks
        planned = plan(pool, at_once, audit=audit, reach=reach, seed=seed)
    if planned is None:
        raise NotNowError(_why_none(live, promise, by, pool))
    if blind is None:
        blind = REGIONS not in ways_to_count(project)
    number = database.add_audit(
        {
            "project": project.key,
            "version": live.number,
            "attempt": len(before),
            "status": OPEN,
            "max_error": promise.max_error,
            "confidence": promise.confidence,
            "of": promise.of,
            "plan": {**planned.facts, "blind": blind},
        },
        planned.items,
    )
    if number is None:
        raise NotNowError("another audit of the same version was asked for at this moment")
    wanted = sum(item.state == DRAWN for item in planned.items)
    database.add_run(project.key, "audit", reason=f"an audit of {wanted} labels")
    return next(a for a in database.audits(project.key) if a.id == number)


def ways_to_count(project: Project) -> list[str]:
    """Those of `BY` that a project's kind has."""
    spec = parse_config(project.label_config).spec
    if spec is None:
        return [TASKS]
    if spec.boxes:
        return [TASKS, REGIONS]
    return [TASKS] if spec.multiple else [TASKS, CLASSES]


def _refuse_other_kinds(project: Project, by: str) -> None:
    if by not in BY:
        raise UnknownNameError("way to count", by, BY)
    if by not in ways_to_count(project):
        needs = {CLASSES: "one choice an image", REGIONS: "boxes"}[by]
        raise NotNowError(
            f"counting by {by} needs a project with {needs}; this one has: "
            f"{', '.join(ways_to_count(project))}"
        )


def _why_none(live: Version, promise: Promise, by: str, pool: Sequence[OpenTask]) -> str:
    p_right = np.array([task.p_right for task in pool])
    if by == REGIONS:
        found = [decode_prediction(task.said) for task in pool]
        p_right = np.array([r.p for one in found if one is not None for r in one.regions])
        p_right = -np.sort(-p_right)
    if not len(p_right):
        return f"{live.name} shows no region on any open image; label more images first"
    if by == CLASSES:
        counts = sorted(Counter(task.said for task in pool).values())
        return (
            f"no audit of a single class would pay: the {len(counts)} classes that {live.name} "
            f"predicts have {counts[0]} to {counts[-1]} open tasks each, too few for labels of "
            "their own or too doubtful; one promise for all (--by tasks) needs fewer labels"
        )
    what = "regions" if by == REGIONS else "predictions"
    sure = int(np.ceil(0.1 * len(p_right)))
    return (
        f"no audit would pay: {live.name} itself expects {np.mean(1 - p_right):.1%} of its "
        f"{len(p_right)} {what} to be wrong, and {np.mean(1 - p_right[:sure]):.1%} of its "
        f"surest {sure}, where at most {promise.max_error:.1%} may be. Label more, or allow "
        "more errors with --max-error; --audit N asks for an audit of N labels all the same."
    )


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
            conclusion = conclude(database, project, audit)
        elif audit.status == ACCEPTED:
            conclusion = _watch(database, project, audit)
        if conclusion is not None:
            status, reason = conclusion
            if database.update_audit(
                audit.id, only_if=(audit.status,), status=status, reason=reason
            ):
                said.append(reason)
    _keep_order(database, project)
    return said


def _keep_order(database: Database, project: Project) -> None:
    """Have the queue put in order if audits want it otherwise, whatever that comes from.

    An audit has ended; a process ended before it had asked for this; or a label of a task that was
    checked was deleted, so that the task is open again.
    """
    live = project.live_version
    if live is None:
        return
    waits = any(run.kind == "audit" for run in database.runs(project.key))
    if not waits and misplaced(database, project, live):
        database.add_run(project.key, "audit", reason="the queue is not as audits want it")


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


def _watch(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    facts = watched(database, project, audit)
    if facts["evidence"] < 1.0 / (1.0 - audit.confidence):
        return None
    return WITHDRAWN, (
        f"{facts['wrong']} of {facts['checked']} accepted labels that were checked are wrong, too "
        f"many for at most {facts['max_error']:.1%}; `doubtless accept --undo` takes them back"
    )
