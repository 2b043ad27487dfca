"""The command ``doubtless``: each subcommand prints for people, or JSON with ``--json``."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backend import acts, commands
from backend.again import NOTHING, ask_again
from backend.annotators import people, why_unknown
from backend.audits import BY, TASKS
from backend.cli_simulate import simulate
from backend.cli_view import answer, number, show_project
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.errors import BackendError
from backend.logs import set_up_logging
from backend.model_names import check_model_names
from backend.records import Project
from backend.settings import Settings
from backend.triage import doubted_labels
from model.acceptance.plan import ACCEPTED, OF
from model.errors import ModelError

console = Console()
problems = Console(stderr=True)


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand with ``--json``; what was refused becomes one sentence and exit code 1."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            try:
                code = function(*args, as_json=as_json, **kwargs)
            except (BackendError, ModelError) as exc:
                if as_json:
                    click.echo(json.dumps({"error": str(exc)}))
                else:
                    said = f"[red]doubtless {name}:[/red] {escape(str(exc))}"
                    problems.print(said, highlight=False, soft_wrap=True)
                sys.exit(1)
            except KeyboardInterrupt:
                sys.exit(130)
            if isinstance(code, int):
                sys.exit(code)

        option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        made: click.Command = main.command(name)(option(run))
        return made

    return decorate


project_option = click.option(
    "--project", "reference", help="Key or Label Studio id; not needed when there is only one."
)
wait_option = click.option("--wait/--no-wait", default=True, help="Wait until it is live.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="doubtless")
def main() -> None:
    """Pre-annotates images in Label Studio and says how far each can be trusted."""


@command("up")
@click.option("--port", type=int, help="Port of the web process (DOUBTLESS_PORT).")
@click.option("--workers", type=int, help="Worker processes (DOUBTLESS_WORKERS).")
@click.option("--home", help="Folder of all data (DOUBTLESS_HOME).")
def up(as_json: bool, port: int | None, workers: int | None, home: str | None) -> int:
    """Run database, Valkey, web and workers in this terminal; Ctrl-C stops all."""
    from backend.dashboard.access import address
    from backend.supervisor import run_stack

    settings = Settings.load(port=port, workers=workers, home=home)
    check_model_names(settings)
    set_up_logging(settings)
    page = address(settings)
    if as_json:
        facts = {
            "server": settings.reachable_url, "home": str(settings.home_path), "dashboard": page,
        }  # fmt: skip
        click.echo(json.dumps(facts))
    else:
        console.print(
            f"Doubtless at [bold]{settings.reachable_url}[/bold], data in "
            f"{escape(str(settings.home_path))}"
        )
        console.print(f"Dashboard: {escape(page)}", highlight=False, soft_wrap=True)
        console.print(
            "Next: [bold]doubtless connect --url URL --token TOKEN --project ID[/bold]",
            highlight=False,
        )
    return run_stack(settings, web=True, workers=settings.workers)


@command("serve")
@click.option("--port", type=int, help="Port to listen on (DOUBTLESS_PORT).")
@click.option("--host", help="Address to listen on (DOUBTLESS_HOST).")
def serve(as_json: bool, port: int | None, host: str | None) -> int:
    """Run the web process alone; workers and Redis run elsewhere (DOUBTLESS_REDIS_URL)."""
    from backend.web import serve as run

    settings = Settings.load(port=port, host=host)
    if as_json:
        click.echo(json.dumps({"server": settings.reachable_url}))
    return run(settings)


@command("worker")
def worker(as_json: bool) -> int:
    """Run one worker; start as many as there are cores to spare, on any machine."""
    from backend.worker import run

    settings = commands.with_running_stack(Settings.load())
    check_model_names(settings)
    if as_json:
        click.echo(json.dumps({"redis": bool(settings.redis_url)}))
    return run(settings)


@command("connect")
@click.option("--url", help="Label Studio's address (DOUBTLESS_LABEL_STUDIO_URL).")
@click.option("--token", help="Personal access token or legacy token.")
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
        "Tasks” in Label Studio; `doubtless status` shows what happens.",
        highlight=False,
    )
    return 0


@command("doctor")
@project_option
def doctor(as_json: bool, reference: str | None) -> int:
    """Look for what is wrong in Label Studio and here, and say the exact fix."""
    settings = commands.with_running_stack(Settings.load())
    database = Database(settings.database)
    found = [
        {"key": project.key, **dataclasses.asdict(finding)}
        for project in _projects(database, reference)
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
            console.print(f"    fix: {escape(item['fix'])}", highlight=False)
    console.print(f"{len(found) - len(bad)} of {len(found)} checks are fine.")
    return 1 if bad else 0


@command("status")
@project_option
def status(as_json: bool, reference: str | None) -> None:
    """Show the queue, the running job, the live version, labels and accuracy."""
    state = commands.status(Settings.load(), reference)
    if as_json:
        click.echo(json.dumps(state, default=str))
        return
    queue = state["queue"]
    waiting = sum(queue["waiting"].values())
    console.print(f"Queue: {queue['state']}, {queue['workers']} workers, {waiting} jobs waiting")
    if not state["projects"]:
        console.print("No project is connected: doubtless connect --url URL --token T --project ID")
    for p in state["projects"]:
        show_project(console, p)


@command("dashboard")
@click.option(
    "--share", is_flag=True, help="The address for others: it shows, and changes nothing."
)
def dashboard(as_json: bool, share: bool) -> None:
    """Print the dashboard's address, with the token that opens it."""
    from backend.dashboard.access import address
    from backend.supervisor import answers

    settings = commands.with_running_stack(Settings.load())
    page = address(settings, share=share)
    if as_json:
        click.echo(json.dumps({"address": page, "read_only": share}))
        return
    console.print(page, highlight=False, markup=False, soft_wrap=True)
    if not answers(page.partition("/dashboard#")[0] + "/health"):
        problems.print(
            "Nothing answers there yet; start `doubtless up` first.",
            highlight=False,
            soft_wrap=True,
        )


