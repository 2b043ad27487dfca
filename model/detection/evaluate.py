"""How good detections are: which regions are right, average precision, what was missed.

Average precision is that of the reference implementation, pycocotools; `match` gives its matching
for one image, so that calibration and ranking are judged by the same idea of a right region.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from model.calibration.metrics import ece, error_auroc
from model.detection.geometry import inside_matrix, iou_matrix
from model.detection.shape import MOST_KEPT
from model.detection.types import BoxLabels, Floats
from model.errors import ModelError, ShapeError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Found = tuple[Floats, Ints, Floats]  # boxes (R, 4) in shares, labels (R,), scores (R,)

IOU_RIGHT = 0.5
INSIDE_IGNORED = 0.5
MOST_DETECTIONS = MOST_KEPT  # of a class in an image: all; COCO counts 100


class Matches(NamedTuple):
    """What became of the regions of one image.

    Attributes:
        right: ``(R,)`` True where a region was matched with an object.
        which: ``(R,)`` number of that object among the truth's, or -1.
        ignored: ``(R,)`` True where it is not known whether the region is right.
    """

    right: Bools
    which: Ints
    ignored: Bools


def match(
    boxes: Floats, labels: Ints, scores: Floats, truth: BoxLabels, *, iou: float = IOU_RIGHT
) -> Matches:
    """Match the regions of one image with its objects, as COCO does.

    Greedy: from the highest score down every region takes, among the objects of its class that are
    free, the one it overlaps most, if their IoU is at least `iou`. A region that gets none and lies
    by half of its area or more inside an ignored area is neither right nor wrong.

    Args:
        boxes: ``(R, 4)`` in shares.
        labels: ``(R,)`` classes.
        scores: ``(R,)``; equal ones in the order given.
        truth: what people drew.
        iou: least overlap.

    Raises:
        ShapeError: lengths that differ.

    Source:
        COCOeval.evaluateImg of pycocotools 2.0; Lin et al. 2014, arXiv:1405.0312.
    """
    count = len(boxes)
    for name, array in (("labels", labels), ("scores", scores)):
        if array.shape != (count,):
            raise ShapeError(name, expected=f"({count},)", got=array.shape)
    which = np.full(count, -1, np.int64)
    overlap = iou_matrix(boxes, truth.boxes)
    overlap[labels[:, None] != truth.labels[None, :]] = -1.0
    least = min(iou, 1.0 - 1e-10)  # for equal boxes at iou=1, whatever rounding does; COCO's too
    if overlap.size:
        for region in np.argsort(-scores, kind="stable"):
            last_best = overlap.shape[1] - 1 - int(overlap[region, ::-1].argmax())
            if overlap[region, last_best] >= least:
                which[region] = last_best
                overlap[:, last_best] = -1.0
    right = which >= 0
    inside = (inside_matrix(boxes, truth.ignored) >= INSIDE_IGNORED).any(axis=1)
    return Matches(right, which, ~right & inside)


class Outcome(NamedTuple):
    """What a person would have to change about the regions of one image.

    Attributes:
        missed: objects that no region covers.
        wrong: regions that cover no object, where that is known.
    """

    missed: int
    wrong: int

    @property
    def right(self) -> bool:
        """Whether nothing has to be changed."""
        return not self.missed and not self.wrong


def outcome(boxes: Floats, labels: Ints, p_right: Floats, truth: BoxLabels) -> Outcome:
    """Compare the regions that are shown of an image with its objects; arguments as of `match`."""
    found = match(boxes, labels, p_right, truth)
    wrong = int((~found.right & ~found.ignored).sum())
    return Outcome(len(truth) - int(found.right.sum()), wrong)


class AveragePrecision(TypedDict):
    """COCO's figures, each from 0 to 1; None where no class has an object.

    Attributes:
        ap50: mean over the classes of the average precision at IoU 0.5.
        map: the same, mean over IoU 0.5, 0.55 to 0.95.
        ap50_per_class: of every class, None for those without an object.
    """

    ap50: float | None
    map: float | None
    ap50_per_class: list[float | None]


def average_precision(
    found: Sequence[Found],
    truths: Sequence[BoxLabels],
    sizes: Sequence[tuple[int, int]],
    n_classes: int,
) -> AveragePrecision:
    """Average precision of detections over a set of images, by pycocotools.

    At most 500 regions of a class count in an image, where COCO counts 100. Ignored areas are
    crowds of every class: a region without an object counts neither way where the share of it
    inside one is at least the IoU that is asked for, so at 0.75 three quarters of it; `match` asks
    for half.

    Args:
        found: of N images the boxes ``(R, 4)`` in shares, labels ``(R,)`` and scores ``(R,)``.
        truths: N.
        sizes: N times width and height in pixels.
        n_classes: labels are below.

    Raises:
        ShapeError: lengths that differ.
        ModelError: a label is no class.

    Source:
        Lin et al. 2014, arXiv:1405.0312; AP at 101 recalls as on cocodataset.org/#detection-eval.
    """
    for name, given in (("truths", truths), ("sizes", sizes)):
        if len(given) != len(found):
            raise ShapeError(name, expected=f"({len(found)},)", got=(len(given),))
    precision_T_K = _coco_precision(found, truths, sizes, n_classes) if len(found) else None
    if precision_T_K is None:
        return {"ap50": None, "map": None, "ap50_per_class": [None] * n_classes}
    known = ~np.isnan(precision_T_K[0])
    return {
        "ap50": float(precision_T_K[0, known].mean()) if known.any() else None,
        "map": float(precision_T_K[:, known].mean()) if known.any() else None,
        "ap50_per_class": [None if np.isnan(ap) else float(ap) for ap in precision_T_K[0]],
    }


def _coco_precision(
    found: Sequence[Found],
    truths: Sequence[BoxLabels],
    sizes: Sequence[tuple[int, int]],
    n_classes: int,
) -> Floats:
    """``(T, K)`` mean precision over recalls of each IoU and class; nan for absent classes."""
    with redirect_stdout(StringIO()):  # it prints how long each step took
        evaluation = _coco_evaluation(found, truths, sizes, n_classes)
        evaluation.evaluate()
        evaluation.accumulate()
    precision: Floats = evaluation.eval["precision"][..., 0, 0]  # (T, R, K), -1 for absent ones
    averaged: Floats = np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan)
    return averaged


def _coco_evaluation(
    found: Sequence[Found],
    truths: Sequence[BoxLabels],
    sizes: Sequence[tuple[int, int]],
    n_classes: int,
) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    drawn: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for image, (regions, truth, size) in enumerate(zip(found, truths, sizes, strict=True)):
        boxes, labels, scores = regions
        for kind, given in (("a region", labels), ("an object", truth.labels)):
            if outside := [int(label) for label in given if not 0 <= label < n_classes]:
                raise ModelError(
                    f"image {image} has {kind} of class {outside[0]}; classes are 0 to "
                    f"{n_classes - 1}"
                )
        drawn += _annotations(image, truth.boxes, truth.labels, size)
        for box in truth.ignored:
            every = np.arange(n_classes)
            drawn += _annotations(image, np.tile(box, (n_classes, 1)), every, size, iscrowd=1)
        said += [
            {**region, "score": float(score)}
            for region, score in zip(_annotations(image, boxes, labels, size), scores, strict=True)
        ]
    images = [{"id": n, "width": w, "height": h} for n, (w, h) in enumerate(sizes)]
    sides = []
    for side in (drawn, said):
        for number, annotation in enumerate(side, 1):  # 0 means "not matched" to it
            annotation["id"] = number
        coco = COCO()
        coco.dataset = {
            "images": images,
            "categories": [{"id": n, "name": str(n)} for n in range(n_classes)],
            "annotations": side,
        }
        coco.createIndex()
        sides.append(coco)
    evaluation = COCOeval(*sides, iouType="bbox")
    evaluation.params.areaRng = [[0.0, float("inf")]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.params.maxDets = [MOST_DETECTIONS]
    return evaluation


def _annotations(
    image: int, boxes: Floats, labels: Ints, size: tuple[int, int], *, iscrowd: int = 0
) -> list[dict[str, Any]]:
    pixels = np.asarray(boxes, np.float64) * np.array([*size, *size], np.float64)
    return [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": iscrowd,
        }
        for (x0, y0, x1, y1), label in zip(pixels.tolist(), labels, strict=True)
    ]


def detection_ece(
    p_right: Floats, right: Bools, *, threshold: float = 0.0, bins: int = 15
) -> float | None:
    """Expected calibration error of regions, over bins of equal mass.

    Args:
        p_right: ``(R,)`` stated, of the regions of all images but ignored ones; see `match`.
        right: ``(R,)`` whether they were.
        threshold: only regions stated at least so count.
        bins: see `model.calibration.metrics.ece`.

    Returns:
        0 to 1, smaller is better; None when no region is left.

    Raises:
        ShapeError: the lengths differ.

    Source:
        Küppers et al. 2020, arXiv:2004.13546 (right: class and IoU), without bins over position;
        equal mass as in `ece`.
    """
    shown, happened = _shown(p_right, right, threshold)
    return ece(shown, happened, bins=bins) if len(shown) else None


def region_error_auroc(p_right: Floats, right: Bools, *, threshold: float) -> float | None:
    """Probability that a wrong region has a lower `p_right` than a right one; ties count half.

    Only regions stated at least `threshold` count: those below are many, nearly all wrong, and
    nobody is shown them, so with them the figure is high for any detector.

    Args:
        p_right: ``(R,)`` stated, of the regions of all images but ignored ones; see `match`.
        right: ``(R,)`` whether they were.
        threshold: least `p_right` of a region that is shown.

    Returns:
        0.5 for a score that says nothing, 1 for a perfect ranking; None when all are right, all are
        wrong, or none is left.

    Raises:
        ShapeError: the lengths differ.
    """
    shown, happened = _shown(p_right, right, threshold)
    return error_auroc(shown, happened) if len(shown) else None


def _shown(p_right: Floats, right: Bools, threshold: float) -> tuple[Floats, Bools]:
    if right.shape != p_right.shape or p_right.ndim != 1:
        raise ShapeError("right", expected=f"({len(p_right)},)", got=right.shape)
    kept = p_right >= threshold
    return p_right[kept], right[kept]


def recall_of_missed(order: Ints, has_missed: Bools, *, share: float = 0.2) -> float | None:
    """Share of the images with a missed object that are met early in an order.

    Args:
        order: ``(N,)`` numbers of all images, the one to look at first in front.
        has_missed: ``(N,)`` by the images' numbers, whether an object was missed in it.
        share: part of the images that is looked at, rounded up.

    Returns:
        0 to 1, `share` on average for a random order; None when nothing was missed.

    Raises:
        ShapeError: the lengths differ, or `order` has not each image once.

    Example:
        >>> has_missed = np.array([False, True, False, False, True])
        >>> recall_of_missed(np.array([4, 0, 1, 2, 3]), has_missed, share=0.2)
        0.5
    """
    count = len(has_missed)
    if not np.array_equal(np.sort(order), np.arange(count)):
        raise ShapeError("order", expected=f"({count},), each image once", got=order.shape)
    if not has_missed.any():
        return None
    first = order[: int(np.ceil(share * count - 1e-9))]  # 0.2 * 15 is 3.0000000000000004
    return float(has_missed[first].sum() / has_missed.sum())
