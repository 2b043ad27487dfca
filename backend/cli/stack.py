"""Commands that run Doubtless, connect it and examine it."""

from __future__ import annotations

import dataclasses
import json
import sys

import click
from rich.markup import escape

from backend import commands
from backend.cli.base import (
    as_started,
    command,
    console,
    problems,
    project_option,
    projects_of,
)
from backend.edges.database import Database
from backend.errors import BackendError
from backend.logs import set_up_logging
from backend.model_names import check_model_names
from backend.outputs import printer
from backend.settings import Settings


@command("up", "Run database, Valkey, web and workers in this terminal.")
@click.option("--port", type=int, help="Port of the web process (DOUBTLESS_PORT).")
@click.option("--workers", type=int, help="Worker processes (DOUBTLESS_WORKERS).")
@click.option("--home", help="Folder of all data (DOUBTLESS_HOME).")
def up(as_json: bool, port: int | None, workers: int | None, home: str | None) -> int:
    """Run database, Valkey, web and workers in this terminal; Ctrl-C stops all."""
    from backend.supervisor import Stack, run_stack

    settings = Settings.load(port=port, workers=workers, home=home)
    check_model_names(settings)
    set_up_logging(settings)
    if settings.workers == 0:
        problems.print(
            "[yellow]With 0 workers nothing is read or trained until `doubtless worker` runs "
            "beside it.[/yellow]",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    def announce(stack: Stack) -> int:
        _say_where(settings, as_json)
        stack.stopping.wait()
        return stack.exit_code

    # Standard output is for the JSON alone.
    say = printer(sys.stderr if as_json else sys.stdout)
    return run_stack(settings, web=True, workers=settings.workers, on_ready=announce, say=say)


def _say_where(settings: Settings, as_json: bool) -> None:
    from backend.dashboard.access import address

    page = address(settings)
    if as_json:
        facts = {
            "server": settings.reachable_url, "home": str(settings.home_path), "dashboard": page,
        }  # fmt: skip
        click.echo(json.dumps(facts))
        return
    console.print(
        f"Doubtless at [bold]{settings.reachable_url}[/bold], data in "
        f"{escape(str(settings.home_path))}"
    )
    console.print(f"Dashboard: {escape(page)}", highlight=False, soft_wrap=True)
    hint = as_started("`doubtless connect --url URL --token TOKEN --project ID`")
    console.print(f"Next: [bold]{escape(hint)}[/bold]", highlight=False, soft_wrap=True)


@command("serve", "Run the web process alone.")
@click.option("--port", type=int, help="Port to listen on (DOUBTLESS_PORT).")
@click.option("--host", help="Address to listen on (DOUBTLESS_HOST).")
def serve(as_json: bool, port: int | None, host: str | None) -> int:
    """Run the web process alone; workers and Redis run elsewhere (DOUBTLESS_REDIS_URL)."""
    from backend.web import serve as run

    settings = Settings.load(port=port, host=host)
    if as_json:
        click.echo(json.dumps({"server": settings.reachable_url}))
    return run(settings)


@command("worker", "Run one worker.")
def worker(as_json: bool) -> int:
    """Run one worker; start as many as there are cores to spare, on any machine."""
    from backend.worker import run

    settings = commands.with_running_stack(Settings.load())
    check_model_names(settings)
    if as_json:
        click.echo(json.dumps({"redis": bool(settings.redis_url)}))
    return run(settings)


@command("connect", "Connect a project, or repair its connection.")
@click.option("--url", help="Label Studio's address (DOUBTLESS_LABEL_STUDIO_URL).")
@click.option("--token", help="Its token, personal or legacy (DOUBTLESS_LABEL_STUDIO_TOKEN).")
@click.option("--project", "project_id", type=int, required=True, help="Label Studio project id.")
def connect(as_json: bool, url: str | None, token: str | None, project_id: int) -> int:
    """Connect a project, or repair its connection; safe to run again."""
    settings = Settings.load(label_studio_url=url, label_studio_token=token)
    _require(settings.label_studio_url, "--url", "the address of your Label Studio")
    _require(settings.label_studio_token, "--token", "Account & Settings in Label Studio has it")
    made = commands.connect_project(
        settings, settings.label_studio_url, settings.label_studio_token, project_id
    )
    if as_json:
        click.echo(
            json.dumps(
                {
                    "key": made.project.key,
                    "project": project_id,
                    "problems": made.project.problems,
                    **dataclasses.asdict(made.report),
                },
                default=str,
            )
        )
        return 0
    for step in made.report.steps:
        console.print(f"  [green]✓[/green] {escape(step)}", highlight=False)
    for problem in made.project.problems:
        console.print(f"  [yellow]![/yellow] {escape(problem)}", highlight=False)
    console.print(
        f"Connected project {project_id} as [bold]{made.project.key}[/bold]. Press “Label All "
        + escape(as_started("Tasks” in Label Studio; `doubtless status` shows what happens.")),
        highlight=False,
    )
    return 0


@command("doctor", "Say what is wrong in Label Studio or here, and the fix.")
@project_option
def doctor(as_json: bool, reference: str | None) -> int:
    """Look for what is wrong in Label Studio and here, and say the exact fix."""
    settings = commands.with_running_stack(Settings.load())
    database = Database(settings.database)
    found = [
        {"key": project.key, **dataclasses.asdict(finding)}
        for project in projects_of(database, reference)
        for finding in commands.diagnose(settings, project)
    ]
    bad = [f for f in found if not f["ok"]]
    if as_json:
        click.echo(json.dumps({"ok": not bad, "findings": found}, default=str))
        return 1 if bad else 0
    for item in found:
        mark = "[green]✓[/green]" if item["ok"] else "[red]✗[/red]"
        console.print(f"{mark} {escape(item['message'])}", highlight=False)
        if not item["ok"] and item["fix"]:
            console.print(f"    fix: {escape(as_started(item['fix']))}", highlight=False)
    console.print(f"{len(found) - len(bad)} of {len(found)} checks are fine.")
    return 1 if bad else 0


def _require(value: str, option: str, hint: str) -> None:
    if not value:
        raise BackendError(f"{option} is missing: {hint}")