@command("train")
@project_option
@wait_option
@click.option("--timeout", default=3600.0, help="Seconds to wait.")
def train(as_json: bool, reference: str | None, wait: bool, timeout: float) -> None:
    """Train now, whatever the retrain policy says."""
    settings = Settings.load()
    project = _project(settings, reference)
    since = commands.train(settings, project, "asked for by `doubtless train`")
    _follow(settings, project, ("train",), since, as_json, wait, timeout)


@command("score")
@project_option
@click.option("--out", type=click.Path(path_type=Path), help="Write a CSV file.")
@click.option("--publish", is_flag=True, help="Score the pool again and publish it first.")
@click.option("--limit", default=20, help="Rows to print.")
@click.option("--timeout", default=3600.0, help="Seconds to wait.")
def score(
    as_json: bool,
    reference: str | None,
    out: Path | None,
    publish: bool,
    limit: int,
    timeout: float,
) -> None:
    """Show what the live version says of every task, most doubtful first."""
    settings = Settings.load()
    project = _project(settings, reference)
    if publish:
        database = Database(settings.database)
        if project.live_version is None:
            raise BackendError(f"project {project.key} has no live version yet")
        live = database.version(project.key, project.live_version)
        since = commands.republish(settings, project, live, f"{live.name} scored again")
        _follow(settings, project, ("republish",), since, False, True, timeout, quiet=as_json)
        project = database.project(project.key)
    rows = commands.scores(settings, project)
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["task"])
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
                for row in rows
            )
    if as_json:
        click.echo(json.dumps(rows))
        return
    if out is not None:
        console.print(f"{len(rows)} rows written to {out}", markup=False)
        return
    table = Table("task", "prediction", "P(right)", "score", "total (nats)", "label")
    for row in rows[:limit]:
        table.add_row(
            str(row["task"]), escape(answer(row["prediction"], "-")), number(row["p_right"]),
            number(row["score"], 4), number(row["total"]), escape(answer(row["label"], "")),
        )  # fmt: skip
    console.print(table)


@command("errors")
@project_option
@click.option("--limit", default=20, show_default=True, help="Labels to print.")
def errors(as_json: bool, reference: str | None, limit: int) -> None:
    """Show labels that the model, not fitted on them, contradicts: worth a second look."""
    settings = Settings.load()
    project = _project(settings, reference)
    found = doubted_labels(Database(settings.database), project, limit)
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        console.print("No label is more probably wrong than right.")
        return
    table = Table("task", "label", "P(label right)", "what speaks against it")
    for row in found:
        table.add_row(
            str(row["task"]), escape(answer(row["label"], "-")), number(row["p_right"]),
            escape(row["why"]),
        )  # fmt: skip
    console.print(table)
    console.print("In Label Studio they are in the tab “Labels to check”.")


