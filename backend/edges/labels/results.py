"""Label Studio's results, whatever the config asks for: writing and reading them, checking ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.edges.labels import boxes, choices
from backend.edges.labels.choices import score_problem
from backend.edges.labels.config import TaskSpec


def to_result(
    spec: TaskSpec,
    label: str,
    score: float | None,
    probs: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The result of a prediction.

    Args:
        spec: of the project.
        label: what the version says, as its text; see `answers`.
        score: calibrated P(all of it is right), or ``None`` to leave it out. Boxes have one each
            in their text, and this one is not shown.
        probs: calibrated probability of each class, shown in the notes of a choice.

    Raises:
        ValueError: `label` says nothing that `spec` knows, or a score is not in [0, 1].
    """
    if spec.boxes:
        return boxes.box_result(spec, label)
    return choices.to_result(spec, label, score, probs)


def from_result(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> str | None:
    """The answer a person gave as its text, or ``None`` when there is none."""
    if spec.boxes:
        return boxes.read_result(spec, result)
    return choices.from_result(spec, result)


def check_prediction(spec: TaskSpec, item: Mapping[str, Any]) -> list[str]:
    """What is wrong with a prediction we are about to send; empty when nothing is.

    Everything Label Studio's own validator would drop is found here (bulk import drops without a
    word), and more: a missing score is served first or last at random, a missing version cannot
    be deleted, and a score of a region must be a probability too.
    """
    problems: list[str] = []
    if not isinstance(item.get("task"), int) or isinstance(item.get("task"), bool):
        problems.append(f"task must be a whole number, got {item.get('task')!r}")
    if not isinstance(item.get("model_version"), str) or not item.get("model_version"):
        problems.append(f"model_version must be a name, got {item.get('model_version')!r}")
    problem = score_problem("score", item.get("score"))
    if problem:
        problems.append(problem)
    result = item.get("result")
    if not isinstance(result, list):
        return [*problems, f"result must be a list, got {type(result).__name__}"]
    for index, region in enumerate(result):
        problems.extend(f"region {index}: {text}" for text in _region_problems(spec, region))
    if spec.boxes:
        problems.extend(boxes.id_problems(spec, [r for r in result if isinstance(r, Mapping)]))
    return problems


def _region_problems(spec: TaskSpec, region: Any) -> list[str]:
    if not isinstance(region, Mapping):
        return [f"must be an object, got {type(region).__name__}"]
    check = boxes.check_box_region if spec.boxes else choices.check_choice
    problems = check(spec, region)
    if region.get("score") is not None:
        problem = score_problem("score", region["score"])
        if problem:
            problems.append(problem)
    return problems
