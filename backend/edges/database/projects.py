"""Connected projects."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backend.edges import schema as t
from backend.edges.database.store import Store
from backend.errors import UnknownProjectError
from backend.records import Project


def _project(row: sa.RowMapping) -> Project:
    return Project(**{**row, "methods": row["methods"] or {}})


class Projects(Store):
    """Which Label Studio projects are connected, and where each stands."""

    def projects(self) -> list[Project]:
        """All connected projects, oldest first."""
        with self.reader.connect() as c:
            rows = c.execute(sa.select(t.projects).order_by(t.projects.c.connected_at)).mappings()
            return [_project(row) for row in rows]

    def project(self, key: str) -> Project:
        """The project of that key.

        Raises:
            UnknownProjectError: there is none.
        """
        with self.reader.connect() as c:
            row = c.execute(sa.select(t.projects).where(t.projects.c.key == key)).mappings().first()
        if row is None:
            raise UnknownProjectError(f"no project '{key}' is connected; see `doubtless status`")
        return _project(row)

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
