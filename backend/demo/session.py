"""One demonstration: starts everything, imports and connects, then watches, or plays an annotator.

With ``--auto`` the annotator gives the true labels in the order in which Label Studio's queue
serves the tasks.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from backend import commands
from backend.demo.curve import Point, RandomCurve, labels_saved_ratio, mean_gain
from backend.demo.data import (
    DemoData,
    DemoImage,
    box_config,
    label_config,
    load_demo_data,
    original_name,
    true_result,
)
from backend.demo.judge import Judge, judge_of
from backend.demo.memory import Memory
from backend.demo.options import Options
from backend.demo.view import LiveView, State, summary, write_result
from backend.edges import label_studio_server
from backend.edges.database import Database
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labelstudio_api import FILES_PER_REQUEST, LabelStudio
from backend.errors import LaunchError, PlatformError, SettingError
from backend.records import Project, Version
from backend.retraining import round_size
from backend.scheduler import FINISHED, training_decision
from backend.services import Service
from backend.settings import Settings
from backend.supervisor import Stack, read_state, run_stack
from model.datasets import annotated_with
from model.errors import UnreadableImageError

USER = "admin@example.com"
# One trains at once while the other still deletes what an earlier version published.
WORKERS = 2
FIRST_ORDER_LIMIT_S = 1800.0
PATIENCE = 10
# Drawing all boxes of an image takes a person longer than choosing a label.
QUIET_WITH_BOXES_S = 120.0


class StoppedError(Exception):
    """Ctrl-C came while the demonstration was waiting."""


class Demo:
    """One run of the demonstration; `work` runs beside the supervisor."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.home = Path(options.home).expanduser().resolve()
        self.settings = Settings.load(
            home=str(self.home / "doubtless"), port=options.port, host="127.0.0.1", workers=WORKERS,
            public_url="", redis_url="", database_url="", quiet_s=self._quiet_s(),
        )  # fmt: skip
        self.memory = Memory.load(self.home / "demo.json")
        self.data: DemoData
        self.judge: Judge
        self.stack: Stack
        self.platform: LabelStudio
        self.project: Project
        self.database: Database
        self.state = State()
        self._starting = console.status("waiting for everything to answer")

    def _quiet_s(self) -> float | None:
        """None leaves it to the environment and the default."""
        if "DOUBTLESS_QUIET_S" in os.environ or annotated_with(self.options.data) != "boxes":
            return None
        return QUIET_WITH_BOXES_S

    @property
    def until(self) -> int:
        """Labels that the played annotator gives."""
        return self.judge.until if self.options.until is None else self.options.until

    @property
    def url(self) -> str:
        """Address of Label Studio."""
        return f"http://127.0.0.1:{self.options.ls_port}"

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(text, highlight=False)

    def run(self) -> int:
        """Start everything, do the demonstration, stop everything; returns the exit code."""
        options = self.options
        running = read_state(self.settings.home_path)
        if running is None:  # otherwise the supervisor says so, with the process
            label_studio_server.require_port(options.ls_port, "--ls-port")
        self.data = load_demo_data(options.data, classes=options.classes, limit=options.limit)
        self.judge = judge_of(self.data, self.settings)
        self.state.until = self.until if options.auto else 0
        self.state.metric, self.state.unit = self.judge.metric, self.judge.unit
        if options.auto and not self.data.truth:
            raise SettingError(
                f"--auto submits the true labels and {options.data} has none; give a folder per "
                "class or a packed set with boxes, or leave --auto out"
            )
        venv = label_studio_server.ensure_label_studio_env(self.say)
        folder = self.home / "label-studio"
        first = not (folder / "label_studio.sqlite3").exists()
        folder.joinpath("files").mkdir(parents=True, exist_ok=True)
        self.say(
            "Starting Label Studio and Doubtless"
            + (" (the first start takes one to two minutes) …" if first else " …")
        )
        server = Service(
            "label-studio",
            label_studio_server.command(venv, folder, options.ls_port),
            label_studio_server.environment(
                folder, options.ls_port,
                token=self.memory.token, user=USER, password=self.memory.password,
            ),
            health_url=f"{self.url}/health",
            health_timeout_s=label_studio_server.FIRST_START_S,
        )  # fmt: skip
        with (self.home / "doubtless.log").open("a", encoding="utf-8") as log:

            def record(name: str, line: str) -> None:
                log.write(f"{time.strftime('%H:%M:%S')} {name:<12} {line}\n")
                log.flush()

            self._starting.start()
            try:
                return run_stack(
                    self.settings, workers=WORKERS, extra=[server], on_ready=self._work, say=record
                )
            finally:
                self._starting.stop()

    # --- beside the supervisor -----------------------------------------------------------

    def _work(self, stack: Stack) -> int:
        self.stack = stack
        self._starting.stop()
        try:
            return self.work()
        except StoppedError:
            return 0

    def work(self) -> int:
        """Everything from the first request to Label Studio on."""
        self.platform = LabelStudio(self.url, self.memory.token)
        self._wait(
            lambda: label_studio_server.takes_token(self.url, self.memory.token),
            limit_s=60,
            why=f"Label Studio does not take the token of {self.memory.path}; delete "
            f"{self.home} to begin anew",
        )
        self.database = Database(self.settings.database)
        try:
            self._prepare_project()
            self._print_how_to()
            if self.options.auto:
                return self._play()
            return self._watch()
        finally:
            self.database.close()

    def _prepare_project(self) -> None:
        known = self.memory.projects.setdefault(self._data_key(), {"points": []})
        project_id = known.get("id")
        try:
            found = None if project_id is None else self.platform.project(project_id)
        except PlatformError as exc:
            if exc.code != 404:
                raise
            found = None
        if found is None:
            title = f"Doubtless demo: {Path(self.options.data).name}"[:50]
            config = (box_config if self.data.has_boxes else label_config)(self.data.classes)
            found = self.platform.create_project(title, config)
            known.update({"id": int(found["id"]), "points": []})
            self.memory.save()
        project_id = int(found["id"])
        self._import_images(project_id)
        connected = commands.connect_project(self.settings, self.url, self.memory.token, project_id)
        self.project = connected.project

    def _import_images(self, project_id: int) -> None:
        there = {original_name(str(t.data.get("image"))) for t in self.platform.tasks(project_id)}
        missing = [image for image in self.data.pool if image.name not in there]
        for start in range(0, len(missing), FILES_PER_REQUEST):
            self._check_stopping()
            if start % 500 == 0:
                self.say(f"Importing images: {len(there) + start} of {len(self.data.pool)} …")
            part = missing[start : start + FILES_PER_REQUEST]
            self.platform.upload_files(project_id, [(i.name, i.data) for i in part])

    def _data_key(self) -> str:
        source = self.options.data
        where = str(Path(source).resolve()) if Path(source).is_dir() else source
        return f"{where} {self.options.limit or 'all'} {' '.join(self.data.classes)}"

    def _print_how_to(self) -> None:
        address = f"{self.url}/projects/{self.project.platform_id}/data"
        self.say("")
        self.say(f"  [bold]Label Studio[/bold]  {address}")
        self.say(f"  user          {USER}")
        self.say(f"  password      {self.memory.password}")
        self.say(f"  Doubtless     {self.settings.reachable_url}, data in {escape(str(self.home))}")
        self.say("")
        if self.options.auto:
            return
        after, quiet = self.settings.retrain_after, self.settings.quiet_s
        self.say("  1. Log in and press [bold]Label All Tasks[/bold]: the image that teaches most")
        what = "boxes" if self.data.has_boxes else "a label"
        self.say(f"     comes first, with {what} proposed once a version is trained.")
        unit = self.judge.unit
        self.say(f"  2. After {after} {unit}, or {quiet:.0f} s without one, Doubtless trains and")
        self.say("     orders the queue again; this terminal shows it.")
        self.say("  3. The tab [bold]Most doubtful first[/bold] shows every score.")
        self.say("  4. Labels, accuracy, what more labels would bring, in another terminal:")
        self.say(f"     DOUBTLESS_HOME={escape(shlex.quote(str(self.settings.home)))} \\")
        self.say("       ./run doubtless status")
        self.say(
            "  Ctrl-C stops everything and keeps the data. `./run demo --auto` labels for you."
        )
        self.say("")
        has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY") is not None
        if self.options.browser and has_screen and self.console.is_terminal:
            webbrowser.open(address)

    # --- watching a person ---------------------------------------------------------------

    def _watch(self) -> int:
        """Show what happens until Ctrl-C."""
        measured = ""
        with LiveView(self.console, self.state) as view:
            while True:
                self._refresh()
                version = self._live_version()
                if version is not None and version.name != measured:
                    self._measure(version.labels, view)
                    measured = version.name
                view.update()
                self._pause(1.0)

    # --- playing the annotator -----------------------------------------------------------

    def _play(self) -> int:
        began = time.monotonic()
        self.state.points = self._remembered_points()
        held_out = 0
        with LiveView(self.console, self.state) as view:
            if self.data.held_out:
                held_out = self.judge.prepare(self._progress(view))
            self._await_first_order(view)
            self._label_until_enough(view)
            points = self.state.points
            random = self._random_order(points, view) if points else None
            self.state.doing = ""
        if not points:
            self.say("There are no held-out images with labels, so there is no curve to show.")
            return 0
        judge = self.judge
        self.console.print(
            summary(
                points, random,
                held_out=held_out, until=self.until, metric=judge.metric, unit=judge.unit,
            )
        )  # fmt: skip
        if random is not None and judge.compared(random):
            self.say(judge.compared(random))
        if self.options.result is not None:
            result = {
                "task": judge.task, "metric": judge.metric, "data": self.options.data,
                "backbone": judge.backbone, "classes": list(self.data.classes),
                "pool": len(self.data.pool), "held_out": held_out, "until": self.until,
                "points": self._points_as_json(),
                "random": None if random is None else random.to_json(),
                "mean_gain": random and mean_gain(points, random),
                # Of one order it would be chance; see `view.summary`.
                "labels_saved_ratio": (
                    labels_saved_ratio(points, random) if random and random.seeds > 1 else None
                ),
                "seconds": round(time.monotonic() - began, 1),
            }  # fmt: skip
            write_result(self.options.result, result)
            self.say(f"Written to {self.options.result}")
        return 0

    def _random_order(self, points: list[Point], view: LiveView) -> RandomCurve | None:
        seeds = self.judge.seeds if self.options.seeds is None else self.options.seeds
        if seeds == 0:
            return None
        self.say("Computing what random order would have given …")
        labels = sorted({point.labels for point in points})
        return self.judge.random(
            labels, until=self.until, seeds=seeds, progress=self._progress(view)
        )

    def _progress(self, view: LiveView) -> Callable[[str], None]:
        """Shows what is being done; raises `StoppedError` when it is to end."""

        def progress(what: str) -> None:
            self._check_stopping()
            self.state.doing = what
            view.update()

        return progress

    def _await_first_order(self, view: LiveView) -> None:
        """Features are computed and the first order is published before anybody labels."""

        def show() -> None:
            counts = self.database.task_counts(self.project.key)
            self.state.doing = f"looking at the images: {counts['ready']} of {len(self.data.pool)}"
            self._refresh(keep_doing=True)
            view.update()

        self._wait(
            lambda: self._live_version() is not None,
            limit_s=FIRST_ORDER_LIMIT_S,
            why=f"no order was published within {FIRST_ORDER_LIMIT_S / 60:.0f} minutes; "
            f"the log {self.home / 'doubtless.log'} may say why",
            meanwhile=show,
        )

    def _label_until_enough(self, view: LiveView) -> None:
        spec = parse_config(self.project.label_config).spec
        assert spec is not None, "our own labeling config"
        truth = self.data.truth
        submitted = self.database.label_count(self.project.key)
        stumbles = 0
        self._train_when_due(submitted, view)  # it was stopped while it waited for this
        while submitted < self.until:
            self._check_stopping()
            try:
                task = self.platform.next_task(self.project.platform_id)
                if task is None:
                    break
                image = truth.get(original_name(str(task.data.get("image"))))
                result = None if image is None else self._result_of(spec, image)
                if result is None:
                    self.platform.skip(task.id)
                    continue
                self.platform.submit(task.id, result)
            except PlatformError as exc:
                # With SQLite, Label Studio answers 500 ("database is locked") when two writes
                # meet, whoever they are from. A person tries again, and so do we.
                stumbles += 1
                # On a machine busy with training it may not answer in time either.
                if (exc.code is not None and exc.code < 500) or stumbles > PATIENCE:
                    raise
                self._pause(0.5)
                continue
            stumbles = 0
            submitted += 1
            self.state.labels, self.state.doing = submitted, "labelling"
            view.update()
            self._train_when_due(submitted, view)
        if submitted > self._trained_labels():
            commands.train(self.settings, self.project, "the last labels of the demonstration")
            self._await_training(submitted, view)
        elif not self.state.points:
            self._measure(submitted, view)

    @staticmethod
    def _result_of(spec: TaskSpec, image: DemoImage) -> list[dict[str, Any]] | None:
        """What is submitted; None where an image has boxes and its size cannot be read."""
        try:
            return true_result(spec, image)
        except UnreadableImageError:
            return None

    def _train_when_due(self, submitted: int, view: LiveView) -> None:
        """Wait for a version where the labels so far are enough for a training."""
        rules = self.settings
        due = round_size(
            submitted, retrain_after=rules.retrain_after, retrain_growth=rules.retrain_growth
        )
        if submitted - self._trained_labels() >= due:
            self._await_training(submitted, view)

    def _await_training(self, submitted: int, view: LiveView) -> None:
        """Wait like somebody who labels slowly: until all labels so far are in a version."""

        def show() -> None:
            self._refresh()
            view.update()

        limit_s = self.judge.training_limit_s
        self._wait(
            lambda: self._trained_labels() >= submitted,
            limit_s=limit_s,
            why=f"{submitted} labels were not trained on within {limit_s:.0f} s; "
            f"the log {self.home / 'doubtless.log'} may say why",
            meanwhile=show,
            every_s=0.2,
        )
        self._refresh()
        self._measure(submitted, view)
        view.update()

    # --- facts ---------------------------------------------------------------------------

    def _remembered(self) -> dict[str, Any]:
        return self.memory.projects[self._data_key()]

    def _live_version(self) -> Version | None:
        number = self.database.project(self.project.key).live_version
        return None if number is None else self.database.version(self.project.key, number)

    def _trained_labels(self) -> int:
        """Labels in the newest version that is published or was kept back."""
        versions = self.database.versions(self.project.key)
        done = [v.labels for v in versions if v.kind != "cold" and v.status in FINISHED]
        return max(done, default=0)

    def _refresh(self, *, keep_doing: bool = False) -> None:
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
            self.state.doing = "labelling" if self.options.auto else "waiting for labels"
        decision = training_decision(self.settings, self.database, project, versions, time.time())
        self.state.next_training = decision.reason

    def _measure(self, labels: int, view: LiveView) -> None:
        """The live version on the held-out images."""
        if not self.data.held_out:
            return
        model = commands.live_model(self.settings, self.project)
        version = self._live_version()
        if model is None or version is None:
            return
        value = self.judge.measure(model, self._progress(view))
        if value is None:
            return
        self.state.points.append(Point(labels, value, version.name))
        self._remembered()["points"] = self._points_as_json()
        self.memory.save()

    def _points_as_json(self) -> list[dict[str, Any]]:
        key = self.judge.metric.lower()
        points = self.state.points
        return [{"labels": p.labels, key: p.value, "version": p.version} for p in points]

    def _remembered_points(self) -> list[Point]:
        key = self.judge.metric.lower()
        return [Point(p["labels"], p[key], p["version"]) for p in self._remembered()["points"]]

    # --- waiting -------------------------------------------------------------------------

    def _check_stopping(self) -> None:
        if self.stack.stopping.is_set():
            raise StoppedError

    def _pause(self, seconds: float) -> None:
        if self.stack.stopping.wait(seconds):
            raise StoppedError

    def _wait(
        self,
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
            self._pause(every_s)
