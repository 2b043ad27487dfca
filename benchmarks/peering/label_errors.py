"""Label errors by cleanlab, each function as its authors wrote it, with its default settings.

``out of fold`` is given features ``rows`` (N, D), ``labels`` (N,), ``n_classes`` and ``seed``, and
``cleanlab: choices`` ``probs`` (N, C) and ``labels``. ``cleanlab: boxes`` is given of all images
together the drawn boxes ``drawn`` (B, 4) in pixels, ``drawn_labels`` (B,), the regions ``boxes``
(R, 4), ``box_labels`` (R,), ``scores`` (R,), how many an image has of either, ``drawn_counts`` (N,)
and ``counts`` (N,), ``n_classes``, and two confidences: ``sure`` from which a region may show an
overlooked object or another class, ``likely`` from which it may show that a box is badly placed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from peering.estimators import FOLDS, _all_classes, _logistic

Given = dict[str, Any]
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = ("prune_by_noise_rate", "confident_learning")


def out_of_fold(given: Given) -> dict[str, Any]:
    """Probabilities of plain logistic regression in five folds, as cleanlab's tutorials make them.

    Not divided by class, which is refused where a class has fewer images than folds.
    """
    from sklearn.model_selection import KFold

    rows, labels = given["rows"], given["labels"]
    probs = np.zeros((len(labels), int(given["n_classes"])))
    dealer = KFold(FOLDS, shuffle=True, random_state=int(given["seed"]))
    for fitted, held in dealer.split(rows):
        model = _logistic().fit(rows[fitted], labels[fitted])
        probs[held] = _all_classes(model.predict_proba(rows[held]), model.classes_, given)
    return {"probs": probs}


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
    sure, likely = float(given["sure"]), float(given["likely"])
    both = {"labels": labels, "predictions": predictions}
    found = {
        "overlooked": rank.compute_overlooked_box_scores(**both, high_probability_threshold=sure),
        "badly placed": rank.compute_badloc_box_scores(**both, low_probability_threshold=likely),
        "swapped": rank.compute_swap_box_scores(**both, high_probability_threshold=sure),
    }
    result = {kind: rank.pool_box_scores_per_image(scores) for kind, scores in found.items()}
    for kind in ("badly placed", "swapped"):
        result[f"box {kind}"] = np.concatenate(found[kind])
    # What `get_label_quality_scores` calls, which has no arguments for the thresholds.
    result["image"] = rank._get_subtype_label_quality_scores(
        labels,
        predictions,
        high_probability_threshold=sure,
        low_probability_threshold=likely,
    )
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
    "out of fold": out_of_fold,
    "cleanlab: choices": choices,
    "cleanlab: boxes": boxes,
}
