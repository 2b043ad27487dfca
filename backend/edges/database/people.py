"""Who gave which label, and how good people's labels are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.audits import labels_of_people
from backend.edges.database.store import CHUNK, Store
from backend.records import Consensus
from model.annotators.base import Annotator


class People(Store):
    """The annotators of a project."""

    def answers_of_people(
        self, key: str, task_ids: Sequence[int] | None = None
    ) -> dict[int, list[tuple[int | None, str]]]:
        """Task -> who gave which label, oldest first; see `Labels.answers`.

        Whose label it is may be unknown. Of all tasks, or of a few that are named.
        """
        a = t.answers.c
        named = sa.true() if task_ids is None else a.task_id.in_(task_ids)
        query = (
            sa.select(a.task_id, a.completed_by, a.label)
            .where(labels_of_people(key) & named)
            .order_by(a.updated_at, a.annotation_id)
        )
        given: dict[int, list[tuple[int | None, str]]] = {}
        with self.reader.connect() as c:
            for task_id, person, label in c.execute(query):
                given.setdefault(task_id, []).append((person, str(label)))
        return given

    def put_annotators(self, key: str, people: Iterable[Annotator]) -> None:
        """Record how people label, in place of what was known before."""
        rows = [{"project": key, **vars(person)} for person in people]
        with self.engine.begin() as c:
            c.execute(t.annotators.delete().where(t.annotators.c.project == key))
            if rows:
                c.execute(t.annotators.insert(), rows)

    def annotators(self, key: str) -> list[Annotator]:
        """How people label by the last training, least quality first, unknown ones last."""
        p = t.annotators.c
        query = (
            sa.select(*(column for column in p if column.name != "project"))
            .where(p.project == key)
            .order_by(p.quality.is_(None), p.quality, p.id)
        )
        with self.reader.connect() as c:
            return [Annotator(**row) for row in c.execute(query).mappings()]

    def put_consensus(self, key: str, rows: Sequence[Consensus]) -> None:
        """Record what labelled tasks come to, in place of what was known before."""
        values = [{"project": key, **vars(row)} for row in rows]
        with self.engine.begin() as c:
            c.execute(t.consensus.delete().where(t.consensus.c.project == key))
            for start in range(0, len(values), CHUNK):
                c.execute(t.consensus.insert(), values[start : start + CHUNK])

    def doubted_tasks(self, key: str, *, below: float) -> list[int]:
        """Labelled tasks whose consensus is less sure than `below`, least sure first."""
        n = t.consensus.c
        query = sa.select(n.task_id).where((n.project == key) & (n.p_right < below))
        with self.reader.connect() as c:
            return list(c.scalars(query.order_by(n.p_right, n.task_id)))

    def consensus(self, key: str, task_ids: Sequence[int] | None = None) -> list[Consensus]:
        """What labelled tasks come to, least sure first; all, or a few that are named."""
        n = t.consensus.c
        named = sa.true() if task_ids is None else n.task_id.in_(task_ids)
        query = (
            sa.select(*(column for column in n if column.name != "project"))
            .where((n.project == key) & named)
            .order_by(n.p_right, n.task_id)
        )
        with self.reader.connect() as c:
            rows = [dict(row) for row in c.execute(query).mappings()]
        return [
            Consensus(
                **row
                | {
                    "votes": [(who, text) for who, text in row["votes"]],
                    "probs": row["probs"] or {},
                }
            )
            for row in rows
        ]