@command("annotators")
@project_option
@click.option(
    "--again", type=click.IntRange(min=1), metavar="N",
    help="Show the N labelled tasks most worth another label instead, and whom to ask.",
)  # fmt: skip
def annotators(as_json: bool, reference: str | None, again: int | None) -> None:
    """Show how people agree on tasks they share, and how often each of them is right."""
    settings = Settings.load()
    project = _project(settings, reference)
    database = Database(settings.database)
    found = people(database, project.key)
    wanted = None if again is None else ask_again(database, project, again)
    if as_json:
        click.echo(json.dumps(found if wanted is None else wanted))
        return
    if not found:
        console.print(why_unknown(parse_config(project.label_config).spec), highlight=False)
        return
    if wanted is not None:
        _print_again(wanted)
        return
    table = Table("annotator", "labels", "shared", "agreement", "kappa", "quality", "95 % interval")
    for row in found:
        interval = "-" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
        table.add_row(
            str(row["id"]), str(row["labels"]), str(row["shared"]), number(row["agreement"]),
            number(row["kappa"]), number(row["quality"]), interval,
        )  # fmt: skip
    console.print(table)
    console.print(
        "Quality: how probably a label is right. Tasks where people differ are among `doubtless "
        "errors` if their label is more probably wrong than right.",
        highlight=False,
    )


def _print_again(wanted: list[dict[str, Any]]) -> None:
    if not wanted:
        console.print(NOTHING, highlight=False)
        return
    table = Table("task", "labels", "probably", "P(right)", "ask")
    for row in wanted:
        table.add_row(
            str(row["task"]), escape(", ".join(row["labels"])), escape(row["label"]),
            number(row["p_right"]), "anyone else" if row["ask"] is None else f"user {row['ask']}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "P(right): of the label that people and model together find most probable. Ask: the best "
        "of those who have not labelled the task.",
        highlight=False,
    )


@command("versions")
@project_option
def versions(as_json: bool, reference: str | None) -> None:
    """List versions: what they were trained on, how good they are, and which is live."""
    settings = Settings.load()
    project = _project(settings, reference)
    found = Database(settings.database).versions(project.key)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(v) for v in found], default=str))
        return
    table = Table("version", "status", "labels", "accuracy", "ECE", "made", "reason")
    for v in found:
        table.add_row(
            v.name, v.status, str(v.labels), number(v.metrics.get("random_accuracy")),
            number(v.metrics.get("ece")),
            datetime.fromtimestamp(v.created_at).strftime("%m-%d %H:%M:%S"), escape(v.reason),
        )  # fmt: skip
    console.print(table)


@command("rollback")
@click.argument("version")
@project_option
@wait_option
@click.option("--timeout", default=3600.0, help="Seconds to wait.")
def rollback(
    as_json: bool, version: str, reference: str | None, wait: bool, timeout: float
) -> None:
    """Publish the model of an earlier VERSION again, under a new number."""
    settings = Settings.load()
    project = _project(settings, reference)
    source = acts.find_version(Database(settings.database), project, version)
    since = commands.republish(settings, project, source, f"rolled back to {source.name}")
    _follow(settings, project, ("republish",), since, as_json, wait, timeout)


@command("accept")
@project_option
@click.option("--max-error", default=0.02, show_default=True, help="Largest share of wrong labels.")
@click.option("--confidence", default=0.95, show_default=True, help="With which that is proved.")
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
@click.option("--timeout", default=3600.0, help="Seconds to wait.")
def accept(as_json: bool, reference: str | None, wait: bool, timeout: float, **given: Any) -> None:
    """Accept predictions unseen, as many as an audit proves to be right.

    Run it once to have an audit put in front of the queue, again when its labels are there: it
    says what was proved, and accepts it.
    """
    from backend.cli_accept import accept as run

    settings = Settings.load()
    project = _project(settings, reference)
    follow = partial(
        _follow, settings, project, as_json=False, wait=wait, timeout=timeout, quiet=as_json
    )
    run(settings, project, given, console=console, as_json=as_json, follow=follow)


def _projects(database: Database, reference: str | None) -> list[Project]:
    if reference is None and len(database.projects()) > 1:
        return database.projects()
    return [commands.find_project(database, reference)]


def _project(settings: Settings, reference: str | None) -> Project:
    return commands.find_project(Database(settings.database), reference)


def _require(value: str, option: str, hint: str) -> None:
    if not value:
        raise BackendError(f"{option} is missing: {hint}")


def _follow(
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
            console.print("Queued; `doubtless status` shows how far it is.")
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


command("simulate")(simulate)


if __name__ == "__main__":
    main(prog_name="doubtless")
