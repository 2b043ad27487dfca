"""Looks at the facts and says what has to be done; losing Redis or a worker changes nothing.

Debounce, retries and repairs are all decided here, from the database alone: nothing is remembered
in Redis that could be lost with it. One `Scheduler` ticks in the web process; two of them would
only look twice, because a project never has two runs of one kind.
"""

from __future__ import annotations

import itertools
import logging
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.acceptance import held
from backend.app import App
from backend.audits import needed_versions
from backend.edges.database import Database
from backend.edges.processes import is_gone
from backend.kinds import kind_of_project
from backend.records import Project, Version
from backend.retraining import Decision, decide
from backend.settings import Settings

log = logging.getLogger(__name__)

SHARD = 256
# Shards handed out at a time: a pool of a million images is read in waves.
WAVE = 64
# Kinds that write predictions or labels into Label Studio: one of them at a time for each project.
PUBLISHING = ("cold", "train", "republish", "extend", "audit", "accept", "undo")
# Kinds that audits wait for; those that fail are started again.
OF_AUDITS = ("undo", "accept", "audit")
# Seconds without a submit after which labels that webhooks announced are read.
PING_QUIET_S = 3.0
# Waiting runs that are looked for in the queue to see whether it was emptied.
SAMPLE = 20
RETRY_S = (5.0, 300.0)
# After so many seconds without a sign of life a worker is taken for lost: one of which it is not
# known whether it has ended, and one that has not.
SILENT_S, HUNG_S = 15.0, 120.0
MOST_ATTEMPTS = 5
GIVEN_UP = (
    f"its worker ended {MOST_ATTEMPTS} times in the middle of it, as when memory runs out; free "
    "some, or run fewer workers (DOUBTLESS_WORKERS), and see the log of the worker"
)
FINISHED = ("live", "superseded", "kept")
TIDY_EVERY_S = 3600.0


