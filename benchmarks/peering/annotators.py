"""Several annotators by cleanlab (CROWDLAB), as its authors wrote it, with its default settings.

``cleanlab: annotators`` is given ``probs`` (N, C) and ``labels`` (N, M), nan where a person did not
label a task. ``cleanlab: again`` is given the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Given = dict[str, Any]


def annotators(given: Given) -> dict[str, Any]:
    """Consensus (N,), probability that it is right (N,), and quality of each person (M,)."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    found = get_label_quality_multiannotator(given["labels"], given["probs"], verbose=False)
    of_tasks = found["label_quality"]
    return {
        "consensus": of_tasks["consensus_label"].to_numpy(),
        "p_right": of_tasks["consensus_quality_score"].to_numpy(),
        "quality": found["annotator_stats"].sort_index()["annotator_quality"].to_numpy(),
    }


def again(given: Given) -> dict[str, Any]:
    """ActiveLab: score (N,) of labelled images, the lowest is most worth another label."""
    from cleanlab.multiannotator import get_active_learning_scores

    scores, _ = get_active_learning_scores(given["labels"], given["probs"])
    return {"score": scores}


HANDLERS: dict[str, Callable[[Given], dict[str, Any]]] = {
    "cleanlab: annotators": annotators,
    "cleanlab: again": again,
}
