"""Which labelled tasks are worth another label, and whom to ask for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from backend.annotators import votes_of
from backend.doubtful import drawn_regions
from backend.edges.database import Database
from backend.edges.labels.answers import readable
from backend.edges.labels.config import parse_config
from backend.records import Project
from model.annotators.base import Annotator

# From here on what a task comes to is taken for settled.
SETTLED = 0.95
# Somebody is asked if they are right more often than wrong even at the lower end of the interval.
KNOWN_GOOD = 0.5
TURN = 500  # tasks looked up at once
NOTHING = (
    "No labelled task is worth another label: what people and model say together is right with "
    "95 % or more of each whose labels have not changed since the last training."
)


def ask_again(database: Database, project: Project, limit: int) -> list[dict[str, Any]]:
    """Labelled tasks whose most probable label is least sure to be right, as plain values.

    Those of 95 % and more are left out, and those whose labels have changed since the last
    training.

    Args:
        database: the facts.
        project: which.
        limit: tasks at most, one or more.

    Returns:
        Least sure first: ``task``; ``label``, the most probable one; ``p_right``, how probably by
        people and model together; ``labels``, what people gave, the most probable first; ``ask``,
        whom to ask, an id (see `whom_to_ask`) or None; ``regions``, the boxes of ``label``;
        ``label_studio_url``. Empty where no two people share a task.

    Source:
        The order is that of ActiveLab for labelled data, Goh and Mueller 2023, arXiv:2301.11856,
        with P(right) by `model.annotators.likelihood.weigh`.
    """
    spec = parse_config(project.label_config).spec
    annotators = database.annotators(project.key)
    address = f"{project.host}/projects/{project.platform_id}/data?task="
    found: list[dict[str, Any]] = []
    doubted = database.doubted_tasks(project.key, below=SETTLED)
    for start in range(0, len(doubted), TURN):
        part = doubted[start : start + TURN]
        given = database.answers_of_people(project.key, part)
        for row in database.consensus(project.key, part):
            votes = votes_of(given.get(row.task_id, ()))
            if votes != row.votes:
                continue
            texts = sorted((text for _, text in votes), key=lambda text: (text != row.label, text))
            found.append(
                {
                    "task": row.task_id, "label": readable(spec, row.label),
                    "p_right": row.p_right, "labels": [readable(spec, text) for text in texts],
                    "ask": whom_to_ask(annotators, dict(votes)),
                    "regions": drawn_regions(spec, row.label),
                    "label_studio_url": f"{address}{row.task_id}",
                }
            )  # fmt: skip
            if len(found) == limit:
                return found
    return found


def whom_to_ask(annotators: Sequence[Annotator], asked: Collection[int]) -> int | None:
    """The best person by quality of those who have not labelled a task.

    Best by the lower end of the interval, so that two lucky labels do not make an expert; None
    where of nobody else it is known that they are right more often than wrong.

    Args:
        annotators: all people.
        asked: ids of who has labelled it.

    Example:
        >>> whom_to_ask([], [1]) is None
        True
    """
    others = [
        (one.low, -one.id)
        for one in annotators
        if one.id not in asked and one.low is not None and one.low > KNOWN_GOOD
    ]
    return -max(others)[1] if others else None
