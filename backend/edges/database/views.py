"""Aggregates for people to look at, computed by the database however large the pool is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.store import Store
from backend.records import Compared, PoolTask, Run, Score


@dataclass(frozen=True)
class Happened:
    """A webhook that came: what it announced, and when (seconds since 1970)."""

    action: str
    received_at: float


class Views(Store):
    """What the dashboard shows of the open pool: scored tasks that nobody submitted or skipped."""

    def histogram(self, key: str, number: int, bins: int) -> list[int]:
        """How many open tasks have a P(right) in each of so many equal parts of 0 to 1."""
        scaled = t.scores.c.p_right * bins
        # CAST rounds in PostgreSQL and cuts off in SQLite, whose builds may lack floor().
        whole = sa.func.floor(scaled) if self.engine.dialect.name == "postgresql" else scaled
        bucket = sa.cast(whole, sa.Integer)
        query = sa.select(bucket, sa.func.count()).where(_open(key, number)).group_by(bucket)
        counts = [0] * bins
        with self.reader.connect() as c:
            for found, count in c.execute(query):
                counts[min(max(int(found), 0), bins - 1)] += int(count)
        return counts

    def most_doubtful(self, key: str, number: int, limit: int) -> list[Score]:
        """The open tasks with the lowest P(right), lowest first.

        Without those that somebody is to check blind: who looks here may be who checks.
        """
        s = t.scores.c
        columns = [c for c in s if c.name not in ("project", "version")]
        query = (
            sa.select(*columns)
            .where(_open(key, number) & s.hidden.is_not(True))
            .order_by(s.p_right, s.task_id)
            .limit(limit)
        )
        with self.reader.connect() as c:
            return [Score(**row) for row in c.execute(query).mappings()]

    def put_compared(self, key: str, rows: Sequence[Compared]) -> None:
        """Record how tasks stand beside the labelled ones, in place of what was known before."""
        values = [{"project": key, **vars(row)} for row in rows]
        with self.engine.begin() as c:
            c.execute(t.compared.delete().where(t.compared.c.project == key))
            if values:
                c.execute(t.compared.insert(), values)

    def compared(self, key: str, task_ids: Sequence[int]) -> dict[int, Compared]:
        """How a few tasks stand beside the labelled ones, of those where it is known."""
        i = t.compared.c
        query = sa.select(i.task_id, i.novelty, i.nearest).where(
            (i.project == key) & i.task_id.in_(task_ids)
        )
        with self.reader.connect() as c:
            return {
                row.task_id: Compared(
                    task_id=row.task_id,
                    novelty=row.novelty,
                    nearest=[(int(task), float(similarity)) for task, similarity in row.nearest],
                )
                for row in c.execute(query)
            }

    def predicted(self, key: str, number: int) -> list[tuple[str, int, float]]:
        """What is said of the open tasks: each text, how often, and its mean P(right)."""
        s = t.scores.c
        query = (
            sa.select(s.label, sa.func.count(), sa.func.avg(s.p_right))
            .where(_open(key, number) & s.label.is_not(None))
            .group_by(s.label)
        )
        with self.reader.connect() as c:
            return [(str(text), int(n), float(p)) for text, n, p in c.execute(query)]

    def drawn_among(self, key: str, task_ids: Sequence[int]) -> set[int]:
        """Which of a few tasks were drawn by chance for their label."""
        d = t.draws.c
        query = sa.select(d.task_id).where(
            (d.project == key) & (d.kind == "random") & d.task_id.in_(task_ids)
        )
        with self.reader.connect() as c:
            return set(c.scalars(query))

    def task(self, key: str, task_id: int) -> PoolTask | None:
        """One task, or ``None`` when it is not of this project."""
        c_ = t.tasks.c
        query = sa.select(c_.task_id, c_.reference, c_.image_hash, c_.state, c_.error).where(
            (c_.project == key) & (c_.task_id == task_id)
        )
        with self.reader.connect() as c:
            row = c.execute(query).mappings().first()
        return None if row is None else PoolTask(**row)

    def events(self, key: str, limit: int) -> list[Happened]:
        """The newest webhooks, newest first."""
        e = t.events.c
        query = (
            sa.select(e.action, e.received_at)
            .where(e.project == key)
            .order_by(e.received_at.desc(), e.id.desc())
            .limit(limit)
        )
        with self.reader.connect() as c:
            return [Happened(str(row.action), float(row.received_at)) for row in c.execute(query)]

    def noteworthy_runs(self, key: str, limit: int) -> list[Run]:
        """The newest runs, newest first, without looks and clearing up that went well."""
        r = t.runs.c
        dull = r.kind.in_(("sync", "prune")) & (r.status == "done")
        query = sa.select(t.runs).where((r.project == key) & ~dull).order_by(r.id.desc())
        with self.reader.connect() as c:
            return [Run(**row) for row in c.execute(query.limit(limit)).mappings()]


def _open(key: str, number: int) -> sa.ColumnElement[bool]:
    s, a = t.scores.c, t.answers.c
    touched = sa.exists().where((a.project == key) & (a.task_id == s.task_id))
    return (s.project == key) & (s.version == number) & s.p_right.is_not(None) & ~touched
