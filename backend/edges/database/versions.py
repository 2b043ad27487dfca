"""Versions of a model, and what each says of every task."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.store import CHUNK, TURN, Store
from backend.errors import UnknownVersionError
from backend.records import Contradicted, Score, Version


class Versions(Store):
    """Versions with their scores and judgements."""

    def add_version(self, version: Version) -> None:
        """Record a new version."""
        with self.engine.begin() as c:
            c.execute(t.versions.insert().values(**version.__dict__))

    def update_version(self, key: str, number: int, **values: Any) -> None:
        """Set columns of a version."""
        with self.engine.begin() as c:
            c.execute(
                t.versions.update()
                .where((t.versions.c.project == key) & (t.versions.c.number == number))
                .values(**values)
            )

    def versions(self, key: str) -> list[Version]:
        """Versions of a project, oldest first."""
        with self.reader.connect() as c:
            rows = c.execute(
                sa.select(t.versions)
                .where(t.versions.c.project == key)
                .order_by(t.versions.c.number)
            ).mappings()
            return [Version(**row) for row in rows]

    def version(self, key: str, number: int) -> Version:
        """One version.

        Raises:
            UnknownVersionError: there is none of that number.
        """
        with self.reader.connect() as c:
            row = (
                c.execute(
                    sa.select(t.versions).where(
                        (t.versions.c.project == key) & (t.versions.c.number == number)
                    )
                )
                .mappings()
                .first()
            )
        if row is None:
            raise UnknownVersionError(f"project {key} has no version {number}")
        return Version(**row)

    def go_live(self, key: str, number: int, *, expected: int | None) -> bool:
        """Make a version live if `expected` still is; the others become superseded.

        Returns:
            False when another version went live in between: nothing was changed.
        """
        p, v = t.projects.c, t.versions.c
        with self.engine.begin() as c:
            current = p.live_version.is_(None) if expected is None else p.live_version == expected
            done = c.execute(
                t.projects.update().where((p.key == key) & current).values(live_version=number)
            )
            if done.rowcount != 1:
                return False
            c.execute(
                t.versions.update()
                .where((v.project == key) & (v.status == "live"))
                .values(status="superseded")
            )
            c.execute(
                t.versions.update()
                .where((v.project == key) & (v.number == number))
                .values(status="live", published_at=time.time())
            )
        return True

    def put_scores(self, key: str, number: int, rows: Iterable[Score]) -> None:
        """Record what a version says of tasks; a later word replaces an earlier one."""
        values = [{"project": key, "version": number, **row.__dict__} for row in rows]
        for start in range(0, len(values), TURN):
            part = values[start : start + TURN]
            with self.engine.begin() as c:
                c.execute(
                    t.scores.delete().where(
                        (t.scores.c.project == key)
                        & (t.scores.c.version == number)
                        & t.scores.c.task_id.in_([row["task_id"] for row in part])
                    )
                )
                c.execute(t.scores.insert(), part)

    def scores(
        self, key: str, number: int, task_ids: Sequence[int] | None = None
    ) -> dict[int, Score]:
        """What a version says, by task; of all tasks, or of those given."""
        columns = [c for c in t.scores.c if c.name not in ("project", "version")]
        where = (t.scores.c.project == key) & (t.scores.c.version == number)
        found: dict[int, Score] = {}
        with self.reader.connect() as c:
            if task_ids is None:
                queries = [sa.select(*columns).where(where)]
            else:
                queries = [
                    sa.select(*columns).where(
                        where & t.scores.c.task_id.in_(task_ids[start : start + CHUNK])
                    )
                    for start in range(0, len(task_ids), CHUNK)
                ]
            for query in queries:
                found |= {row["task_id"]: Score(**row) for row in c.execute(query).mappings()}
        return found

    def place_scores(
        self, key: str, number: int, places: Mapping[int, tuple[float, int | None, bool]]
    ) -> None:
        """Give tasks another place in the queue; P(right) stays.

        Args:
            key: the project.
            number: of the version.
            places: task -> score, cluster, and whether people do not see what is predicted.
        """
        s = t.scores.c
        if not places:
            return
        with self.engine.begin() as c:
            c.execute(
                t.scores.update()
                .where(
                    (s.project == key) & (s.version == number) & (s.task_id == sa.bindparam("task"))
                )
                .values(
                    score=sa.bindparam("to"),
                    cluster=sa.bindparam("group"),
                    hidden=sa.bindparam("unseen"),
                ),
                [
                    {"task": i, "to": to, "group": group, "unseen": unseen}
                    for i, (to, group, unseen) in places.items()
                ],
            )

    def out_of_place(self, key: str, number: int, *, below: float) -> dict[int, tuple[bool, bool]]:
        """Open tasks that a trained version has in front of the queue, or hides what it says of.

        Returns:
            Task -> whether its score is below that, and whether it is hidden.
        """
        s, a = t.scores.c, t.answers.c
        answered = sa.exists(
            sa.select(1).where((a.project == s.project) & (a.task_id == s.task_id))
        )
        query = sa.select(s.task_id, s.score < below, s.hidden).where(
            (s.project == key) & (s.version == number) & s.p_right.is_not(None)
            & ((s.score < below) | s.hidden.is_(True)) & ~answered
        )  # fmt: skip
        with self.reader.connect() as c:
            return {task: (bool(front), bool(hid)) for task, front, hid in c.execute(query)}

    def unscored(self, key: str, number: int) -> int:
        """Tasks whose image is settled but that the version has not scored."""
        known = sa.select(t.scores.c.task_id).where(
            (t.scores.c.project == key) & (t.scores.c.version == number)
        )
        with self.reader.connect() as c:
            return int(
                c.scalar(
                    sa.select(sa.func.count())
                    .select_from(t.tasks)
                    .where(
                        (t.tasks.c.project == key)
                        & (t.tasks.c.state != "new")
                        & t.tasks.c.task_id.not_in(known)
                    )
                )
                or 0
            )

    def open_tasks(self, key: str, number: int, *, at_least: float) -> tuple[int, int]:
        """Scored tasks that nobody has answered, and how many have such a P(right)."""
        s, a = t.scores.c, t.answers.c
        answered = sa.exists(
            sa.select(1).where((a.project == s.project) & (a.task_id == s.task_id))
        )
        sure = sa.func.sum(sa.case((s.p_right >= at_least, 1), else_=0))
        query = sa.select(sa.func.count(), sure).where(
            (s.project == key) & (s.version == number) & ~answered
        )
        with self.reader.connect() as c:
            count, many = c.execute(query).one()
        return int(count), int(many or 0)

    def scored_tasks(self, key: str, number: int) -> set[int]:
        """Tasks that a version has scored."""
        s = t.scores.c
        query = sa.select(s.task_id).where((s.project == key) & (s.version == number))
        with self.reader.connect() as c:
            return set(c.scalars(query))

    def drop_scores(self, key: str, number: int) -> None:
        """Forget what a superseded version said."""
        with self.engine.begin() as c:
            c.execute(
                t.scores.delete().where(
                    (t.scores.c.project == key) & (t.scores.c.version == number)
                )
            )

    def put_label_errors(self, key: str, number: int, rows: Sequence[Contradicted]) -> None:
        """Record what a version makes of labels, in place of what earlier ones made of them."""
        values = [{"project": key, "version": number, **vars(row)} for row in rows]
        with self.engine.begin() as c:
            c.execute(t.label_errors.delete().where(t.label_errors.c.project == key))
            for start in range(0, len(values), CHUNK):
                c.execute(t.label_errors.insert(), values[start : start + CHUNK])

    def label_errors(self, key: str, *, below: float, limit: int) -> list[Contradicted]:
        """Labels that are right with less than that probability, least first.

        Those that people have changed since are left out; of several annotators' nobody can tell.
        """
        e, a = t.label_errors.c, t.answers.c
        of_task = (a.project == e.project) & (a.task_id == e.task_id)
        answers = of_task & a.label.is_not(None)
        several = sa.select(sa.func.count()).where(answers).scalar_subquery() > 1
        still = several | sa.exists(sa.select(1).where(of_task & (a.label == e.label)))
        query = (
            sa.select(e.task_id, e.p_right, e.label, e.why)
            .where((e.project == key) & (e.p_right < below) & still)
            .order_by(e.p_right, e.task_id)
            .limit(limit)
        )
        with self.reader.connect() as c:
            return [Contradicted(**row) for row in c.execute(query).mappings()]

    def put_judgements(self, key: str, number: int, right: Mapping[int, bool]) -> None:
        """Record on which random-share tasks a version was right, out of fold."""
        rows = [
            {"project": key, "version": number, "task_id": i, "right": bool(ok)}
            for i, ok in right.items()
        ]
        with self.engine.begin() as c:
            self._insert_ignore(c, t.judgements, rows)

    def judgements(self, key: str, number: int) -> dict[int, bool]:
        """On which random-share tasks a version was right, out of fold."""
        j = t.judgements.c
        with self.reader.connect() as c:
            rows = c.execute(
                sa.select(j.task_id, j.right).where((j.project == key) & (j.version == number))
            )
            return {int(i): bool(ok) for i, ok in rows}
