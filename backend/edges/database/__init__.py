"""The facts, in SQLite or PostgreSQL; the only package that writes SQL."""

from __future__ import annotations

from backend.edges.database.audits import Audits
from backend.edges.database.labels import Labels
from backend.edges.database.people import People
from backend.edges.database.projects import Projects
from backend.edges.database.runs import Runs
from backend.edges.database.versions import Versions
from backend.edges.database.views import Views

__all__ = ["Database"]


class Database(Projects, Labels, People, Versions, Runs, Audits, Views):
    """Every fact of every project; see `store.Store` for its arguments and errors."""
