"""``doubtless accept``: from asking for an audit to accepting what it proved, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import click
from rich.console import Console

from backend import acceptance, acts, audits
from backend.cli.view import show_acceptance
from backend.edges.database import Database
from backend.errors import NotNowError
from backend.records import Audit, Project
from backend.settings import Settings
from model.acceptance.plan import Promise

Follow = Callable[..., None]
PROMISE = ("max_error", "confidence", "of", "by")  # options that say what is promised
_ASKED = "asked for by `doubtless accept {}`"


def accept(
    settings: Settings,
    project: Project,
    given: dict[str, Any],
    *,
    console: Console,
    as_json: bool,
    follow: Follow,
) -> None:
    """Do the next step, and say where everything stands.

    Args:
        settings: for the database.
        project: whose predictions.
        given: the command's own options.
        console: to print to.
        as_json: print JSON instead, and ask nothing.
        follow: shows a run's progress until it ends; takes kinds of runs and a time.

    Raises:
        BackendError: what was asked for cannot be done; the sentence says why and what can.
    """
    database = Database(settings.database)
    if given["undo"]:
        follow(("undo",), acts.undo_acceptance(database, project, _ASKED.format("--undo")))
    elif given["cancel"]:
        acts.cancel_audit(database, project, _ASKED.format("--cancel"))
    else:
        acceptance.review(database, project)
        _next_step(database, project, given, console, as_json, follow)
    found = audits.describe(database, project)
    if as_json:
        click.echo(json.dumps(found))
    elif found is None:
        console.print("No audit is under way, and nothing is accepted.")
    else:
        show_acceptance(console, found)


def _next_step(
    database: Database,
    project: Project,
    given: dict[str, Any],
    console: Console,
    as_json: bool,
    follow: Follow,
) -> None:
    audit = audits.current(database, project)
    if audit is not None and audit.status in audits.HOLDING:
        _refuse_another(audit, given)
    if audit is not None and audit.status in (audits.CERTIFIED, audits.ACCEPTING):
        if given["yes"] or (not as_json and _confirmed(console, audit)):
            follow(("accept",), acts.accept(database, project, _ASKED.format("--yes")))
        return
    if audit is not None and audit.status == audits.OPEN:
        return
    same = audit is not None and audit.version == project.live_version
    if same and not given["again"]:
        return
    promise = Promise(given["max_error"], given["confidence"], given["of"])
    asked = {name: given[name] for name in ("audit", "by", "blind")}
    # Seconds, with 100,000 tasks.
    with nullcontext() if as_json else console.status("planning the audit"):
        acceptance.propose(database, project, promise, **asked)


def _refuse_another(audit: Audit, given: dict[str, Any]) -> None:
    """Another promise than that of the audit must not be taken for it."""
    stands = dict(
        zip(
            PROMISE, (audit.max_error, audit.confidence, audit.of, audits.by_of(audit)), strict=True
        )
    )
    for name in given["named"]:
        if given[name] != stands[name]:
            option = f"--{name.replace('_', '-')}"
            raise NotNowError(
                f"an audit with {option} {stands[name]} is under way, so {option} {given[name]} "
                "cannot be asked for now; go on with that one (`doubtless accept` without the "
                "option), or give it up first (`doubtless accept --cancel`)"
            )


def _confirmed(console: Console, audit: Audit) -> bool:
    console.print(audit.reason, highlight=False, markup=False)
    return click.confirm("Make annotations of these predictions in Label Studio?", default=False)
