"""What the page of one project shows beside its status, as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from backend.again import ask_again
from backend.annotators import meaning, people
from backend.app import App
from backend.doubtful import most_doubtful
from backend.edges.database import Database
from backend.edges.labels.answers import decode
from backend.edges.labels.config import TaskSpec
from backend.methods import options
from backend.records import Project, Version
from backend.triage import doubted_labels

BINS = 20
# Most of them are labels, each of which is told; what is the same becomes one entry.
WEBHOOKS_READ = 2000


def details(app: App, project: Project, doubtful: int, *, of_people: bool = True) -> dict[str, Any]:
    """Versions, classes, calibration, the pool's P(right), and the most doubtful tasks.

    Args:
        app: for database and labeling config.
        project: which.
        doubtful: how many tasks to name.
        of_people: also how good people are, and whom to ask again.
    """
    again = ask_again(app.database, project, doubtful) if of_people else []
    versions = app.database.versions(project.key)
    live = next((v for v in versions if v.number == project.live_version), None)
    spec = app.spec(project)
    return {
        "key": project.key,
        "title": project.title,
        "label_studio_url": f"{project.host}/projects/{project.platform_id}/data",
        "live_version": None if live is None else live.name,
        "methods": options(project),
        "versions": [_version(v) for v in versions],
        "classes": _classes(app.database, project, live, spec),
        "calibration": _calibration(live),
        "histogram": _histogram(app.database, project, live),
        "doubtful": _doubtful(app.database, project, live, spec, doubtful),
        "annotators": people(app.database, project.key) if of_people else [],
        "annotators_meaning": meaning(spec),
        "ask_again": _pictured(project, again),
        "doubted_labels": _pictured(project, doubted_labels(app.database, project, doubtful)),
    }


def _pictured(project: Project, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of tasks, each with the address of its image."""
    return [
        row | {"image_url": f"/api/projects/{project.key}/tasks/{row['task']}/image"}
        for row in rows
    ]


def events(database: Database, project: Project, limit: int) -> list[dict[str, Any]]:
    """What happened, newest first: webhooks, runs of the workers, versions.

    What came several times without anything else in between is one entry: ``times``, ``since``.
    """
    found: list[dict[str, Any]] = [
        {"at": e.received_at, "kind": "webhook", "what": e.action, "status": "", "detail": ""}
        for e in database.events(project.key, WEBHOOKS_READ)
    ]
    found += [
        {
            "at": r.finished_at or r.started_at or r.created_at, "kind": "run", "what": r.kind,
            "status": r.status, "detail": r.error or r.stage or r.reason,
        }
        for r in database.noteworthy_runs(project.key, limit)
    ]  # fmt: skip
    found += [
        {
            "at": v.published_at or v.created_at, "kind": "version", "what": v.name,
            "status": v.status, "detail": v.reason,
        }
        for v in database.versions(project.key)[-limit:]
    ]  # fmt: skip
    return _together(sorted(found, key=lambda e: e["at"], reverse=True))[:limit]


def _together(newest_first: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours that are the same thing as one entry: people submit a label every few seconds."""
    found: list[dict[str, Any]] = []
    for _, same in groupby(newest_first, key=itemgetter("kind", "what", "status", "detail")):
        every = list(same)
        found.append(every[0] | {"times": len(every), "since": every[-1]["at"]})
    return found


def _version(version: Version) -> dict[str, Any]:
    metrics = version.metrics
    pool = metrics.get("pool_accuracy") or {}
    return {
        "name": version.name,
        "number": version.number,
        "kind": version.kind,
        "status": version.status,
        "reason": version.reason,
        "created_at": version.created_at,
        "labels": version.labels,
        "accuracy": metrics.get("random_accuracy"),
        "accuracy_interval": metrics.get("random_accuracy_interval"),
        "pool_accuracy": pool.get("value"),
        "pool_accuracy_interval": (
            None if pool.get("value") is None else [pool.get("low"), pool.get("high")]
        ),
        "ece": metrics.get("ece"),
        "can_be_published": version.bundle is not None,
    }


def _classes(
    database: Database, project: Project, live: Version | None, spec: TaskSpec | None
) -> dict[str, Any]:
    """Of each class: labels, how often it is predicted in the open pool, and how surely.

    With it the pairs of classes that are mixed up most, out of fold, where an image has one class.
    """
    if live is None or spec is None or "class_counts" not in live.metrics:
        return {"version": None, "rows": [], "confusions": [], "why": _no_model(live)}
    labels = live.metrics["class_counts"]
    ap50 = live.metrics.get("ap50_per_class") or {}
    predicted: dict[str, int] = defaultdict(int)
    certainty: dict[str, float] = defaultdict(float)
    if not spec.boxes:  # there every text is one image's drawing: nothing to group by
        for text, count, p_right in database.predicted(project.key, live.number):
            for name in (decode(text) or ()) if spec.multiple else (text,):
                predicted[name] += count
                certainty[name] += count * p_right
    rows = [
        {
            "name": name,
            "labels": labels.get(name, 0),
            "predicted": None if spec.boxes else predicted[name],
            "mean_p_right": certainty[name] / predicted[name] if predicted[name] else None,
            "ap50": ap50.get(name),
        }
        for name in spec.classes
    ]
    mixed_up = live.metrics.get("confusions") or []
    return {"version": live.name, "rows": rows, "confusions": mixed_up, "why": None}


def _calibration(live: Version | None) -> dict[str, Any]:
    if live is None or live.bundle is None:
        return {"version": None, "ece": None, "bins": [], "why": _no_model(live)}
    bins = live.metrics.get("reliability") or []
    why = None
    if not bins:
        why = (
            f"{live.name} was trained by a release that did not keep what this diagram needs; the "
            "next training brings it"
        )
    return {"version": live.name, "ece": live.metrics.get("ece"), "bins": bins, "why": why}


def _histogram(database: Database, project: Project, live: Version | None) -> dict[str, Any]:
    counts = [0] * BINS if live is None else database.histogram(project.key, live.number, BINS)
    bins = [
        {"low": n / BINS, "high": (n + 1) / BINS, "count": count} for n, count in enumerate(counts)
    ]
    return {
        "version": None if live is None else live.name,
        "open_tasks": sum(counts),
        "bins": bins,
        "why": None if sum(counts) else _nothing_open(live),
    }


def _doubtful(
    database: Database, project: Project, live: Version | None, spec: TaskSpec | None, limit: int
) -> dict[str, Any]:
    tasks = [] if live is None else most_doubtful(database, project, live.number, spec, limit)
    for shown in (image for task in tasks for image in (task, *task["nearest"])):
        shown["image_url"] = f"/api/projects/{project.key}/tasks/{shown['task']}/image"
    return {
        "version": None if live is None else live.name,
        "tasks": tasks,
        "why": None if tasks else _nothing_open(live),
    }


def _no_model(live: Version | None) -> str:
    if live is None:
        return "Nothing is published yet; images are read first."
    return f"{live.name} is an order without a model; the first training brings one."


def _nothing_open(live: Version | None) -> str:
    if live is None or live.bundle is None:
        return _no_model(live)
    return f"Every task that {live.name} scored was submitted or skipped."
