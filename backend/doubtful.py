"""What a version says of a task, and why it doubts, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.annotators import one_label_each
from backend.edges.database import Database
from backend.edges.labels import boxes
from backend.edges.labels.answers import readable
from backend.edges.labels.config import TaskSpec
from backend.records import Compared, Project, Score

# From here on nothing like an image is labelled: of twenty drawn as the labelled ones were, one.
UNLIKE = 0.95


def score_values(spec: TaskSpec | None, row: Score) -> dict[str, Any]:
    """What a version says of a task."""
    return {
        "task": row.task_id,
        "prediction": readable(spec, row.label),
        "p_right": row.p_right,
        "score": row.score,
        "total": row.total,
        "aleatoric": row.aleatoric,
        "epistemic": row.epistemic,
    }


def most_doubtful(
    database: Database, project: Project, version: int, spec: TaskSpec | None, limit: int
) -> list[dict[str, Any]]:
    """The open tasks with the lowest P(right), each with labelled ones that are most like it.

    Args:
        database: the facts.
        project: which.
        version: number of the version that doubts.
        spec: of the project.
        limit: tasks at most.
    """
    rows = database.most_doubtful(project.key, version, limit)
    ids = [row.task_id for row in rows]
    drawn = database.drawn_among(project.key, ids)
    compared = database.compared(project.key, ids)
    known = sorted({task for found in compared.values() for task, _ in found.nearest})
    labels = one_label_each(database, project.key, spec, known) if spec and known else {}
    return [
        {
            **score_values(spec, row),
            **_beside_labels(project, spec, compared.get(row.task_id), labels),
            "drawn_by_chance": row.task_id in drawn,
            "why": why_doubtful(row, spec, compared.get(row.task_id), labels),
            "regions": _regions(spec, row.label),
            "label_studio_url": _address(project, row.task_id),
        }
        for row in rows
    ]


def why_doubtful(
    row: Score,
    spec: TaskSpec | None = None,
    compared: Compared | None = None,
    labels: Mapping[int, str] | None = None,
) -> str:
    """The larger part of the uncertainty in words, and what is labelled that is like the image.

    Args:
        row: what the version says.
        spec: of the project.
        compared: how the task stands beside labelled ones, if it is known.
        labels: task -> label of those.

    Example:
        >>> why_doubtful(Score(task_id=1, label="a", score=0.5, p_right=0.5))
        'It was not said how the doubt comes about.'
    """
    said = []
    if row.total is None or row.aleatoric is None or row.epistemic is None:
        said.append("It was not said how the doubt comes about.")
    elif row.epistemic > row.aleatoric:
        said.append("Mostly epistemic: the passes disagree, so such images are not learnt yet.")
    else:
        said.append("Mostly aleatoric: the passes agree that more than one answer fits.")
    if spec is not None and compared is not None:
        near = [labels[task] for task, _ in compared.nearest if labels and task in labels]
        said.append(_by_labels(spec, row.label, compared.novelty, near))
    return " ".join(sentence for sentence in said if sentence)


def _by_labels(spec: TaskSpec, said: str | None, novelty: float, near: Sequence[str]) -> str:
    """What the labels of the nearest images say of the doubt, if they say anything."""
    if novelty >= UNLIKE:
        return "Nothing like it is labelled."
    if len(near) < 2:
        return ""
    if spec.boxes:  # no two drawings are the same, but what they are of may be
        drawn = {name for text in near for name in readable(spec, text) or ()}
        lacking = [name for name in readable(spec, said) or () if name not in drawn]
        none = f"The labelled images most like it have no {' and no '.join(lacking)}."
        return none if lacking else ""
    if len(set(near)) > 1:
        return "The labelled images most like it have different labels."
    if near[0] == said:
        return "The labelled images most like it have this label."
    return "The labelled images most like it all have another label."


def _beside_labels(
    project: Project,
    spec: TaskSpec | None,
    compared: Compared | None,
    labels: Mapping[int, str],
) -> dict[str, Any]:
    """Novelty and the nearest labelled tasks that are labelled still."""
    nearest = compared.nearest if compared else []
    return {
        "novelty": compared.novelty if compared else None,
        "nearest": [
            {
                "task": task,
                "label": readable(spec, labels[task]),
                "similarity": similarity,
                "regions": drawn_regions(spec, labels[task]),
                "label_studio_url": _address(project, task),
            }
            for task, similarity in nearest
            if task in labels
        ],
    }


def _address(project: Project, task: int) -> str:
    return f"{project.host}/projects/{project.platform_id}/data?task={task}"


def _regions(spec: TaskSpec | None, text: str | None) -> list[dict[str, Any]]:
    """Predicted boxes as shares of the upright image; none where no boxes are drawn."""
    said = boxes.decode_prediction(text) if spec is not None and spec.boxes and text else None
    if said is None:
        return []
    return [{"label": r.label, "box": list(r.box), "p_right": r.p} for r in said.regions]


def drawn_regions(spec: TaskSpec | None, text: str) -> list[dict[str, Any]]:
    """Boxes of a label: ``label`` and ``box``, shares of the upright image; else none."""
    drawing = boxes.decode(text) if spec is not None and spec.boxes else None
    if drawing is None:
        return []
    return [{"label": drawn.label, "box": list(drawn.box)} for drawn in drawing.boxes]
