"""Whether the sides of a drawn box lie further from a region's than that explains by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.detection.evaluate import IOU_RIGHT
from model.detection.geometry import iou_matrix
from model.detection.types import BoxLabels, Detections, Floats

Ints = NDArray[np.int64]

OFF = 0.25  # of width or height, by which sides of a badly placed box are off on average
# Opposite sides are off together when a box is moved, and a person who draws loosely does so on all
# four: four sides are worth two independent ones.
INDEPENDENT = 0.5
TIGHT_BOXES = 20.0  # that say "the spread is true" before any box is seen
_LEAST = 1e-6  # of a side's spread, in shares


def p_badly_placed(
    regions: Detections, drawn: BoxLabels, which: Ints, *, noise: float, tight: float
) -> Floats:
    """Probability that a box of the right class is off its object.

    By Bayes' rule between sides that miss the region's by its own spread, and sides that miss them
    by a quarter of the box on average; both Laplace, as the spread was trained. Where the region is
    not the object, which 1 - P(right) says, nothing is known but `noise`.

    Args:
        regions: of the image.
        drawn: B boxes.
        which: ``(B,)`` region that is about each box, or -1; see `boxes.pair`.
        noise: share of boxes that are badly placed, before looking.
        tight: what the regions' spread is multiplied by, of `tightness`.

    Returns:
        ``(B,)`` in (0, 1); 0 without a region.
    """
    found = np.zeros(len(drawn))
    rows = np.flatnonzero(which >= 0)
    if not len(rows):
        return found
    off, scale = _sides(regions, drawn, which)
    scale = np.maximum(scale * tight, _LEAST)
    size = np.tile(drawn.boxes[rows, 2:] - drawn.boxes[rows, :2], 2)
    wide = np.maximum(OFF * size, scale)
    for_wide = np.log(scale / wide) + off / scale - off / wide
    odds = np.log(noise) - np.log1p(-noise) + INDEPENDENT * for_wide.sum(axis=1)
    p_right = regions.p_right[which[rows]]
    found[rows] = p_right / (1.0 + np.exp(-np.clip(odds, -500, 500))) + (1.0 - p_right) * noise
    return found


def tightness(
    found: Sequence[Detections], drawn: Sequence[BoxLabels], pairs: Sequence[Ints]
) -> float:
    """How far off the sides of sure regions really are, in units of their stated spread.

    A median, so that boxes which are badly placed themselves do not count for more than others;
    drawn towards 1 as if 20 boxes had said so.

    Args:
        found: of N images.
        drawn: N.
        pairs: N, of `boxes.pair`.
    """
    seen = [np.full(int(TIGHT_BOXES) * 4, np.log(2.0))]  # the median of a Laplace of scale 1
    for regions, truth, which in zip(found, drawn, pairs, strict=True):
        rows = np.flatnonzero(which >= 0)
        if not len(rows):
            continue
        overlap = iou_matrix(truth.boxes[rows], regions.boxes[which[rows]]).diagonal()
        is_sure = (regions.p_right[which[rows]] >= 0.5) & (overlap >= IOU_RIGHT)
        off, scale = _sides(regions, truth, which)
        seen.append((off / np.maximum(scale, _LEAST))[is_sure].ravel())
    return float(np.median(np.concatenate(seen)) / np.log(2.0))


def _sides(regions: Detections, drawn: BoxLabels, which: Ints) -> tuple[Floats, Floats]:
    """``(P, 4)`` each of the boxes with a region: how far sides are off, and Laplace scales."""
    rows = np.flatnonzero(which >= 0)
    of = which[rows]
    off: Floats = np.abs(drawn.boxes[rows] - regions.boxes[of])
    to_shares = np.array([*regions.size, *regions.size], np.float64)
    return off, regions.spread[of] / to_shares / np.sqrt(2.0)
