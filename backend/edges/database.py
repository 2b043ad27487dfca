"""The facts, in SQLite or PostgreSQL; the only file that writes SQL."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from backend.edges import schema as t
from backend.edges.labels.merge import majority
from backend.errors import BackendError, UnknownProjectError, UnknownVersionError
from backend.records import Draw, PoolTask, Project, Run, Score, Version

ACTIVE = ("queued", "running")
CHUNK = 5000
# Rows written in one transaction: a webhook waits for the writer, so no turn may be long.
TURN = 500


class Database:
    """Every fact of every project.

    Args:
        url: SQLAlchemy URL; ``sqlite://`` keeps all in memory, for tests.

    Raises:
        BackendError: the database cannot be opened, or was written by a newer release.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        options: dict[str, Any] = {}
        self._file: Path | None = None
        if url in ("sqlite://", "sqlite:///:memory:"):
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        elif url.startswith("sqlite:///"):
            self._file = Path(url.removeprefix("sqlite:///"))
            self._file.parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": 30}}
        else:
            options = {"pool_pre_ping": True}
        try:
            self.engine: Engine = sa.create_engine(url, **options)
            self.reader = self.engine.execution_options(doubtless_read=True)
            if url.startswith("sqlite"):
                sa.event.listen(self.engine, "connect", _sqlite_pragmas)
                sa.event.listen(self.engine, "begin", _sqlite_begin)
            self._migrate()
        except (sa.exc.SQLAlchemyError, ImportError) as exc:
            raise BackendError(
                f"the database {sa.engine.make_url(url)!r} cannot be opened: {exc}"
            ) from exc

    def _migrate(self) -> None:
        if self._file is not None and not self._file.exists():
            # Tokens of Label Studio are inside: for the owner's eyes only.
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        with self.engine.begin() as c:
            if self.engine.dialect.name == "postgresql":
                c.execute(sa.text("SELECT pg_advisory_xact_lock(20261123)"))
            t.metadata.create_all(c)
            known = {column["name"] for column in sa.inspect(c).get_columns(t.scores.name)}
            if t.scores.c.probs.name not in known:  # made by a release that had no such column
                c.execute(sa.text(f"ALTER TABLE {t.scores.name} ADD COLUMN probs JSON"))
            found = c.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == "schema"))
            if found is None:
                self._insert_ignore(c, t.meta, [{"name": "schema", "value": str(t.SCHEMA_VERSION)}])
            elif int(found) > t.SCHEMA_VERSION:
                raise BackendError(
                    f"the database has schema {found}, this release knows {t.SCHEMA_VERSION}; "
                    "install the newer release again"
                )

    def close(self) -> None:
        """Release the connections."""
        self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing."""
        with self.engine.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Raise when the database does not answer."""
        with self.reader.connect() as c:
            c.execute(sa.text("SELECT 1"))

    # --- projects ------------------------------------------------------------------------

    def projects(self) -> list[Project]:
        """All connected projects, oldest first."""
        with self.reader.connect() as c:
            rows = c.execute(sa.select(t.projects).order_by(t.projects.c.connected_at)).mappings()
            return [Project(**row) for row in rows]

    def project(self, key: str) -> Project:
        """The project of that key.

        Raises:
            UnknownProjectError: there is none.
        """
        with self.reader.connect() as c:
            row = c.execute(sa.select(t.projects).where(t.projects.c.key == key)).mappings().first()
        if row is None:
            raise UnknownProjectError(f"no project '{key}' is connected; see `doubtless status`")
        return Project(**row)

    def find_projects(
        self, *, uid: str | None = None, platform_id: int | None = None, host: str | None = None
    ) -> list[Project]:
        """Projects that match everything given."""
        return [
            p
            for p in self.projects()
            if (uid is None or p.uid == uid)
            and (platform_id is None or p.platform_id == platform_id)
            and (host is None or p.host == host)
        ]

    def connect_project(
        self, *, host: str, platform_id: int, uid: str, title: str, token: str, label_config: str,
        config_hash: str, problems: Sequence[str],
    ) -> Project:  # fmt: skip
        """Add a project, or refresh the one already there; its key and secret never change."""
        values = {
            "title": title,
            "token": token,
            "label_config": label_config,
            "config_hash": config_hash,
            "problems": list(problems),
        }
        now = time.time()
        with self.engine.begin() as c:
            same = (t.projects.c.host == host) & (t.projects.c.uid == uid)
            key = c.scalar(sa.select(t.projects.c.key).where(same))
            if key is None:
                key = "p" + secrets.token_hex(6)
                c.execute(
                    t.projects.insert().values(
                        key=key,
                        host=host,
                        platform_id=platform_id,
                        uid=uid,
                        secret=secrets.token_urlsafe(24),
                        connected_at=now,
                        sync_requested_at=now,
                        **values,
                    )
                )
            else:
                c.execute(
                    t.projects.update()
                    .where(t.projects.c.key == key)
                    .values(sync_requested_at=now, paused=False, **values)
                )
        return self.project(str(key))

    def update_project(self, key: str, **values: Any) -> None:
        """Set columns of a project."""
        with self.engine.begin() as c:
            c.execute(t.projects.update().where(t.projects.c.key == key).values(**values))

    def forget_project(self, key: str) -> None:
        """Drop a project and all that is known of it."""
        with self.engine.begin() as c:
            c.execute(t.projects.delete().where(t.projects.c.key == key))

    def take_numbers(self, key: str, *, versions: int = 0, clusters: int = 0) -> tuple[int, int]:
        """Reserve version and cluster numbers; each is given out once, ever.

        Returns:
            The first version number and the first cluster number of the reserved ranges.
        """
        p = t.projects.c
        with self.engine.begin() as c:
            c.execute(
                t.projects.update()
                .where(p.key == key)
                .values(
                    next_version=p.next_version + versions, next_cluster=p.next_cluster + clusters
                )
            )
            row = c.execute(sa.select(p.next_version, p.next_cluster).where(p.key == key)).one()
        return int(row[0]) - versions, int(row[1]) - clusters

    # --- tasks and labels ----------------------------------------------------------------

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
                    .where((t.answers.c.project == key) & t.answers.c.task_id.in_(part))
                )
                for table in (t.scores, t.judgements, t.draws, t.answers, t.tasks):
                    c.execute(
                        table.delete().where((table.c.project == key) & table.c.task_id.in_(part))
                    )
                if labelled:
                    self._count_change(c, key, int(labelled))

    def tasks(self, key: str, *, state: str | None = None) -> list[PoolTask]:
        """Tasks of a project by id."""
        query = sa.select(
            t.tasks.c.task_id, t.tasks.c.reference, t.tasks.c.image_hash, t.tasks.c.state,
            t.tasks.c.error,
        ).where(t.tasks.c.project == key)  # fmt: skip
        if state is not None:
            query = query.where(t.tasks.c.state == state)
        with self.reader.connect() as c:
            return [
                PoolTask(**row) for row in c.execute(query.order_by(t.tasks.c.task_id)).mappings()
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
                    changed += 1
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
        """Forget deleted annotations; returns how many were known."""
        ids = list(annotation_ids)
        dropped = 0
        with self.engine.begin() as c:
            for start in range(0, len(ids), CHUNK):
                dropped += c.execute(
                    t.answers.delete().where(
                        (t.answers.c.project == key)
                        & t.answers.c.annotation_id.in_(ids[start : start + CHUNK])
                    )
                ).rowcount
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

    def answers(self, key: str) -> dict[int, list[str]]:
        """Task -> what each annotator gave, oldest first; tasks without an answer are left out."""
        a = t.answers.c
        query = (
            sa.select(a.task_id, a.label)
            .where((a.project == key) & (a.cancelled.is_(False)) & (a.label.is_not(None)))
            .order_by(a.updated_at, a.annotation_id)
        )
        given: dict[int, list[str]] = {}
        with self.reader.connect() as c:
            for task_id, label in c.execute(query):
                given.setdefault(task_id, []).append(str(label))
        return given

    def label_count(self, key: str) -> int:
        """Tasks with at least one label."""
        a = t.answers.c
        with self.reader.connect() as c:
            return int(
                c.scalar(
                    sa.select(sa.func.count(sa.distinct(a.task_id))).where(
                        (a.project == key) & a.cancelled.is_(False) & a.label.is_not(None)
                    )
                )
                or 0
            )

    def touched_tasks(self, key: str) -> set[int]:
        """Tasks somebody submitted or skipped: no longer in the pool."""
        with self.reader.connect() as c:
            return set(
                c.scalars(
                    sa.select(t.answers.c.task_id).where(t.answers.c.project == key).distinct()
                )
            )

    # --- draws ---------------------------------------------------------------------------

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

    # --- versions and scores -------------------------------------------------------------

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

    def drop_scores(self, key: str, number: int) -> None:
        """Forget what a superseded version said."""
        with self.engine.begin() as c:
            c.execute(
                t.scores.delete().where(
                    (t.scores.c.project == key) & (t.scores.c.version == number)
                )
            )

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

    # --- runs ----------------------------------------------------------------------------

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

    def requeue_lost(self, older_than_s: float) -> list[Run]:
        """Put runs whose worker went silent back into the queue."""
        limit = time.time() - older_than_s
        lost = [r for r in self.runs(status=("running",)) if (r.heartbeat_at or 0) < limit]
        requeued = []
        for run in lost:
            with self.engine.begin() as c:
                done = c.execute(
                    t.runs.update()
                    .where(
                        (t.runs.c.id == run.id)
                        & (t.runs.c.status == "running")
                        & (t.runs.c.heartbeat_at < limit)
                    )
                    .values(
                        status="queued",
                        owner=None,
                        enqueued_at=None,
                        attempt=run.attempt + 1,
                        stage="its worker went silent; starting again",
                    )
                )
            if done.rowcount == 1:
                requeued.append(run)
        return requeued

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

    # --- events --------------------------------------------------------------------------

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

    # --- helpers -------------------------------------------------------------------------

    def _count_change(self, c: Connection, key: str, by: int) -> None:
        p = t.projects.c
        c.execute(
            t.projects.update()
            .where(p.key == key)
            .values(changes=p.changes + by, changed_at=time.time())
        )

    def _insert_ignore(
        self, c: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> int:
        if not rows:
            return 0
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).on_conflict_do_nothing()
        if len(rows) == 1:
            return len(c.execute(statement.returning(sa.literal(1)), rows[0]).all())
        c.execute(statement, list(rows))
        return len(rows)


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    # SQLAlchemy begins transactions itself (see `_sqlite_begin`).
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON",
    ):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    # A read transaction that turns into a write fails at once when another wrote in between;
    # taking the write lock at the start waits for its turn instead. Readers never block.
    if connection.get_execution_options().get("doubtless_read"):
        connection.exec_driver_sql("BEGIN")
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
