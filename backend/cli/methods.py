"""``doubtless methods``: which estimator and acquisition rule a project uses, and other ones."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from backend import acts, methods
from backend.edges.database import Database
from backend.records import Project
from backend.settings import Settings

REASON = "another {} was chosen with `doubtless methods`"


def show_or_change(
    settings: Settings,
    project: Project,
    given: dict[str, Any],
    *,
    console: Console,
    as_json: bool,
) -> None:
    """Change what is given, and say what is in force.

    Args:
        settings: for the database, and what the installation uses.
        project: whose.
        given: the command's own options.
        console: to print to.
        as_json: print JSON instead.

    Raises:
        BackendError: a name that the project cannot use; the sentence has those it can.
    """
    database = Database(settings.database)
    names = (methods.ESTIMATOR, methods.ACQUISITION)
    wanted = {what: given[what] for what in names if given[what] is not None}
    said = None
    if wanted:
        said = acts.change_methods(
            settings, database, project, wanted,
            now=given["now"], reason=REASON.format(" and ".join(wanted)),
        )  # fmt: skip
    project = database.project(project.key)
    live = None
    if project.live_version is not None:
        live = database.version(project.key, project.live_version)
    state, known = methods.in_force(settings, database, project, live), methods.options(project)
    if as_json:
        click.echo(json.dumps({"said": said, "in_force": state, "options": known}))
        return
    if said is not None:
        console.print(said, highlight=False, markup=False)
        return
    for what in names:
        table = Table("", what, "", title=None)
        for option in known[what]:
            mark = "→" if option["name"] == state[what]["chosen"] else ""
            table.add_row(mark, option["name"], option["what"])
        console.print(table)
        live_one = state[what]["live"]
        if live_one not in (None, state[what]["chosen"]):
            console.print(f"  the live version has {live_one}", highlight=False, markup=False)
    console.print(
        "Change with --estimator NAME or --acquisition NAME; 'default' is the installation's.",
        highlight=False,
    )
