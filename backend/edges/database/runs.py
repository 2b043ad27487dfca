"""Work to be done, and the events that it follows from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.store import Store
from backend.records import Run

ACTIVE = ("queued", "running")


class Runs(Store):
    """Runs of the workers, from being wanted to their end, and webhooks seen."""

    def add_run(
        self, key: str, kind: str, *, reason: str = "", payload: Mapping[str, Any] | None = None
    ) -> int:
        """Record work to be done; returns its id."""
        with self.engine.begin() as c:
            result = c.execute(
                t.runs.insert().values(
                    project=key,
                    kind=kind,
                    reason=reason,
                    payload=dict(payload or {}),
                    created_at=time.time(),
                )
            )
            assert result.inserted_primary_key is not None
            return int(result.inserted_primary_key[0])

    def run(self, run_id: int) -> Run | None:
        """One run, or ``None`` when its project was forgotten."""
        with self.reader.connect() as c:
            row = c.execute(sa.select(t.runs).where(t.runs.c.id == run_id)).mappings().first()
            return None if row is None else Run(**row)

    def runs(
        self, key: str | None = None, *, status: Sequence[str] = ACTIVE, limit: int = 1000
    ) -> list[Run]:
        """Runs by status, oldest first."""
        query = sa.select(t.runs).where(t.runs.c.status.in_(status))
        if key is not None:
            query = query.where(t.runs.c.project == key)
        query = query.order_by(t.runs.c.id.desc()).limit(limit)
        with self.reader.connect() as c:
            return [Run(**row) for row in c.execute(query).mappings()][::-1]

    def durations(self, key: str, kind: str, newest: int) -> list[float]:
        """Seconds that the newest finished runs of a kind took."""
        r = t.runs.c
        query = (
            sa.select(r.finished_at - r.started_at)
            .where(
                (r.project == key)
                & (r.kind == kind)
                & (r.status == "done")
                & r.finished_at.is_not(None)
                & r.started_at.is_not(None)
            )
            .order_by(r.id.desc())
            .limit(newest)
        )
        with self.reader.connect() as c:
            return [float(x) for x in c.scalars(query)]

    def update_run(self, run_id: int, **values: Any) -> None:
        """Set columns of a run."""
        with self.engine.begin() as c:
            c.execute(t.runs.update().where(t.runs.c.id == run_id).values(**values))

    def claim_run(self, run_id: int, owner: str) -> Run | None:
        """Take a queued run; ``None`` when somebody else has it or it is over."""
        now = time.time()
        with self.engine.begin() as c:
            done = c.execute(
                t.runs.update()
                .where((t.runs.c.id == run_id) & (t.runs.c.status == "queued"))
                .values(status="running", owner=owner, started_at=now, heartbeat_at=now)
            )
        return self.run(run_id) if done.rowcount == 1 else None

    def beat(self, run_id: int, owner: str, **values: Any) -> bool:
        """Say that a run is alive; False when it was taken away from this owner."""
        with self.engine.begin() as c:
            done = c.execute(
                t.runs.update()
                .where(
                    (t.runs.c.id == run_id)
                    & (t.runs.c.owner == owner)
                    & (t.runs.c.status == "running")
                )
                .values(heartbeat_at=time.time(), **values)
            )
        return bool(done.rowcount == 1)

    def take_away(self, run: Run, **values: Any) -> bool:
        """Change a run whose worker is lost; False when it has said since that it is alive."""
        n = t.runs.c
        with self.engine.begin() as c:
            done = c.execute(
                t.runs.update()
                .where(
                    (n.id == run.id)
                    & (n.status == "running")
                    & (n.owner == run.owner)
                    & (n.heartbeat_at == run.heartbeat_at)
                )
                .values(owner=None, **values)
            )
        return bool(done.rowcount == 1)

    def tidy_runs(self, keep_s: float = 7 * 86400) -> None:
        """Forget finished runs and events older than that."""
        limit = time.time() - keep_s
        with self.engine.begin() as c:
            c.execute(
                t.runs.delete().where(
                    t.runs.c.status.in_(("done", "failed")) & (t.runs.c.created_at < limit)
                )
            )
            c.execute(t.events.delete().where(t.events.c.received_at < limit))

    def record_event(self, key: str, event_key: str, action: str) -> bool:
        """Record a webhook; False when it was delivered before."""
        with self.engine.begin() as c:
            count = self._insert_ignore(
                c, t.events,
                [{"project": key, "key": event_key, "action": action, "received_at": time.time()}],
            )  # fmt: skip
        return count == 1

    def count_ping(self, key: str) -> None:
        """Somebody labelled something; what it was is read later."""
        p = t.projects.c
        with self.engine.begin() as c:
            c.execute(
                t.projects.update()
                .where(p.key == key)
                .values(pings=p.pings + 1, changed_at=time.time())
            )

    def settle_pings(self, key: str, count: int) -> None:
        """What so many pings told of has been read."""
        p = t.projects.c
        with self.engine.begin() as c:
            c.execute(
                t.projects.update()
                .where(p.key == key)
                .values(pings=sa.func.max(p.pings - count, 0))
                if self.engine.dialect.name == "sqlite"
                else t.projects.update()
                .where(p.key == key)
                .values(pings=sa.func.greatest(p.pings - count, 0))
            )

    def submit_times(self, host: str, *, newest: int = 30) -> list[float]:
        """When people last submitted or skipped anywhere on that Label Studio, oldest first."""
        query = (
            sa.select(t.events.c.received_at)
            .join(t.projects, t.projects.c.key == t.events.c.project)
            .where(
                (t.projects.c.host == host)
                & t.events.c.action.in_(("ANNOTATION_CREATED", "ANNOTATION_UPDATED"))
            )
            .order_by(t.events.c.received_at.desc())
            .limit(newest)
        )
        with self.reader.connect() as c:
            return sorted(float(x) for x in c.scalars(query))
