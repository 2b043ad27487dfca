"""Of boxes that lie over each other, the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.detection.geometry import iou_matrix
from model.detection.types import Floats


def non_maximum_suppression(
    boxes: Floats, scores: Floats, labels: NDArray[np.int64], *, overlap: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: ``(N, 4)``, in any unit.
        scores: ``(N,)``.
        labels: ``(N,)``.
        overlap: a box goes when a better one of its class has a larger IoU with it.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, labels = boxes[order], labels[order]
    rivals = (iou_matrix(boxes, boxes) > overlap) & (labels[:, None] == labels[None, :])
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for n in range(len(order)):
        if alive[n]:
            kept.append(n)
            alive &= ~rivals[n]
    found: NDArray[np.int64] = order[np.array(kept, np.int64)].astype(np.int64)
    return found
