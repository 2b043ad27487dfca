"""Three piles that add up to the open tasks: accept, review, label."""

from __future__ import annotations

from typing import Any

from backend import audits
from backend.doubtful import drawn_regions
from backend.edges.database import Database
from backend.edges.labels.answers import readable
from backend.edges.labels.config import parse_config
from backend.records import Project

# From here on a pre-annotation is right more often than wrong: correcting it is less work than
# labelling. Below, people's labels teach most.
REVIEW_FROM = 0.5
PACE_LABELS = 200
# Below, a label is more probably wrong than right.
DOUBTED = 0.5


def piles(database: Database, project: Project) -> dict[str, Any] | None:
    """How many open tasks may be accepted, have to be reviewed, or to be labelled.

    Returns:
        ``accept``: what an audit has proved and is not accepted yet; ``review``: P(right) of at
        least one half; ``label``: all others that are open, unreadable ones included; ``minutes``
        that reviewing and labelling take at the pace of the last labels, None where that is
        unknown; ``accept_from``: P(right) of the last task that may be accepted, or None where
        there is none for all. None before there is a version.
    """
    if project.live_version is None:
        return None
    accept, sure_to_accept, accept_from = may_be_accepted(database, project)
    opened, sure = database.open_tasks(project.key, project.live_version, at_least=REVIEW_FROM)
    counts = {
        "accept": accept,
        "review": sure - sure_to_accept,
        "label": opened - sure - (accept - sure_to_accept),
    }
    pace = database.seconds_a_label(project.key, last=PACE_LABELS)
    minutes = {
        name: None if pace is None else round(counts[name] * pace / 60.0, 1)
        for name in ("review", "label")
    }
    return {**counts, "minutes": minutes, "accept_from": accept_from}


def doubted_labels(database: Database, project: Project, limit: int) -> list[dict[str, Any]]:
    """Labels that are more probably wrong than right by the newest version, as plain values."""
    spec = parse_config(project.label_config).spec
    tasks = f"{project.host}/projects/{project.platform_id}/data?task="
    return [
        {
            "task": row.task_id,
            "label": readable(spec, row.label),
            "p_right": row.p_right,
            "why": row.why,
            "regions": drawn_regions(spec, row.label),
            "label_studio_url": f"{tasks}{row.task_id}",
        }
        for row in database.label_errors(project.key, below=DOUBTED, limit=limit)
    ]


def may_be_accepted(database: Database, project: Project) -> tuple[int, int, float | None]:
    """What an audit allows to accept.

    Returns:
        Open tasks, how many of them would be reviewed otherwise, and the P(right) of the last task
        of the part, None where that is not one for all; 0, 0 and None where nothing is proved.
    """
    audit = audits.current(database, project)
    if audit is None or audit.status not in (audits.CERTIFIED, audits.ACCEPTING):
        return 0, 0, None
    ranks = audits.proved(audit)
    count, sure, last = database.proved(audit.id, audit.version, ranks, at_least=REVIEW_FROM)
    return count, sure, last if audits.by_of(audit) == audits.TASKS else None