@dataclass
class Scheduler:
    """Turns facts into runs, and runs into jobs."""

    app: App
    clock: Callable[[], float] = time.time
    _checked: float = field(default=0.0, init=False)
    _tidied: float = field(default=0.0, init=False)
    _complete: dict[str, tuple[int, int, int]] = field(default_factory=dict, init=False)

    def tick(self) -> None:
        """Look once. Cheap: a handful of indexed queries for each project."""
        self._take_back()
        for project in self.app.database.projects():
            try:
                self._plan(project)
            except Exception:  # one project must not keep the others waiting
                log.exception("planning of project %s failed", project.key)
        self._hand_out()
        now = self.clock()
        if now - self._tidied > TIDY_EVERY_S:
            self._tidied = now
            self.app.database.tidy_runs()

    def _take_back(self) -> None:
        """Queue runs again that have lost their worker; give up those that lose one each time."""
        for run in self.app.database.runs(status=("running",)):
            gone = is_gone((run.owner or "").partition(":")[2])
            silent = self.clock() - (run.heartbeat_at or 0.0)
            # A live worker may be starved by what else runs, or asleep with the machine.
            if not gone and silent <= (SILENT_S if gone is None else HUNG_S):
                continue
            if run.attempt >= MOST_ATTEMPTS:
                again = {"status": "failed", "finished_at": self.clock(), "error": GIVEN_UP}
            else:
                again = {
                    "status": "queued", "enqueued_at": None, "attempt": run.attempt + 1,
                    "stage": "its worker ended; starting again",
                }  # fmt: skip
            if self.app.database.take_away(run, **again):
                log.warning("run %s (%s of %s) lost its worker", run.id, run.kind, run.project)

    def _hand_out(self) -> None:
        """Give new runs to the queue, and all of them again when the queue has forgotten any."""
        now = self.clock()
        waiting = self.app.database.runs(status=("queued",))
        if now - self._checked >= 2.0:
            self._checked = now
            known = [r for r in waiting if r.enqueued_at is not None][:SAMPLE]
            if all(self.app.queue.holds(r.id, r.kind, r.attempt) for r in known):
                waiting = [r for r in waiting if r.enqueued_at is None]
            else:
                waiting = [r for r in waiting if not self.app.queue.holds(r.id, r.kind, r.attempt)]
        else:
            waiting = [r for r in waiting if r.enqueued_at is None]
        for run in waiting:
            self.app.queue.enqueue(run.id, run.kind, run.attempt)
            self.app.database.update_run(run.id, enqueued_at=now)

    def _plan(self, project: Project) -> None:
        database, settings = self.app.database, self.app.settings
        active = database.runs(project.key)
        kinds = {run.kind for run in active}
        busy = kinds & set(PUBLISHING)
        versions = database.versions(project.key)
        if not busy:
            self._abandon(project, versions)
        overdue = self.clock() - (project.synced_at or 0.0) > settings.reconcile_s
        # In a rhythm of submits nobody needs to know each label at once: a training reads them.
        settled = project.pings > 0 and self.clock() - (project.changed_at or 0.0) > PING_QUIET_S
        if "sync" not in kinds and (project.sync_requested_at is not None or overdue or settled):
            changed = project.sync_requested_at is not None or settled
            reason = "tasks or labels changed" if changed else "regular look"
            self._start(project, "sync", reason)
        if project.paused or self.app.spec(project) is None or project.synced_at is None:
            return
        counts = database.task_counts(project.key)
        if counts["new"]:
            self._complete.pop(project.key, None)
            if "features" not in kinds:
                self._start_features(project)
        if busy or self._go_on(project):
            return
        ready = counts["ready"] > 0
        decision = self.decision(project, versions)
        if ready and decision.due and self._start(project, "train", decision.reason):
            return
        if project.live_version is None:
            if counts["ready"] and not counts["new"] and "features" not in kinds:
                self._start(project, "cold", "nothing is published yet")
            return
        if not counts["new"] and self._has_unscored(project, counts):
            self._start(project, "extend", "new tasks")
        elif "prune" not in kinds and self._prunable(project, versions):
            self._start(project, "prune", "superseded versions")

    def _go_on(self, project: Project) -> bool:
        """Start again what an audit waits for and what failed, with a pause between."""
        ended = self.app.database.runs(project.key, status=("done", "failed"), limit=50)
        for kind in OF_AUDITS:
            last = next((r for r in reversed(ended) if r.kind == kind), None)
            if last is not None and last.status == "failed":
                reason = "once more, after a failure"
                if self._start(project, kind, reason, [last.payload]):
                    return True
        return False

    def _has_unscored(self, project: Project, counts: dict[str, int]) -> bool:
        """Whether the live version lacks tasks; not asked again while nothing has changed."""
        assert project.live_version is not None
        state = (project.live_version, counts["ready"], counts["broken"])
        if self._complete.get(project.key) == state:
            return False
        if self.app.database.unscored(project.key, project.live_version):
            return True
        self._complete[project.key] = state
        return False

    def decision(self, project: Project, versions: Sequence[Version]) -> Decision:
        """Whether this project should train now, and why."""
        return training_decision(
            self.app.settings, self.app.database, project, versions, self.clock()
        )

    def _start(
        self, project: Project, kind: str, reason: str, payloads: Sequence[dict[str, Any]] = ({},)
    ) -> bool:
        """Record runs, unless the last of their kind failed a moment ago."""
        history = [
            r
            for r in self.app.database.runs(project.key, status=("done", "failed"), limit=50)
            if r.kind == kind
        ]
        failures = list(itertools.takewhile(lambda r: r.status == "failed", reversed(history)))
        if failures:
            pause = min(RETRY_S[0] * 2 ** (len(failures) - 1), RETRY_S[1])
            if self.clock() - (failures[0].finished_at or 0.0) < pause:
                return False
        for payload in payloads:
            self.app.database.add_run(project.key, kind, reason=reason, payload=payload)
        return True

    def _start_features(self, project: Project) -> None:
        todo = [t.task_id for t in self.app.database.tasks(project.key, state="new")]
        starts = range(0, len(todo), SHARD)[:WAVE]
        shards = [{"task_ids": todo[i : i + SHARD]} for i in starts]
        self._start(project, "features", f"{len(todo)} new images", shards)

    def _abandon(self, project: Project, versions: Sequence[Version]) -> None:
        """Versions whose publication broke off are never continued."""
        for version in versions:
            if version.status in ("building", "publishing"):
                log.warning("version %s of %s is abandoned", version.name, project.key)
                self.app.database.update_version(
                    project.key, version.number, status="abandoned",
                    reason="its publication broke off; a later version replaces it",
                )  # fmt: skip

    def _prunable(self, project: Project, versions: Sequence[Version]) -> bool:
        doomed = [v for v in versions if v.status in ("superseded", "abandoned", "kept")]
        keep = self.app.settings.keep_versions
        needed = needed_versions(self.app.database, project)
        return any(v.on_platform and v.number not in needed for v in doomed) or (
            len({v.bundle for v in doomed if v.bundle}) > keep + 1
        )


def training_decision(
    settings: Settings,
    database: Database,
    project: Project,
    versions: Sequence[Version],
    now: float,
) -> Decision:
    """Whether a project should train now, from the facts in the database."""
    finished = [v for v in versions if v.kind != "cold" and v.status in FINISHED]
    latest = finished[-1] if finished else None
    kind = kind_of_project(project)
    # What is being read is stored before its pings are settled: meanwhile the sum counts it twice.
    reading = any(r.kind == "sync" and r.status == "running" for r in database.runs(project.key))
    count = max if reading else operator.add
    return decide(
        held=held(database, project),
        new=count(project.changes - max((v.changes for v in finished), default=0), project.pings),
        labels=count(database.label_count(project.key), project.pings),
        quiet_for_s=None if project.changed_at is None else now - project.changed_at,
        requested=project.request_reason if project.requested_at else None,
        outdated=latest is not None
        and not latest.is_of(project.config_hash, kind.backbone(settings)),
        retrain_after=settings.retrain_after,
        retrain_growth=settings.retrain_growth,
        quiet_s=kind.quiet_s(settings),
    )
