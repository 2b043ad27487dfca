"""Label errors by cleanlab, each function as its authors wrote it, with its default settings.

``cleanlab: choices`` is given ``probs`` (N, C) and ``labels`` (N,). ``cleanlab: boxes`` is given of
all images together the drawn boxes ``drawn`` (B, 4) in pixels, ``drawn_labels`` (B,), the regions
``boxes`` (R, 4), ``box_labels`` (R,), ``scores`` (R,), how many an image has of either,
``drawn_counts`` (N,) and ``counts`` (N,), and ``n_classes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Given = dict[str, Any]
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = ("prune_by_noise_rate", "confident_learning")


def choices(given: Given) -> dict[str, Any]:
    """Quality of each label by every method, and whether it is an issue by two filters."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels, probs = given["labels"], given["probs"]
    scores = {m: get_label_quality_scores(labels, probs, method=m) for m in METHODS}
    issues = {f: find_label_issues(labels, probs, filter_by=f, n_jobs=1) for f in FILTERS}
    return scores | issues


def boxes(given: Given) -> dict[str, Any]:
    """Quality of each image, of it by kind, of each drawn box by kind, and which are issues.

    Quality of boxes is one number a drawn box, images after each other.
    """
    from cleanlab.object_detection import rank
    from cleanlab.object_detection.filter import find_label_issues

    labels, predictions = _as_lists(given)
    inputs = rank._get_valid_inputs_for_compute_scores(0.9, labels, predictions)  # its ALPHA
    found = {
        "overlooked": rank.compute_overlooked_box_scores(auxiliary_inputs=inputs),
        "badly placed": rank.compute_badloc_box_scores(auxiliary_inputs=inputs),
        "swapped": rank.compute_swap_box_scores(auxiliary_inputs=inputs),
    }
    result = {kind: rank.pool_box_scores_per_image(scores) for kind, scores in found.items()}
    for kind in ("badly placed", "swapped"):
        result[f"box {kind}"] = np.concatenate(found[kind])
    result["image"] = rank.get_label_quality_scores(labels, predictions, verbose=False)
    result["issue"] = find_label_issues(labels, predictions)
    return result


def _as_lists(given: Given) -> tuple[list[dict[str, Any]], list[Any]]:
    """Labels and predictions as cleanlab takes them."""
    labels, predictions = [], []
    ends, drawn_ends = np.cumsum(given["counts"]), np.cumsum(given["drawn_counts"])
    rows = np.column_stack([given["boxes"], given["scores"]])
    for end, count, drawn_end, drawn_count in zip(
        ends, given["counts"], drawn_ends, given["drawn_counts"], strict=True
    ):
        drawn = slice(drawn_end - drawn_count, drawn_end)
        labels.append({"bboxes": given["drawn"][drawn], "labels": given["drawn_labels"][drawn]})
        of_image, classes = rows[end - count : end], given["box_labels"][end - count : end]
        of_class = np.empty(int(given["n_classes"]), object)
        for number in range(len(of_class)):
            of_class[number] = of_image[classes == number]
        predictions.append(of_class)
    return labels, predictions


HANDLERS: dict[str, Callable[[Given], dict[str, Any]]] = {
    "cleanlab: choices": choices,
    "cleanlab: boxes": boxes,
}
