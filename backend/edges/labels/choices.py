"""Label Studio's result of a choice or several: writing, reading and checking it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.edges.labels.answers import decode, encode, in_order, is_known, notes
from backend.edges.labels.config import TaskSpec

TYPE = "choices"


@dataclass(frozen=True)
class Reading:
    """What a person's result says about our control.

    Attributes:
        label: the answer as its text, see `answers`, or ``None``.
        reason: why there is no label, one sentence; ``None`` when there is one.
    """

    label: str | None
    reason: str | None = None


def to_result(
    spec: TaskSpec,
    label: str,
    score: float | None,
    probs: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The result of a prediction that answers `label`.

    Args:
        spec: of the project.
        label: one of ``spec.classes``, or the text of several. None of them is an empty result,
            which is what Label Studio gives when somebody submits without a choice.
        score: calibrated P(label is right), or ``None`` to leave it out.
        probs: calibrated probability of each class, shown in the region's notes.

    Raises:
        ValueError: `label` is no class of `spec`, or `score` is not in [0, 1].
    """
    if not is_known(spec, label):
        raise ValueError(f"'{label}' is no choice of '{spec.control}': {', '.join(spec.classes)}.")
    chosen = in_order(spec, decode(label) or ()) if spec.multiple else [label]
    if not chosen:
        return []
    region: dict[str, Any] = {
        "from_name": spec.control,
        "to_name": spec.object,
        "type": TYPE,
        "value": {"choices": chosen},
        **notes(probs),
    }
    if score is not None:
        problem = score_problem("score of the region", score)
        if problem:
            raise ValueError(problem)
        region["score"] = float(score)
    return [region]


def from_result(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> str | None:
    """The answer a person gave, or ``None``; `classify_result` also says why there is none."""
    return classify_result(spec, result).label


def classify_result(spec: TaskSpec, result: Sequence[Mapping[str, Any]]) -> Reading:
    """Read the answer to our control out of an annotation's regions."""
    ours = [r for r in result if r.get("from_name") == spec.control and r.get("type") == TYPE]
    if not ours and not spec.multiple:
        return Reading(None, f"'{spec.control}' has no answer.")
    answers: list[Any] = []
    for region in ours:
        value = region.get("value")
        chosen = value.get("choices") if isinstance(value, Mapping) else None
        answers.extend(chosen if isinstance(chosen, list) else [chosen] if chosen else [])
    if spec.multiple:
        return _several(spec, answers)
    if not answers:
        return Reading(None, f"'{spec.control}' has no answer.")
    if len(set(map(str, answers))) > 1:
        given = ", ".join(map(str, answers[:5]))
        return Reading(None, f"'{spec.control}' has {len(answers)} answers ({given}); one counts.")
    label = answers[0]
    if not isinstance(label, str) or label not in spec.classes:
        return Reading(None, f"'{label}' is no choice of '{spec.control}' any more.")
    return Reading(label)


def _several(spec: TaskSpec, answers: Sequence[Any]) -> Reading:
    """Submitted without a choice means that none applies, unless the config requires one."""
    if not answers and spec.required:
        return Reading(None, f"'{spec.control}' has no answer.")
    for label in answers:
        if not isinstance(label, str) or label not in spec.classes:
            return Reading(None, f"'{label}' is no choice of '{spec.control}' any more.")
    return Reading(encode(answers))


def check_choice(spec: TaskSpec, region: Mapping[str, Any]) -> list[str]:
    """What is wrong with one region we are about to send; its score is checked elsewhere."""
    problems = [
        f"{key} must be '{expected}', got {region.get(key)!r}"
        for key, expected in (
            ("from_name", spec.control),
            ("to_name", spec.object),
            ("type", TYPE),
        )
        if region.get(key) != expected
    ]
    value = region.get("value")
    chosen = value.get("choices") if isinstance(value, Mapping) else None
    if spec.multiple and (not isinstance(chosen, list) or not chosen):
        problems.append(f"value.choices must be a list of labels, got {chosen!r}")
    elif not spec.multiple and (not isinstance(chosen, list) or len(chosen) != 1):
        problems.append(f"value.choices must be a list of one label, got {chosen!r}")
    else:
        unknown = [label for label in chosen or () if label not in spec.classes]
        if unknown:
            problems.append(f"{unknown[0]!r} is none of {', '.join(spec.classes)}")
    return problems


def score_problem(name: str, score: Any) -> str | None:
    """Why a score cannot be sent; None when it can."""
    if isinstance(score, bool) or not isinstance(score, int | float):
        return f"{name} must be a number, got {score!r}"
    if not math.isfinite(score) or not 0.0 <= score <= 1.0:
        return f"{name} must be between 0 and 1, got {score!r}"
    return None
