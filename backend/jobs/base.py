"""What every job has: its run, its project, progress that others can see, and a heartbeat."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from backend import pacing
from backend.app import App
from backend.edges.labels.config import TaskSpec
from backend.errors import BackendError, PlatformError, UnsupportedConfigError
from backend.kinds import kind_of
from backend.kinds.base import Model
from backend.ports import MediaSource, Platform
from backend.records import Project, Run, Version
from backend.triage import may_be_accepted

log = logging.getLogger(__name__)

HEARTBEAT_S = 3.0
# What a small request keeps Label Studio busy, and how long one waits for a pause between submits.
SMALL_S = 0.12
SMALL_PATIENCE_S = 2.0


class TakenAwayError(BackendError):
    """This run was given to another worker: stop without touching anything more."""


@dataclass
class Job:
    """One attempt at one run."""

    app: App
    run: Run
    owner: str
    sleep: Callable[[float], None] = time.sleep
    laps: dict[str, float] = field(default_factory=dict, init=False)
    _said: float = field(default=0.0, init=False)
    _lap_began: float = field(default_factory=time.perf_counter, init=False)

    @property
    def project(self) -> Project:
        """The project as it is now."""
        return self.app.database.project(self.run.project)

    @cached_property
    def platform(self) -> Platform:
        """Label Studio, with the project's token."""
        return self.app.platform_for(self.project)

    @cached_property
    def media(self) -> MediaSource:
        """Where this project's images come from."""
        return self.app.media_for(self.project)

    def require_spec(self, project: Project) -> TaskSpec:
        """What of the project is predicted.

        Raises:
            UnsupportedConfigError: nothing is.
        """
        spec = self.app.spec(project)
        if spec is None:
            raise UnsupportedConfigError(
                f"project {project.platform_id} has no boxes (<RectangleLabels>, <EllipseLabels>, "
                "<Rectangle> with <Labels>) and no <Choices> on an <Image> that Doubtless can "
                f"predict: {' '.join(project.problems) or 'the labeling config is empty'}"
            )
        return spec

    def load_bundle(self, version: Version) -> Model:
        """The model of a version.

        Raises:
            BackendError: it is a cold start, or was trained on features of another backbone.
        """
        if version.bundle is None:
            raise BackendError(
                f"{version.name} is a cold-start order without a model; `doubtless versions` lists "
                "those that can be published again"
            )
        kind = kind_of(self.app.spec(self.project))
        now = kind.backbone(self.app.settings)
        then = version.metrics.get("backbone", now)
        if then != now:
            raise BackendError(
                f"{version.name} was trained on features of {then}, and the backbone is {now} now; "
                f"set {kind.backbone_variable()}={then} to use it again"
            )
        return kind.load(self.app.versions_folder(version.project) / version.bundle)

    def running_before(self, *kinds: str) -> list[Run]:
        """Runs of those kinds, of this project, that other workers have begun before this one."""
        mine = (self.run.started_at or 0.0, self.run.id)
        return [
            run
            for run in self.app.database.runs(self.run.project, status=("running",))
            if run.kind in kinds and (run.started_at or 0.0, run.id) < mine
        ]

    def wait_for_others(self, *kinds: str) -> None:
        """Wait until no run of those kinds that began before this one is at work any more."""
        while others := self.running_before(*kinds):
            self.confirm(stage=f"waiting for another run: {others[0].kind}")
            self.sleep(0.5)

    def lap(self, name: str) -> None:
        """Note under `name` how many seconds went by since the last lap, or the job's start."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._lap_began, 3)
        self._lap_began = now

    def say(self, progress: float, stage: str) -> None:
        """Show how far the run is, at most twice a second; `confirm` shows a stage in any case.

        Raises:
            TakenAwayError: the run is no longer ours.
        """
        now = time.monotonic()
        if now - self._said < 0.5 and progress < 1.0:
            return
        self._said = now
        self.confirm(progress=round(min(max(progress, 0.0), 1.0), 4), stage=stage)

    def confirm(self, **values: object) -> None:
        """Make sure that the run is still ours.

        Raises:
            TakenAwayError: it is not.
        """
        if not self.app.database.beat(self.run.id, self.owner, **values):
            raise TakenAwayError(f"run {self.run.id} was given to another worker")

    def tell_piles(self) -> None:
        """Have Label Studio's tabs show what may be accepted now; they are not worth a failure."""
        project = self.project
        *_, accept_from = may_be_accepted(self.app.database, project)
        try:
            self.app.piles_changed(project, accept_from)
        except PlatformError as exc:
            log.warning("the tabs of %s are not up to date: %s", project.key, exc)

    def wait_for_pause(self) -> None:
        """Before every small request but those that a person waits for: nobody shall notice it."""
        self.wait_for_good_moment(SMALL_S, patience_s=SMALL_PATIENCE_S)

    def wait_for_good_moment(self, takes_s: float, *, patience_s: float = 10.0) -> float:
        """Wait until a request of that length delays nobody who labels; returns seconds waited."""
        start = time.time()
        while True:
            now = time.time()
            wait = pacing.seconds_until_good_moment(
                self.app.database.submit_times(self.project.host),
                now,
                takes_s=takes_s,
                waited_s=now - start,
                patience_s=patience_s,
            )
            if wait <= 0:
                return now - start
            self.sleep(min(wait, 0.5))


class Heartbeat:
    """Keeps saying that a run is alive while its job works; a thread, ended with the block."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self.stop.wait(HEARTBEAT_S):
            try:
                if not self.job.app.database.beat(self.job.run.id, self.job.owner):
                    return
            except Exception as exc:  # the database may be busy: the next beat will tell
                log.warning("heartbeat of run %s: %s", self.job.run.id, exc)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=5)
