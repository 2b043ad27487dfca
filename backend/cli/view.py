"""How commands print a project, an answer and a number for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape


def show_project(console: Console, p: dict[str, Any]) -> None:
    """Print what `backend.commands.status` says of one project."""
    tasks = p["tasks"]
    console.print(
        f"\n[bold]{escape(p['title'])}[/bold] ({p['key']}: project {p['project']} on "
        f"{p['label_studio']})",
        highlight=False,
    )
    extra = f", {tasks['broken']} unreadable" if tasks["broken"] else ""
    extra += f", {tasks['new']} to be read" if tasks["new"] else ""
    console.print(
        f"  tasks {sum(tasks.values())}{extra}; labels {p['labels']} "
        f"({p['random_labels']} drawn by chance)"
    )
    accuracy = number(p["accuracy"])
    if p["accuracy_interval"]:
        low, high = p["accuracy_interval"]
        accuracy += f" (95 %: {number(low)} to {number(high)})"
    console.print(
        f"  live version {p['live_version'] or 'none yet'}; "
        f"{p['metric']} on random labels {accuracy}"
    )
    if p["labels"]:
        said = (p["stopping"][name]["sentence"] for name in ("accuracy", "gain", "labels_needed"))
        for sentence in dict.fromkeys(said):  # one reason may stand for all three
            console.print(f"  {sentence}", highlight=False)
    for run in p["running"]:
        left = "" if run["seconds_left"] is None else f", about {run['seconds_left']:.0f} s left"
        console.print(
            f"  {run['status']}: {run['kind']} {run['progress']:.0%} {run['stage']} "
            f"({run['seconds']} s{left}; {run['reason']})",
            highlight=False,
            markup=False,
        )
    nxt = p["next_training"]
    console.print(
        f"  next training: {'now' if nxt['due'] else 'waits'}: {nxt['reason']}", markup=False
    )
    if p["drift"]:
        console.print(f"  [yellow]![/yellow] {escape(p['drift']['sentence'])}", highlight=False)
    if p["piles"]:
        console.print(f"  {pile_sentence(p['piles'])}", highlight=False)
    if p["acceptance"]:
        show_acceptance(console, p["acceptance"])
    for problem in p["problems"]:
        console.print(f"  [yellow]![/yellow] {escape(problem)}", highlight=False)
    for sentence in p["advice"]:
        console.print(f"  {sentence}", highlight=False, markup=False)
    for item in p["unreadable"][:5]:
        console.print(
            f"  [yellow]![/yellow] task {item['task']}: {escape(item['why'])}", highlight=False
        )
    if p["last_error"]:
        console.print(f"  last failure: {p['last_error']['error']}", highlight=False, markup=False)


def pile_sentence(found: dict[str, Any]) -> str:
    """The piles of `backend.triage.piles` in words."""
    parts = [f"{found['accept']} may be accepted"] if found["accept"] else []
    for name, what in (("review", "to review"), ("label", "to label")):
        minutes = found["minutes"][name]
        parts.append(f"{found[name]} {what}" + ("" if minutes is None else f" ({minutes:.0f} min)"))
    return "open tasks: " + ", ".join(parts)


def show_acceptance(console: Console, found: dict[str, Any]) -> None:
    """Print what `backend.acceptance.describe` says of an audit."""
    console.print(
        f"  auto-accept ({found['status']}, {found['version']}): {found['sentence']}",
        highlight=False, markup=False,
    )  # fmt: skip
    checked = found["checked"]
    if checked:
        console.print(
            f"  {found['accepted']} labels accepted unseen; {checked['checked']} of "
            f"{checked['asked']} others looked at since, {checked['wrong']} of them wrong"
        )
    for one in found["earlier"]:
        console.print(
            f"  {one['accepted']} labels of {one['version']} stand from before ({one['status']}): "
            f"{one['sentence']}",
            highlight=False, markup=False,
        )  # fmt: skip


def answer(value: str | list[str] | dict[str, int] | None, absent: str) -> str:
    """One class, or several, or how many objects of each; none of them is an answer too."""
    if isinstance(value, dict):
        value = [f"{count} {name}" for name, count in value.items()]
    return (", ".join(value) or "(none)") if isinstance(value, list) else value or absent


def number(value: Any, digits: int = 3) -> str:
    """With so many digits; a dash for none."""
    return "-" if value is None else f"{float(value):.{digits}f}"
