"""What every subcommand has: ``--json``, errors as one sentence, the project, and waiting."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backend import commands
from backend.edges.database import Database
from backend.errors import BackendError
from backend.records import Project
from backend.settings import Settings, unknown_variables
from model.errors import ModelError

console = Console()
problems = Console(stderr=True)
COMMAND_VARIABLE = "DOUBTLESS_COMMAND"


def as_started(text: str) -> str:
    """A text whose hints, in backquotes, name the command as it was started: `run` says how."""
    return text.replace("`doubtless ", f"`{os.environ.get(COMMAND_VARIABLE) or 'doubtless'} ")


def command(name: str, short_help: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand with ``--json``; what was refused becomes one sentence and exit code 1."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            for sentence in unknown_variables():
                problems.print(
                    f"[yellow]{escape(sentence)}[/yellow]", highlight=False, soft_wrap=True
                )
            try:
                code = function(*args, as_json=as_json, **kwargs)
            except (BackendError, ModelError) as exc:
                message = as_started(str(exc))
                if as_json:
                    click.echo(json.dumps({"error": message}))
                else:
                    said = f"[red]doubtless {name}:[/red] {escape(message)}"
                    problems.print(said, highlight=False, soft_wrap=True)
                sys.exit(1)
            except KeyboardInterrupt:
                sys.exit(130)
            if isinstance(code, int):
                sys.exit(code)

        option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        made: click.Command = main.command(name, short_help=short_help)(option(run))
        return made

    return decorate


project_option = click.option(
    "--project", "reference", help="Key or Label Studio id; not needed when there is only one."
)
wait_option = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until it is live."
)
timeout_option = click.option(
    "--timeout", default=3600.0, show_default=True, help="Seconds to wait."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="doubtless")
def main() -> None:
    """Pre-annotates images in Label Studio and says how far each can be trusted.

    Start with `up`, then `connect` a project; `status` shows what happens from then on.
    """


def projects_of(database: Database, reference: str | None) -> list[Project]:
    """The project that is named, or all."""
    if reference is None and len(database.projects()) > 1:
        return database.projects()
    return [commands.find_project(database, reference)]


def project_of(settings: Settings, reference: str | None) -> Project:
    """The project that is named, or the only one."""
    return commands.find_project(Database(settings.database), reference)


def follow(
    settings: Settings,
    project: Project,
    kinds: tuple[str, ...],
    since: float,
    as_json: bool,
    wait: bool,
    timeout: float,
    *,
    quiet: bool = False,
) -> None:
    """Show a run's progress until it ends."""
    if not wait:
        if as_json:
            click.echo(json.dumps({"status": "queued"}))
        elif not quiet:
            said = as_started("Queued; `doubtless status` shows how far it is.")
            console.print(said, highlight=False, markup=False, soft_wrap=True)
        return
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=problems,
        disable=as_json or quiet,
    )  # fmt: skip
    with bar:
        task = bar.add_task("waiting for a worker", total=1.0)
        run = commands.wait_for(
            settings, project, kinds, since, timeout_s=timeout,
            show=lambda part, what: bar.update(task, completed=part, description=what),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(run), default=str))
    elif not quiet:
        console.print(run.stage, highlight=False, markup=False)
