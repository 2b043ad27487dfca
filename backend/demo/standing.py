"""Where a demonstration stands: what the database says of it, points measured so far, waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend import commands
from backend.demo.curve import Point
from backend.demo.data import DemoData
from backend.demo.judge import Judge
from backend.demo.memory import Memory
from backend.demo.view import LiveView, State
from backend.edges.database import Database
from backend.errors import LaunchError
from backend.records import Project, Version
from backend.scheduler import FINISHED, training_decision
from backend.settings import Settings
from backend.supervisor import Stack


class StoppedError(Exception):
    """Ctrl-C came while the demonstration was waiting."""


@dataclass(frozen=True)
class Standing:
    """What watching a person and playing one have in common.

    Attributes:
        settings: of Doubtless.
        stack: what runs; waiting ends when it is to stop.
        database: what Doubtless knows.
        project: the connected one.
        data: its images.
        judge: measures versions on the images that are held out.
        memory: points are kept in it, so that a demonstration goes on where it was.
        key: of the project in `memory`.
        state: what is shown.
        idle: what is being done while nothing is trained.
    """

    settings: Settings
    stack: Stack
    database: Database
    project: Project
    data: DemoData
    judge: Judge
    memory: Memory
    key: str
    state: State
    idle: str

    # --- what the database says ----------------------------------------------------------

    def live_version(self) -> Version | None:
        """The version that is shown, if there is one."""
        number = self.database.project(self.project.key).live_version
        return None if number is None else self.database.version(self.project.key, number)

    def trained_labels(self) -> int:
        """Labels in the newest version that is published or was kept back."""
        versions = self.database.versions(self.project.key)
        done = [v.labels for v in versions if v.kind != "cold" and v.status in FINISHED]
        return max(done, default=0)

    def refresh(self, *, keep_doing: bool = False) -> None:
        """Bring what is shown up to date, but for what is being done where that is said so."""
        project = self.database.project(self.project.key)
        versions = self.database.versions(project.key)
        live = next((v for v in versions if v.number == project.live_version), None)
        self.state.labels = self.database.label_count(project.key)
        if live is not None:
            self.state.version = f"{live.name}, {live.labels} labels"
        runs = [r for r in self.database.runs(project.key) if r.status == "running"]
        if runs:
            run = next((r for r in runs if r.kind == "train"), runs[-1])
            stage = f"{run.kind}: {run.stage or 'starting'} ({run.progress:.0%})"
            self.state.doing = self.state.doing if keep_doing else stage
        elif not keep_doing:
            self.state.doing = self.idle
        decision = training_decision(self.settings, self.database, project, versions, time.time())
        self.state.next_training = decision.reason

    # --- points --------------------------------------------------------------------------

    def measure(self, labels: int, view: LiveView) -> None:
        """The live version on the held-out images."""
        if not self.data.held_out:
            return
        model = commands.live_model(self.settings, self.project)
        version = self.live_version()
        if model is None or version is None:
            return
        value = self.judge.measure(model, self.shown_in(view))
        if value is None:
            return
        self.state.points.append(Point(labels, value, version.name))
        self.memory.projects[self.key]["points"] = self.points_as_json()
        self.memory.save()

    def points_as_json(self) -> list[dict[str, Any]]:
        """What was measured so far."""
        name = self.judge.metric.lower()
        points = self.state.points
        return [{"labels": p.labels, name: p.value, "version": p.version} for p in points]

    def remembered_points(self) -> list[Point]:
        """What was measured before the demonstration was last stopped."""
        name = self.judge.metric.lower()
        points = self.memory.projects[self.key]["points"]
        return [Point(p["labels"], p[name], p["version"]) for p in points]

    # --- waiting -------------------------------------------------------------------------

    def shown_in(self, view: LiveView) -> Callable[[str], None]:
        """Shows what is being done; raises `StoppedError` when it is to end."""

        def progress(what: str) -> None:
            check_stopping(self.stack)
            self.state.doing = what
            view.update()

        return progress


def check_stopping(stack: Stack) -> None:
    """Raise `StoppedError` when everything is to end."""
    if stack.stopping.is_set():
        raise StoppedError


def pause(stack: Stack, seconds: float) -> None:
    """Sleep; raises `StoppedError` when everything is to end."""
    if stack.stopping.wait(seconds):
        raise StoppedError


def wait(
    stack: Stack,
    condition: Callable[[], bool],
    *,
    limit_s: float,
    why: str,
    meanwhile: Callable[[], None] = lambda: None,
    every_s: float = 0.5,
) -> None:
    """Until the condition holds; `why` is the error when that takes too long."""
    deadline = time.monotonic() + limit_s
    while not condition():
        meanwhile()
        if time.monotonic() > deadline:
            raise LaunchError(why)
        pause(stack, every_s)
