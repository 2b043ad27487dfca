"""One demonstration: starts everything, imports and connects, then watches, or plays, a person."""

from __future__ import annotations

import os
import shlex
import sys
import time
import webbrowser
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from backend import commands
from backend.dashboard.access import address as dashboard_address
from backend.demo.annotator import Annotator
from backend.demo.data import (
    DemoData,
    box_config,
    label_config,
    load_demo_data,
    original_name,
)
from backend.demo.judge import Judge, judge_of
from backend.demo.memory import Memory
from backend.demo.options import Options
from backend.demo.standing import Standing, StoppedError, check_stopping, pause, wait
from backend.demo.view import LiveView, State
from backend.edges import label_studio_server
from backend.edges.database import Database
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.labelstudio_tasks import FILES_PER_REQUEST
from backend.errors import PlatformError, SettingError
from backend.records import Project
from backend.services import Service
from backend.settings import Settings
from backend.stack_home import read_state
from backend.supervisor import Stack, run_stack
from model.datasets import annotated_with

USER = "admin@example.com"
# One trains at once while the other still deletes what an earlier version published.
WORKERS = 2
# Drawing all boxes of an image takes a person longer than choosing a label.
QUIET_WITH_BOXES_S = 120.0


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

    @property
    def log(self) -> Path:
        """What everything that was started says."""
        return self.home / "doubtless.log"

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
        with self.log.open("a", encoding="utf-8") as log:

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
        wait(
            self.stack,
            lambda: label_studio_server.takes_token(self.url, self.memory.token),
            limit_s=60,
            why=f"Label Studio does not take the token of {self.memory.path}; delete "
            f"{self.home} to begin anew",
        )
        self.database = Database(self.settings.database)
        try:
            self._prepare_project()
            self._print_how_to()
            standing = Standing(
                self.settings, self.stack, self.database, self.project, self.data, self.judge,
                self.memory, self._data_key(), self.state,
                idle="labelling" if self.options.auto else "waiting for labels",
            )  # fmt: skip
            if self.options.auto:
                return Annotator(
                    standing, self.platform, self.options,
                    until=self.until, log=self.log, console=self.console,
                ).play()  # fmt: skip
            return self._watch(standing)
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
            check_stopping(self.stack)
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
        page = dashboard_address(self.settings)
        self.console.print(f"  Dashboard     {page}", highlight=False, markup=False, soft_wrap=True)
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

    def _watch(self, standing: Standing) -> int:
        """Show what happens until Ctrl-C."""
        measured = ""
        with LiveView(self.console, self.state) as view:
            while True:
                standing.refresh()
                version = standing.live_version()
                if version is not None and version.name != measured:
                    standing.measure(version.labels, view)
                    measured = version.name
                view.update()
                pause(self.stack, 1.0)
