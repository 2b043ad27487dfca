"""What a person may ask of a project: to train, to pause, to roll back, to accept unseen."""

from __future__ import annotations

import time

from backend import acceptance, audits
from backend.edges.database import Database
from backend.errors import NotNowError, UnknownVersionError
from backend.events import request_training
from backend.records import Project, Version
from backend.settings import Settings


def train(database: Database, project: Project, reason: str) -> float:
    """Ask for a training, which also ends a pause; returns the time of the request.

    Raises:
        NotNowError: there is no label yet.
    """
    if database.label_count(project.key) + project.pings == 0:
        raise NotNowError(
            f"project {project.key} has no labels yet; submit at least one in Label Studio"
        )
    now = time.time()
    request_training(database, project, reason)
    return now


def pause(database: Database, project: Project) -> None:
    """Start no more trainings, features or scores; what runs goes on, and labels are recorded."""
    database.update_project(project.key, paused=True)


def resume(database: Database, project: Project) -> None:
    """End a pause."""
    database.update_project(project.key, paused=False)


def republish(
    settings: Settings, database: Database, project: Project, version: Version, reason: str
) -> float:
    """Ask that a version's model be published again; returns the time of the request.

    Raises:
        NotNowError: the version has no model.
    """
    if version.bundle is None:
        raise NotNowError(
            f"{version.name} has no model to publish: it is a cold-start order, or it was too old "
            f"to keep (DOUBTLESS_KEEP_VERSIONS={settings.keep_versions})"
        )
    now = time.time()
    database.add_run(project.key, "republish", reason=reason, payload={"version": version.number})
    return now


def accept(database: Database, project: Project, reason: str) -> float:
    """Ask that what an audit has proved be accepted; returns the time of the request.

    Raises:
        NotNowError: nothing is proved that is not accepted.
    """
    acceptance.review(database, project)
    found = database.audits(project.key, status=(audits.CERTIFIED, audits.ACCEPTING))
    if not found:
        raise NotNowError(
            "no audit has proved anything that is not accepted yet; ask for one, and label what "
            "it asks for"
        )
    now = time.time()
    database.add_run(project.key, "accept", reason=reason, payload={"audit": found[-1].id})
    return now


def cancel_audit(database: Database, project: Project, reason: str) -> None:
    """Give up an audit before anything is accepted; its labels stay, and are trained on.

    Raises:
        NotNowError: none is under way.
    """
    before = (audits.OPEN, audits.CERTIFIED)
    cancelled = [
        database.update_audit(audit.id, only_if=before, status=audits.CANCELLED, reason=reason)
        for audit in database.audits(project.key, status=before)
    ]
    if not any(cancelled):
        raise NotNowError("no audit is under way; what was accepted already can be taken back")
    database.add_run(project.key, "audit", reason="an audit was given up")


def undo_acceptance(database: Database, project: Project, reason: str) -> float:
    """Ask that accepted labels be taken out of Label Studio; returns the time of the request.

    Raises:
        NotNowError: nothing was accepted.
    """
    standing = database.audits(project.key, status=audits.STANDING)
    if not standing:
        raise NotNowError("nothing was accepted unseen, so there is nothing to take back")
    now = time.time()
    for audit in standing:
        database.add_run(project.key, "undo", reason=reason, payload={"audit": audit.id})
    return now


def find_version(database: Database, project: Project, name: str) -> Version:
    """The version of that name, such as ``v3`` or ``3``.

    Raises:
        UnknownVersionError: there is none.
    """
    versions = database.versions(project.key)
    for version in versions:
        if name in (version.name, str(version.number)):
            return version
    raise UnknownVersionError(
        f"project {project.key} has no version '{name}'; it has: "
        f"{', '.join(v.name for v in versions) or 'none yet'}"
    )
