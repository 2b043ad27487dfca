"""Tasks, what people answered, and why a task was asked for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.audits import accepted_unseen, by_people, labels_of_people
from backend.edges.database.store import CHUNK, Store
from backend.edges.labels.merge import majority
from backend.records import Draw, PoolTask

OF_TASKS = (
    t.scores, t.judgements, t.draws, t.label_errors, t.consensus, t.compared, t.answers, t.tasks,
)  # fmt: skip


def _named(
    query: sa.Select[Any], column: sa.ColumnElement[Any], task_ids: Sequence[int] | None
) -> Iterator[sa.Select[Any]]:
    """A query for all tasks, or one for each so many of those named, as databases take them."""
    if task_ids is None:
        yield query
        return
    for start in range(0, len(task_ids), CHUNK):
        yield query.where(column.in_(task_ids[start : start + CHUNK]))


class Labels(Store):
    """The pool of a project and its labels."""

    def put_tasks(self, key: str, found: Mapping[int, str]) -> int:
        """Record tasks and their image references; a changed reference is read again.

        Returns:
            How many were new or changed.
        """
        with self.engine.begin() as c:
            known = dict(
                c.execute(
                    sa.select(t.tasks.c.task_id, t.tasks.c.reference).where(
                        t.tasks.c.project == key
                    )
                ).all()
            )
            fresh = [
                {"project": key, "task_id": i, "reference": ref, "state": "new"}
                for i, ref in found.items()
                if i not in known
            ]
            changed = [i for i, ref in found.items() if i in known and known[i] != ref]
            self._insert_ignore(c, t.tasks, fresh)
            for i in changed:
                c.execute(
                    t.tasks.update()
                    .where((t.tasks.c.project == key) & (t.tasks.c.task_id == i))
                    .values(reference=found[i], state="new", image_hash=None, error=None)
                )
        return len(fresh) + len(changed)

    def drop_tasks(self, key: str, task_ids: Iterable[int]) -> None:
        """Forget deleted tasks, their labels, draws and scores."""
        ids = list(task_ids)
        with self.engine.begin() as c:
            for start in range(0, len(ids), CHUNK):
                part = ids[start : start + CHUNK]
                labelled = c.scalar(
                    sa.select(sa.func.count())
                    .select_from(t.answers)
                    .where(
                        (t.answers.c.project == key) & t.answers.c.task_id.in_(part) & by_people()
                    )
                )
                for table in OF_TASKS:
                    of_these = (table.c.project == key) & table.c.task_id.in_(part)
                    c.execute(table.delete().where(of_these))
                if labelled:
                    self._count_change(c, key, int(labelled))

    def tasks(
        self, key: str, *, state: str | None = None, limit: int | None = None
    ) -> list[PoolTask]:
        """Tasks of a project by id; the first so many of them."""
        query = sa.select(
            t.tasks.c.task_id, t.tasks.c.reference, t.tasks.c.image_hash, t.tasks.c.state,
            t.tasks.c.error,
        ).where(t.tasks.c.project == key)  # fmt: skip
        if state is not None:
            query = query.where(t.tasks.c.state == state)
        with self.reader.connect() as c:
            return [
                PoolTask(**row)
                for row in c.execute(query.order_by(t.tasks.c.task_id).limit(limit)).mappings()
            ]

    def task_counts(self, key: str) -> dict[str, int]:
        """Number of tasks by state: ``new``, ``ready``, ``broken``."""
        with self.reader.connect() as c:
            rows = c.execute(
                sa.select(t.tasks.c.state, sa.func.count())
                .where(t.tasks.c.project == key)
                .group_by(t.tasks.c.state)
            )
            return {"new": 0, "ready": 0, "broken": 0} | dict(rows.all())

    def mark_images(self, key: str, ready: Mapping[int, str], broken: Mapping[int, str]) -> None:
        """Record which images have features (task -> content hash) and which cannot be read."""
        where = (t.tasks.c.project == key) & (t.tasks.c.task_id == sa.bindparam("id"))
        with self.engine.begin() as c:
            if ready:
                c.execute(
                    t.tasks.update()
                    .where(where)
                    .values(state="ready", image_hash=sa.bindparam("hash"), error=None),
                    [{"id": i, "hash": h} for i, h in ready.items()],
                )
            if broken:
                c.execute(
                    t.tasks.update()
                    .where(where)
                    .values(state="broken", image_hash=None, error=sa.bindparam("why")),
                    [{"id": i, "why": w} for i, w in broken.items()],
                )

    def read_images_again(self, key: str, task_ids: Sequence[int]) -> None:
        """Have the images of tasks read once more, as after a change of backbone."""
        mine = t.tasks.c.project == key
        with self.engine.begin() as c:
            for start in range(0, len(task_ids), CHUNK):
                part = task_ids[start : start + CHUNK]
                c.execute(
                    t.tasks.update()
                    .where(mine & t.tasks.c.task_id.in_(part))
                    .values(state="new", error=None)
                )

    def put_annotations(self, key: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert or update annotations; counts as a change only when a label is different.

        What was accepted unseen is no label of people's, so it counts as no change.

        Args:
            key: the project.
            rows: mappings with ``annotation_id, task_id, label, cancelled, completed_by,
                updated_at``; an older ``updated_at`` than the stored one is ignored.

        Returns:
            How many labels changed.
        """
        if not rows:
            return 0
        a = t.answers.c
        changed = 0
        with self.engine.begin() as c:
            unseen = accepted_unseen(c, key, {int(r["task_id"]) for r in rows})
            stored: dict[int, Any] = {}
            ids = [int(r["annotation_id"]) for r in rows]
            for start in range(0, len(ids), CHUNK):
                query = sa.select(t.answers).where(
                    (a.project == key) & a.annotation_id.in_(ids[start : start + CHUNK])
                )
                stored |= {row["annotation_id"]: row for row in c.execute(query).mappings()}
            fresh = []
            for row in {int(r["annotation_id"]): r for r in rows}.values():
                old = stored.get(int(row["annotation_id"]))
                if old is None:
                    fresh.append({"project": key, **row})
                    known = unseen.get(int(row["task_id"]))
                    changed += known is None or not known.stands_in(row)
                elif str(row["updated_at"]) >= old["updated_at"]:
                    differs = (old["label"], old["cancelled"], old["task_id"]) != (
                        row["label"], row["cancelled"], row["task_id"],
                    )  # fmt: skip
                    if differs or str(row["updated_at"]) != old["updated_at"]:
                        c.execute(
                            t.answers.update()
                            .where((a.project == key) & (a.annotation_id == old["annotation_id"]))
                            .values(**row)
                        )
                    changed += int(differs)
            self._insert_ignore(c, t.answers, fresh)
            if changed:
                self._count_change(c, key, changed)
        return changed

    def drop_annotations(self, key: str, annotation_ids: Iterable[int]) -> int:
        """Forget deleted annotations; returns how many of people's were known."""
        ids = list(annotation_ids)
        dropped = 0
        with self.engine.begin() as c:
            for start in range(0, len(ids), CHUNK):
                mine = (t.answers.c.project == key) & t.answers.c.annotation_id.in_(
                    ids[start : start + CHUNK]
                )
                counted = sa.select(sa.func.count()).select_from(t.answers)
                dropped += int(c.scalar(counted.where(mine & by_people())) or 0)
                c.execute(t.answers.delete().where(mine))
            if dropped:
                self._count_change(c, key, dropped)
        return dropped

    def annotation_ids_by_task(self, key: str) -> dict[int, list[int]]:
        """Task -> ids of its annotations, as far as known."""
        a = t.answers.c
        found: dict[int, list[int]] = {}
        with self.reader.connect() as c:
            for task, annotation in c.execute(
                sa.select(a.task_id, a.annotation_id).where(a.project == key)
            ):
                found.setdefault(task, []).append(annotation)
        return found

    def annotation_counts(self, key: str) -> tuple[int, int]:
        """Submitted and skipped annotations known, to compare with Label Studio's counters."""
        with self.reader.connect() as c:
            rows: dict[bool, int] = dict(
                c.execute(
                    sa.select(t.answers.c.cancelled, sa.func.count())
                    .where(t.answers.c.project == key)
                    .group_by(t.answers.c.cancelled)
                ).all()
            )
        return int(rows.get(False, 0)), int(rows.get(True, 0))

    def labels(self, key: str) -> dict[int, str]:
        """One label a task: the majority of its annotators, the newest among equals."""
        merged = {task_id: majority(labels) for task_id, labels in self.answers(key).items()}
        return {task_id: label for task_id, label in merged.items() if label is not None}

    def answers(self, key: str, task_ids: Sequence[int] | None = None) -> dict[int, list[str]]:
        """Task -> what each annotator gave, oldest first; tasks without an answer are left out.

        Of all tasks, or of those named. Annotations that stand for a prediction accepted unseen are
        nobody's answer.
        """
        a = t.answers.c
        query = (
            sa.select(a.task_id, a.label)
            .where(labels_of_people(key))
            .order_by(a.updated_at, a.annotation_id)
        )
        given: dict[int, list[str]] = {}
        with self.reader.connect() as c:
            for part in _named(query, a.task_id, task_ids):
                for task_id, label in c.execute(part):
                    given.setdefault(task_id, []).append(str(label))
        return given

    def label_count(self, key: str) -> int:
        """Tasks with at least one label."""
        return self._count_tasks(labels_of_people(key))

    def seconds_a_label(self, key: str, *, last: int) -> float | None:
        """Median time people took for each of their last so many labels; None if it is unknown."""
        a = t.answers.c
        query = (
            sa.select(a.lead_time)
            .where((a.project == key) & a.cancelled.is_(False) & (a.lead_time > 0.0) & by_people())
            .order_by(a.updated_at.desc())
            .limit(last)
        )
        with self.reader.connect() as c:
            found = [float(seconds) for seconds in c.scalars(query)]
        return statistics.median(found) if found else None

    def random_label_count(self, key: str) -> int:
        """Tasks with at least one label that were drawn by chance for their label."""
        d = t.draws.c
        drawn = sa.select(d.task_id).where((d.project == key) & (d.kind == "random"))
        return self._count_tasks(labels_of_people(key) & t.answers.c.task_id.in_(drawn))

    def touched_count(self, key: str) -> int:
        """How many tasks somebody submitted or skipped."""
        return self._count_tasks(t.answers.c.project == key)

    def _count_tasks(self, answers: sa.ColumnElement[bool]) -> int:
        """Different tasks among rows of ``annotations``."""
        query = sa.select(sa.func.count(sa.distinct(t.answers.c.task_id))).where(answers)
        with self.reader.connect() as c:
            return int(c.scalar(query) or 0)

    def touched_tasks(self, key: str, task_ids: Sequence[int] | None = None) -> set[int]:
        """Tasks somebody submitted or skipped: no longer in the pool; all, or of those named."""
        a = t.answers.c
        query = sa.select(a.task_id).where(a.project == key).distinct()
        with self.reader.connect() as c:
            return {i for part in _named(query, a.task_id, task_ids) for i in c.scalars(part)}

    def gone_tasks(self, key: str, task_ids: Sequence[int]) -> set[int]:
        """Those of the tasks that are no longer there."""
        i = t.tasks.c
        query = sa.select(i.task_id).where(i.project == key)
        with self.reader.connect() as c:
            there = {i for part in _named(query, i.task_id, task_ids) for i in c.scalars(part)}
        return set(task_ids) - there

    def draws(self, key: str, kind: str = "random") -> dict[int, Draw]:
        """Tasks drawn by chance."""
        d = t.draws.c
        query = sa.select(d.task_id, d.kind, d.version, d.probability).where(
            (d.project == key) & (d.kind == kind)
        )
        with self.reader.connect() as c:
            return {row["task_id"]: Draw(**row) for row in c.execute(query).mappings()}

    def add_draws(self, key: str, draws: Iterable[Draw]) -> None:
        """Record draws; a task drawn before keeps its first draw."""
        now = time.time()
        rows = [
            {
                "project": key, "task_id": d.task_id, "kind": d.kind, "version": d.version,
                "probability": d.probability, "drawn_at": now,
            }
            for d in draws
        ]  # fmt: skip
        with self.engine.begin() as c:
            self._insert_ignore(c, t.draws, rows)

    def put_acquired(
        self,
        key: str,
        number: int,
        rule: str,
        task_ids: Sequence[int],
        probabilities: Sequence[float] | None,
    ) -> None:
        """Log what a rule chose for a version, in its order, and how probable each draw was."""
        rows = [
            {
                "project": key, "version": number, "position": n, "task_id": task, "rule": rule,
                "probability": None if probabilities is None else probabilities[n],
            }
            for n, task in enumerate(task_ids)
        ]  # fmt: skip
        with self.engine.begin() as c:
            self._insert_ignore(c, t.acquired, rows)

    def acquired(self, key: str, number: int) -> list[tuple[int, str, float | None]]:
        """What was chosen for a version: (task, rule, probability), in the order of choice."""
        a = t.acquired.c
        query = (
            sa.select(a.task_id, a.rule, a.probability)
            .where((a.project == key) & (a.version == number))
            .order_by(a.position)
        )
        with self.reader.connect() as c:
            return [tuple(row) for row in c.execute(query)]
