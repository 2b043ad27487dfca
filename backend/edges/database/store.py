"""The connection that all tables share, and what more than one of them needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from backend.edges import schema as t
from backend.errors import BackendError
from backend.settings import without_password

CHUNK = 5000
# Rows written in one transaction: a webhook waits for the writer, so no turn may be long.
TURN = 500
# Every release has made them. Other programs have a `meta` too, but hardly all three.
FIRST_TABLES = {t.meta.name, t.projects.name, t.tasks.name}


class Store:
    """A connection to SQLite or PostgreSQL whose tables are there.

    Args:
        url: SQLAlchemy URL; ``sqlite://`` keeps all in memory, for tests.

    Raises:
        BackendError: the database cannot be opened, is somebody else's, or was written by a newer
            release.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            shown = repr(sa.engine.make_url(url))
        except (sa.exc.ArgumentError, ValueError) as exc:
            raise BackendError(
                f"DOUBTLESS_DATABASE_URL='{without_password(url)}' is no address of a database; "
                "write one such as sqlite:////folder/doubtless.db or "
                "postgresql+psycopg://user:password@host/name"
            ) from exc
        options: dict[str, Any] = {}
        self._file: Path | None = None
        if url in ("sqlite://", "sqlite:///:memory:"):
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        elif url.startswith("sqlite:///"):
            self._file = Path(url.removeprefix("sqlite:///"))
            options = {"connect_args": {"timeout": 30}}
        else:
            options = {"pool_pre_ping": True}
        try:
            self.engine: Engine = sa.create_engine(url, **options)
            self.reader = self.engine.execution_options(doubtless_read=True)
            self._make_file()
            self._require_ours()
            if url.startswith("sqlite"):
                sa.event.listen(self.engine, "connect", _sqlite_pragmas)
                sa.event.listen(self.engine, "begin", _sqlite_begin)
            self._migrate()
        except (sa.exc.SQLAlchemyError, ImportError) as exc:
            raise BackendError(f"the database {shown} cannot be opened: {exc}") from exc
        except OSError as exc:
            raise BackendError(
                f"the database {shown} cannot be made: {exc.strerror} ({exc.filename}); choose "
                "another folder with DOUBTLESS_HOME, or another database with "
                "DOUBTLESS_DATABASE_URL"
            ) from exc

    def _make_file(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if not self._file.exists():
            # Tokens of Label Studio are inside: for the owner's eyes only.
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))

    def _require_ours(self) -> None:
        """Refuse a database of another program before anything in it is changed."""
        with self.engine.connect() as c:
            tables = set(sa.inspect(c).get_table_names())
        # These connections have no pragmas yet: the journal mode would stay in the file.
        self.engine.dispose()
        if tables and not tables >= FIRST_TABLES:
            raise BackendError(
                f"{self.engine.url!r} is not Doubtless's database, it holds the tables of another "
                f"program ({', '.join(sorted(tables)[:3])}); set DOUBTLESS_DATABASE_URL to an "
                "empty database, or unset it to use SQLite in DOUBTLESS_HOME"
            )

    def _migrate(self) -> None:
        with self.engine.begin() as c:
            if self.engine.dialect.name == "postgresql":
                c.execute(sa.text("SELECT pg_advisory_xact_lock(20261123)"))
            t.metadata.create_all(c)
            for column in (
                t.scores.c.probs, t.scores.c.hidden, t.projects.c.drift, t.projects.c.methods,
                t.answers.c.lead_time, t.answers.c.made_in_bulk,
                t.annotators.c.recall, t.annotators.c.precision, t.consensus.c.probs,
            ):  # fmt: skip
                self._add_if_missing(c, column)
            found = c.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == "schema"))
            if found is None:
                self._insert_ignore(c, t.meta, [{"name": "schema", "value": str(t.SCHEMA_VERSION)}])
            elif int(found) > t.SCHEMA_VERSION:
                raise BackendError(
                    f"the database has schema {found}, this release knows {t.SCHEMA_VERSION}; "
                    "install the newer release again"
                )

    def _add_if_missing(self, c: Connection, column: sa.Column[Any]) -> None:
        """Add a column that the release which made the table did not have."""
        table = column.table.name
        if column.name not in {known["name"] for known in sa.inspect(c).get_columns(table)}:
            kind = column.type.compile(self.engine.dialect)
            c.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}"))

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
