"""Commands that change what a project does."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from backend import acts, commands
from backend.audits import BY, TASKS
from backend.cli.base import (
    command,
    console,
    follow,
    project_of,
    project_option,
    timeout_option,
    wait_option,
)
from backend.edges.database import Database
from backend.settings import Settings
from model.acceptance.plan import ACCEPTED, OF


@command("train", "Train now, whatever the retrain policy says.")
@project_option
@wait_option
@timeout_option
def train(as_json: bool, reference: str | None, wait: bool, timeout: float) -> None:
    """Train now, whatever the retrain policy says."""
    settings = Settings.load()
    project = project_of(settings, reference)
    since = commands.train(settings, project, "asked for by `doubtless train`")
    follow(settings, project, ("train",), since, as_json, wait, timeout)


@command("rollback", "Publish the model of an earlier version again.")
@click.argument("version")
@project_option
@wait_option
@timeout_option
def rollback(
    as_json: bool, version: str, reference: str | None, wait: bool, timeout: float
) -> None:
    """Publish the model of an earlier VERSION again, under a new number."""
    settings = Settings.load()
    project = project_of(settings, reference)
    source = acts.find_version(Database(settings.database), project, version)
    since = commands.republish(settings, project, source, f"rolled back to {source.name}")
    follow(settings, project, ("republish",), since, as_json, wait, timeout)


@command("methods", "Show or change a project's estimator and acquisition rule.")
@project_option
@click.option(
    "--estimator",
    metavar="NAME",
    help="Uncertainty estimator of the next versions; 'default' is the installation's.",
)
@click.option(
    "--acquisition",
    metavar="NAME",
    help="Rule that picks what to label next; 'default' is the installation's.",
)
@click.option("--now", is_flag=True, help="Do not wait for the next version: train, or reorder.")
def methods(as_json: bool, reference: str | None, **given: Any) -> None:
    """Show or change how a project measures doubt and picks what to label next."""
    from backend.cli.methods import show_or_change

    settings = Settings.load()
    project = project_of(settings, reference)
    running = commands.with_running_stack(settings)
    show_or_change(running, project, given, console=console, as_json=as_json)


@command("accept", "Accept predictions unseen, as far as an audit proves them.")
@project_option
@click.option("--max-error", default=0.02, show_default=True, help="Largest share of wrong labels.")
@click.option(
    "--confidence", default=0.95, show_default=True, help="Confidence with which that is proved."
)
@click.option(
    "--of",
    type=click.Choice(OF),
    default=ACCEPTED,
    show_default=True,
    help="The share among the accepted labels; of all tasks: what is wrong in the end if people "
    "do the rest; or that on average, without a confidence.",
)
@click.option(
    "--by",
    type=click.Choice(BY),
    default=TASKS,
    show_default=True,
    help="Count wrong tasks; those of each predicted class by itself; or, with boxes, regions.",
)
@click.option(
    "--audit",
    type=int,
    help="Labels to check (of each class; regions); without, as many as pay best.",
)
@click.option(
    "--blind/--shown",
    default=None,
    help="Hide what is predicted from whoever checks, or show it; without: hidden but for boxes.",
)
@click.option("--again", is_flag=True, help="Plan a new audit after one that proved nothing.")
@click.option("--cancel", is_flag=True, help="Give up an audit that is under way.")
@click.option("--undo", is_flag=True, help="Take accepted labels back out of Label Studio.")
@click.option("--yes", is_flag=True, help="Accept without asking.")
@wait_option
@timeout_option
def accept(as_json: bool, reference: str | None, wait: bool, timeout: float, **given: Any) -> None:
    """Accept predictions unseen, as many as an audit proves to be right.

    Run it once to have an audit put in front of the queue, again when its labels are there: it
    says what was proved, and accepts it.
    """
    from backend.cli.accepting import PROMISE
    from backend.cli.accepting import accept as run

    given["named"] = [
        name for name in PROMISE
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]  # fmt: skip
    settings = Settings.load()
    project = project_of(settings, reference)
    watch = partial(
        follow, settings, project, as_json=False, wait=wait, timeout=timeout, quiet=as_json
    )
    run(settings, project, given, console=console, as_json=as_json, follow=watch)
