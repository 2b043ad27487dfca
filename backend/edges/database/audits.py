"""What somebody wants to accept unseen, what is asked for that, and what was accepted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.edges import schema as t
from backend.edges.database.store import CHUNK, TURN, Store
from backend.records import Audit, AuditItem

PENDING, ACCEPTED = "pending", "accepted"
UNSEEN = (PENDING, ACCEPTED)
Range = tuple[int, int]
_ITEM = ("task_id", "rank", "state", "said", "annotation_id", "made_at")


@dataclass(frozen=True)
class Unseen:
    """A task whose annotation stands for a prediction that nobody has looked at.

    Attributes:
        annotation_id: that annotation; None while it is being made.
        made_at: when it was made; once a person has saved it again, it is theirs.
    """

    annotation_id: int | None
    made_at: str | None

    def stands_in(self, row: Mapping[str, Any]) -> bool:
        """Whether an annotation of the task, a row of the database, is that one."""
        if self.annotation_id is None:
            return bool(row.get("made_in_bulk"))
        return self.annotation_id == int(row["annotation_id"]) and self.made_at == str(
            row["updated_at"]
        )


def accepted_unseen(c: Connection, key: str, task_ids: Iterable[int]) -> dict[int, Unseen]:
    """Those of the tasks whose annotation may stand for a prediction; see `by_people`."""
    i, ids = t.audit_items.c, sorted(task_ids)
    found: dict[int, Unseen] = {}
    for start in range(0, len(ids), CHUNK):
        query = sa.select(i.task_id, i.annotation_id, i.made_at).where(
            (i.project == key) & i.task_id.in_(ids[start : start + CHUNK]) & i.state.in_(UNSEEN)
        )
        found |= {row.task_id: Unseen(row.annotation_id, row.made_at) for row in c.execute(query)}
    return found


def by_people() -> sa.ColumnElement[bool]:
    """Of rows of ``annotations``: not one that stands for a prediction nobody has looked at.

    Known by its id and by when it was made, and never by its label: how that is written changes
    with the labeling config. While it is being made it has no id yet, but the mark of Label
    Studio's bulk action.
    """
    a, i = t.answers.c, t.audit_items.c
    made = (i.annotation_id.is_(None) & a.made_in_bulk.is_(True)) | (
        (i.annotation_id == a.annotation_id) & (i.made_at == a.updated_at)
    )
    return ~sa.exists(
        sa.select(1).where(
            (i.project == a.project) & (i.task_id == a.task_id) & i.state.in_(UNSEEN) & made
        )
    )


def labels_of_people(key: str) -> sa.ColumnElement[bool]:
    """Of rows of ``annotations``: the labels that people gave in a project, no skips."""
    a = t.answers.c
    return (a.project == key) & a.cancelled.is_(False) & a.label.is_not(None) & by_people()


def _exists(table: sa.Table, i: Any) -> sa.ColumnElement[bool]:
    """Whether a table has a row of an item's task."""
    return sa.exists(
        sa.select(1).where((table.c.project == i.project) & (table.c.task_id == i.task_id))
    )


def _answered(i: Any) -> sa.ColumnElement[bool]:
    return _exists(t.answers, i)


def _within(ranks: Sequence[Range]) -> sa.ColumnElement[bool]:
    """Whether an item's rank is in one of the ranges, each up to before its end."""
    rank = t.audit_items.c.rank
    return sa.or_(sa.false(), *((rank >= start) & (rank < stop) for start, stop in ranks))


