"""Frozen values that pass between the parts of detection; no behaviour.

Boxes are ``x0, y0, x1, y1`` in shares of the upright image's width and height, from 0 to 1, so that
they hold whatever size the image is shown, stored or computed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError, ShapeError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BoxLabels:
    """What people drew on one image; no box at all says that there is no object.

    Attributes:
        boxes: ``(B, 4)`` shares.
        labels: ``(B,)`` int64, index into the list of classes.
        accepted: ``(B,)`` bool, True where a prediction was taken over as it was: it confirms the
            object and its class, and says little about its sides.
        ignored: ``(G, 4)`` shares, areas of which it is not known what they hold: neither an
            object nor its absence is learnt there.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    accepted: NDArray[np.bool_]
    ignored: Floats

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(
        cls,
        boxes: Sequence[Sequence[float]],
        labels: Sequence[int],
        *,
        accepted: Sequence[bool] | None = None,
        ignored: Sequence[Sequence[float]] = (),
    ) -> BoxLabels:
        """From plain lists.

        Raises:
            ShapeError: lists that do not belong together.
            ModelError: a box is empty, not finite, or outside 0 to 1.
        """
        count = len(labels)
        taken = [False] * count if accepted is None else accepted
        for name, given in (("boxes", boxes), ("ignored", ignored)):
            for box in given:
                if len(box) != 4:
                    raise ShapeError(name, expected="(N, 4)", got=(len(given), len(box)))
        found = cls(
            boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
            labels=np.asarray(labels, np.int64).reshape(-1),
            accepted=np.asarray(taken, bool).reshape(-1),
            ignored=np.asarray(ignored, np.float64).reshape(-1, 4),
        )
        if len(found.boxes) != count:
            raise ShapeError("boxes", expected=f"({count}, 4)", got=found.boxes.shape)
        if len(found.accepted) != count:
            raise ShapeError("accepted", expected=f"({count},)", got=found.accepted.shape)
        for box in (*found.boxes, *found.ignored):
            if not (
                np.isfinite(box).all() and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
            ):
                raise ModelError(
                    f"box {box.tolist()} is none: x0 < x1 and y0 < y1, all from 0 to 1; clip boxes "
                    "to the image and leave empty ones out"
                )
        return found


@dataclass(frozen=True)
class Detections:
    """What a version says of one image, most trustworthy region first.

    Attributes:
        boxes: ``(R, 4)`` shares.
        label: ``(R,)`` int64, the most probable class.
        p_right: ``(R,)`` calibrated probability in (0, 1) that the class is right and the box
            covers an object of it with IoU >= 0.5.
        probs: ``(R, C)`` calibrated probability of every class; what is left to 1 says "no such
            object".
        total: ``(R,)`` nats, entropy over the classes and "no such object" of the mean of passes.
        aleatoric: ``(R,)`` nats, mean entropy of the passes.
        epistemic: ``(R,)`` nats, total - aleatoric, >= 0; 0 with one pass.
        spread: ``(R, 4)`` pixels of the upright image, one standard deviation of each side.
        p_all_right: calibrated P(no region is wrong and no object was missed), in (0, 1).
        missed: expected number of objects that no region covers.
        size: width and height of the upright image in pixels.
    """

    boxes: Floats
    label: NDArray[np.int64]
    p_right: Floats
    probs: Floats
    total: Floats
    aleatoric: Floats
    epistemic: Floats
    spread: Floats
    p_all_right: float
    missed: float
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.label)
