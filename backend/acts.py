"""What a person may ask of a project: to train, to pause, to roll back, to accept unseen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from backend import acceptance, audits, methods
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


def change_methods(
    settings: Settings,
    database: Database,
    project: Project,
    wanted: Mapping[str, str],
    *,
    now: bool,
    reason: str,
) -> str:
    """Choose another estimator or acquisition rule for a project.

    Args:
        settings: of the installation.
        database: the facts.
        project: whose.
        wanted: see `backend.methods.choose`.
        now: do not wait for the next version: train one, or where the estimator stays as it is
            have the live one choose again. Never during an audit.
        reason: why something is started.

    Returns:
        What it means, in words.

    Raises:
        BadRequestError: see `backend.methods.choose`.
    """
    changed = replace(project, methods=methods.choose(settings, project, wanted))
    live = None
    if project.live_version is not None:
        live = database.version(project.key, project.live_version)
    before = methods.in_force(settings, database, project, live)
    after = methods.in_force(settings, database, changed, live)
    database.update_project(project.key, methods=changed.methods)
    said = " and ".join(f"{what} {after[what]['chosen']}" for what in wanted)
    if after == before:
        return f"{said}: as before"
    waits = acceptance.held(database, project)
    if not now or waits is not None:
        return f"{said}: from the next version on{'' if waits is None else f'; {waits}'}"
    same_estimator = after[methods.ESTIMATOR]["chosen"] == after[methods.ESTIMATOR]["live"]
    try:
        if live is not None and live.bundle is not None and same_estimator:
            republish(settings, database, project, live, reason)
            return f"{said}: {live.name} chooses again, and is published under a new number"
        train(database, project, reason)
    except NotNowError as exc:
        return f"{said}: from the next version on; {exc}"
    return f"{said}: a new version is trained with it as soon as a worker is free"


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
