"""Commands that show what there is."""

from __future__ import annotations

import csv
import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from backend import commands
from backend.again import NOTHING, ask_again
from backend.annotators import UNKNOWN, meaning, people
from backend.cli.base import (
    as_started,
    command,
    console,
    follow,
    problems,
    project_of,
    project_option,
    timeout_option,
)
from backend.cli.view import answer, number, show_project
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.errors import BackendError
from backend.settings import Settings
from backend.triage import doubted_labels


@command("status", "Show the queue, the live version, labels and accuracy.")
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
        hint = "No project is connected: `doubtless connect --url URL --token TOKEN --project ID`"
        console.print(as_started(hint), highlight=False, markup=False, soft_wrap=True)
    for p in state["projects"]:
        show_project(console, p)


@command("dashboard", "Print the dashboard's address, with its token.")
@click.option(
    "--share", is_flag=True, help="The address for others: it shows, and changes nothing."
)
def dashboard(as_json: bool, share: bool) -> None:
    """Print the dashboard's address, with the token that opens it."""
    from backend.dashboard.access import address
    from backend.services import answers

    settings = commands.with_running_stack(Settings.load())
    page = address(settings, share=share)
    if as_json:
        click.echo(json.dumps({"address": page, "read_only": share}))
        return
    console.print(page, highlight=False, markup=False, soft_wrap=True)
    if not answers(page.partition("/dashboard#")[0] + "/health"):
        problems.print(
            as_started("Nothing answers there yet; start `doubtless up` first."),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@command("score", "Show what the live version says of every task.")
@project_option
@click.option("--out", type=click.Path(path_type=Path), help="Write a CSV file.")
@click.option("--publish", is_flag=True, help="Score the pool again and publish it first.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows to print."
)
@timeout_option
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
    project = project_of(settings, reference)
    if publish:
        database = Database(settings.database)
        if project.live_version is None:
            raise BackendError(f"project {project.key} has no live version yet")
        live = database.version(project.key, project.live_version)
        since = commands.republish(settings, project, live, f"{live.name} scored again")
        follow(settings, project, ("republish",), since, False, True, timeout, quiet=as_json)
        project = database.project(project.key)
    rows = commands.scores(settings, project)
    if out is not None:
        _write_csv(out, rows)
    if as_json:
        click.echo(json.dumps(rows))
        return
    if out is not None:
        console.print(f"{len(rows)} rows written to {out}", markup=False)
        return
    table = Table("task", "prediction", "P(right)", "score", "total (nats)", "label")
    for row in rows[:limit]:
        table.add_row(
            str(row["task"]), escape(answer(row["prediction"], "-")),
            number(row["p_right"], 4), number(row["score"], 4),
            number(row["total"]), escape(answer(row["label"], "")),
        )  # fmt: skip
    console.print(table)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["task"])
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
                for row in rows
            )
    except OSError as exc:
        raise BackendError(
            f"{path} cannot be written ({exc.strerror or exc}); give --out a file in a folder "
            "that is there"
        ) from exc


@command("errors", "Show labels that the model contradicts.")
@project_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Labels to print."
)
def errors(as_json: bool, reference: str | None, limit: int) -> None:
    """Show labels that the model, not fitted on them, contradicts: worth a second look."""
    settings = Settings.load()
    project = project_of(settings, reference)
    database = Database(settings.database)
    found = doubted_labels(database, project, limit)
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        versions = database.versions(project.key)
        trained = any(v.kind != "cold" and v.status in ("live", "superseded") for v in versions)
        console.print(
            "No label is more probably wrong than right." if trained else
            "Nothing is trained yet, so no label is doubted; see `doubtless status`."
        )  # fmt: skip
        return
    table = Table("task", "label", "P(label right)", "what speaks against it")
    for row in found:
        table.add_row(
            str(row["task"]), escape(answer(row["label"], "-")), number(row["p_right"]),
            escape(row["why"]),
        )  # fmt: skip
    console.print(table)
    console.print("In Label Studio they are in the tab “Labels to check”.")


@command("annotators", "Show how people agree, and how often each is right.")
@project_option
@click.option(
    "--again", type=click.IntRange(min=1), metavar="N",
    help="Show the N labelled tasks most worth another label instead, and whom to ask.",
)  # fmt: skip
def annotators(as_json: bool, reference: str | None, again: int | None) -> None:
    """Show how people agree on tasks they share, and how often each of them is right."""
    settings = Settings.load()
    project = project_of(settings, reference)
    database = Database(settings.database)
    found = people(database, project.key)
    wanted = None if again is None else ask_again(database, project, again)
    if as_json:
        click.echo(json.dumps(found if wanted is None else wanted))
        return
    if not found:
        console.print(UNKNOWN, highlight=False)
        return
    if wanted is not None:
        _print_again(wanted)
        return
    spec = parse_config(project.label_config).spec
    several = spec is not None and (spec.boxes or spec.multiple)
    parts = ("recall", "precision") if several else ()
    table = Table(
        "annotator", "labels", "shared", "agreement", "kappa", "quality", "95 % interval", *parts
    )
    for row in found:
        interval = "-" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
        table.add_row(
            str(row["id"]), str(row["labels"]), str(row["shared"]), number(row["agreement"]),
            number(row["kappa"]), number(row["quality"]), interval,
            *(number(row[part]) for part in parts),
        )  # fmt: skip
    console.print(table)
    console.print(meaning(spec), highlight=False)
    if not several:
        console.print(
            as_started(
                "Tasks where people differ are among `doubtless errors` if their label is more "
                "probably wrong than right."
            ),
            highlight=False,
            markup=False,
        )


def _each(labels: list[Any]) -> str:
    """What each person gave; by semicolons where one of them is more than a word."""
    between = ", " if all(isinstance(label, str) for label in labels) else "; "
    return between.join(answer(label, "-") for label in labels)


def _print_again(wanted: list[dict[str, Any]]) -> None:
    if not wanted:
        console.print(NOTHING, highlight=False)
        return
    table = Table("task", "labels", "probably", "P(right)", "ask")
    for row in wanted:
        table.add_row(
            str(row["task"]), escape(_each(row["labels"])), escape(answer(row["label"], "-")),
            number(row["p_right"]), "anyone else" if row["ask"] is None else f"user {row['ask']}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "P(right): of the label that people and model together find most probable. Ask: the best "
        "of those who have not labelled the task.",
        highlight=False,
    )


@command("versions", "List versions, and how good they are.")
@project_option
def versions(as_json: bool, reference: str | None) -> None:
    """List versions: what they were trained on, how good they are, and which is live."""
    settings = Settings.load()
    project = project_of(settings, reference)
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