class Audits(Store):
    """Audits and the tasks they are about."""

    def add_audit(self, audit: Mapping[str, Any], items: Sequence[AuditItem]) -> int | None:
        """Record an audit with all of its part of the pool; returns its id.

        In turns, because webhooks wait for whoever writes: until all is there it is only planned.
        Returns None where another one of the same version and attempt was faster.
        """
        now = time.time()
        values = {"created_at": now, "changed_at": now, **audit}
        try:
            with self.engine.begin() as c:
                made = c.execute(t.audits.insert().values(**values | {"status": "planned"}))
                assert made.inserted_primary_key is not None
                number = int(made.inserted_primary_key[0])
        except sa.exc.IntegrityError:
            return None
        rows = [{"audit": number, "project": audit["project"], **vars(item)} for item in items]
        for start in range(0, len(rows), TURN):
            with self.engine.begin() as c:
                c.execute(t.audit_items.insert(), rows[start : start + TURN])
        self.update_audit(number, status=audit["status"])
        return number

    def audits(self, key: str, *, status: Sequence[str] | None = None) -> list[Audit]:
        """Audits of a project, oldest first; all, or those in one of the states."""
        query = sa.select(t.audits).where(t.audits.c.project == key).order_by(t.audits.c.id)
        if status is not None:
            query = query.where(t.audits.c.status.in_(status))
        with self.reader.connect() as c:
            return [Audit(**row) for row in c.execute(query).mappings()]

    def update_audit(self, number: int, *, only_if: Sequence[str] = (), **values: Any) -> bool:
        """Set columns of an audit; returns False, with nothing set, if its state is another."""
        mine = t.audits.c.id == number
        if only_if:
            mine &= t.audits.c.status.in_(only_if)
        with self.engine.begin() as c:
            done = c.execute(t.audits.update().where(mine).values(changed_at=time.time(), **values))
            return done.rowcount == 1

    def audit_items(
        self, number: int, *, state: str | None = None, ranks: Sequence[Range] | None = None
    ) -> list[AuditItem]:
        """Tasks of an audit by rank; of one state, and of some ranks, if that is said."""
        i = t.audit_items.c
        query = sa.select(*(i[name] for name in _ITEM)).where(i.audit == number).order_by(i.rank)
        if state is not None:
            query = query.where(i.state == state)
        if ranks is not None:
            query = query.where(_within(ranks))
        with self.reader.connect() as c:
            return [AuditItem(**row) for row in c.execute(query).mappings()]

    def audit_states(self, number: int) -> dict[str, int]:
        """Number of tasks of an audit by state."""
        i = t.audit_items.c
        query = sa.select(i.state, sa.func.count()).where(i.audit == number).group_by(i.state)
        with self.reader.connect() as c:
            return {str(state): int(count) for state, count in c.execute(query)}

    def judged_tasks(self, key: str, task_ids: Sequence[int], *, skips: bool) -> set[int]:
        """Those of the tasks that a person has looked at and answered.

        What was made of predictions in bulk, by us or by somebody in Label Studio, is no look.

        Args:
            key: the project.
            task_ids: of these.
            skips: whether a skip is an answer.
        """
        a = t.answers.c
        looked = by_people() & a.made_in_bulk.is_not(True)
        looked &= sa.true() if skips else a.cancelled.is_(False)
        found: set[int] = set()
        with self.reader.connect() as c:
            for start in range(0, len(task_ids), CHUNK):
                part = a.task_id.in_(task_ids[start : start + CHUNK])
                query = sa.select(a.task_id).where((a.project == key) & part & looked)
                found.update(c.scalars(query.distinct()))
        return found

    def proved(
        self, number: int, version: int, ranks: Sequence[Range], *, at_least: float
    ) -> tuple[int, int, float | None]:
        """Tasks of some ranks of an audit that are neither labelled nor asked for.

        Returns:
            How many there are, how many of them have such a P(right), and the P(right) of the last
            one of the ranks.
        """
        i, s = t.audit_items.c, t.scores.c
        scored = (s.project == i.project) & (s.version == version) & (s.task_id == i.task_id)
        sure = sa.func.sum(sa.case((s.p_right >= at_least, 1), else_=0))
        free = (i.audit == number) & _within(ranks) & i.state.in_(("", PENDING)) & ~_answered(i)
        counts = sa.select(sa.func.count(), sure).where(free & scored)
        end = max((stop for _, stop in ranks), default=0) - 1
        last = sa.select(s.p_right).where((i.audit == number) & (i.rank == end) & scored)
        with self.reader.connect() as c:
            count, many = c.execute(counts).one()
            return int(count), int(many or 0), c.scalar(last)

    def update_items(self, number: int, task_ids: Iterable[int], **values: Any) -> None:
        """Set columns of tasks of an audit."""
        i, ids = t.audit_items.c, list(task_ids)
        for start in range(0, len(ids), TURN):
            part = (i.audit == number) & i.task_id.in_(ids[start : start + TURN])
            with self.engine.begin() as c:
                c.execute(t.audit_items.update().where(part).values(**values))

    def drop_pending(self, number: int) -> None:
        """Tasks that were about to be accepted are not any more."""
        i = t.audit_items.c
        with self.engine.begin() as c:
            c.execute(
                t.audit_items.update()
                .where((i.audit == number) & (i.state == PENDING))
                .values(state="")
            )

    def mark_accepted(self, number: int, made: Mapping[int, tuple[int, str]]) -> None:
        """Record the annotation, and its time, that stands for the prediction of each task."""
        i = t.audit_items.c
        if not made:
            return
        with self.engine.begin() as c:
            c.execute(
                t.audit_items.update()
                .where((i.audit == number) & (i.task_id == sa.bindparam("task")))
                .values(
                    state=ACCEPTED,
                    annotation_id=sa.bindparam("made"),
                    made_at=sa.bindparam("at"),
                ),
                [{"task": i, "made": a, "at": at} for i, (a, at) in made.items()],
            )
