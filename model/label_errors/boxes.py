"""Drawn boxes that the out-of-fold model contradicts, and objects that nobody drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from model.detection.evaluate import INSIDE_IGNORED, IOU_RIGHT
from model.detection.geometry import inside_matrix, iou_matrix
from model.detection.types import BoxLabels, Detections, Floats
from model.errors import ModelError, ShapeError
from model.label_errors.noise import USUAL_NOISE
from model.label_errors.placement import p_badly_placed, tightness

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Kind = Literal["overlooked", "badly placed", "swapped", "unsupported"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_DRAWN: tuple[Kind, ...] = KINDS[1:]

NEAR = 0.1  # IoU from which a region may be about a drawn box at all
NO_REGION = -1
# Share of drawn boxes that no region touches, as expected before any is seen: regions with a score
# below 0.02 are not kept. It counts as much as 50 boxes.
UNSEEN, UNSEEN_BOXES = 0.02, 50.0


@dataclass(frozen=True)
class Finding:
    """One thing that is probably wrong with what people drew on an image.

    Attributes:
        kind: ``overlooked``: an object that nobody drew. ``badly placed``: the box is off its
            object. ``swapped``: it is an object of another class. ``unsupported``: there is none.
        probability: that it is so, in [0, 1].
        drawn: number of the drawn box; None for an overlooked object.
        region: number of the region that says so; None where none does.
        label: the class it should have; that of the drawn box for the other kinds.
        box: ``(4,)`` shares, where the object is; the drawn box where nothing better is known.
    """

    kind: Kind
    probability: float
    drawn: int | None
    region: int | None
    label: int
    box: Floats


@dataclass(frozen=True)
class BoxErrors:
    """What is to be said of the labels of one image, B drawn boxes and R regions.

    Attributes:
        score: probability in [0, 1] that nothing is wrong with them; lowest first is the order to
            look at images in.
        overlooked: ``(R,)`` probability that the region shows an object nobody drew.
        of_drawn: ``(B, 3)`` probabilities that the box is badly placed, swapped, unsupported; what
            they leave of 1 says that it is right.
        findings: those of a probability of `least` or more, most probable first.
    """

    score: float
    overlooked: Floats
    of_drawn: Floats
    findings: tuple[Finding, ...]

    def without(self, kind: Kind) -> float:
        """Probability that what looks most like an error of that kind is none.

        Lowest first is the order to look for errors of one kind in. The product over all that the
        image has would put crowded images first, for the sum of their small doubts.
        """
        of_kind = self.overlooked
        if kind != "overlooked":
            of_kind = self.of_drawn[:, OF_DRAWN.index(kind)]
        return 1.0 - float(of_kind.max(initial=0.0))


def find_box_errors(
    found: Sequence[Detections],
    drawn: Sequence[BoxLabels],
    *,
    noise: float = USUAL_NOISE,
    least: float = 0.1,
) -> list[BoxErrors]:
    """Compare what people drew with what heads found that were not fitted to the image.

    Every region is about at most one drawn box of its class and every box has at most one region,
    so that together they share most area, weighted by P(right). Then Bayes' rule, with the same
    share e of errors of each kind:

    - A region that is about no box, and that no box covers with IoU 0.5 or more, shows an
      overlooked object with odds ``e * P(right) / (1 - P(right))``. P(right) counts what people
      drew, so its doubt is largely that they overlook things; of two such regions with IoU 0.5
      only the surer one is asked about.
    - A box is an object of its class with weight ``(1 - e) * p``, of another one, swapped, with
      ``e / (C - 1) * p_other`` and none, unsupported, with ``s * (1 - both)``. The p are the
      regions' calibrated probabilities of these classes; that of its own class is never below the
      share of boxes that no region touches. s is how often a box drawn around nothing meets just
      this one of the many regions without an object, see `spurious_share`; e where there is none.
    - A box of the right class is badly placed as far as its sides and the region's differ by more
      than the region's own spread explains, see `placement.p_badly_placed`.

    Args:
        found: of N images all regions, also those too doubtful to be shown, such as
            `model.detection.bundle.BoxBundle.out_of_fold_found`.
        drawn: N.
        noise: e, in (0, 0.5]; the default is what was found in public test sets.
        least: probability from which a finding is listed.

    Returns:
        N. Probabilities are made as if errors were independent.

    Raises:
        ShapeError: the lengths differ.
        ModelError: a drawn label is no class of the regions', or `noise` is out of range.

    Source:
        The kinds are those of ObjectLab (Tkachenko, Thyagarajan and Mueller 2023,
        arXiv:2309.00832), which scores them by similarity of boxes above thresholds of
        confidence; here they are probabilities.
    """
    if len(found) != len(drawn):
        raise ShapeError("drawn", expected=f"({len(found)},)", got=(len(drawn),))
    if not 0.0 < noise <= 0.5:
        raise ModelError(f"noise is {noise}; give the share of wrong labels, above 0 and up to 0.5")
    for number, (regions, truth) in enumerate(zip(found, drawn, strict=True)):
        classes = regions.probs.shape[1]
        if outside := [label for label in truth.labels.tolist() if not 0 <= label < classes]:
            raise ModelError(
                f"image {number} has a drawn box of class {outside[0]}; the regions know "
                f"{classes} classes, from 0"
            )
    pairs = [pair(regions, truth) for regions, truth in zip(found, drawn, strict=True)]
    usual = tightness(found, drawn, pairs)
    unseen, spurious = unseen_share(found, drawn), spurious_share(found, drawn, noise)
    return [
        _of_image(*image, noise=noise, least=least, tight=usual, unseen=unseen, spurious=spurious)
        for image in zip(found, drawn, pairs, strict=True)
    ]


def pair(regions: Detections, drawn: BoxLabels) -> Ints:
    """``(B,)`` number of the region that is about each drawn box, of the same class, or -1.

    One to one, with the largest sum of P(right) times IoU, and no pair with an IoU below 0.1.
    """
    which = np.full(len(drawn), NO_REGION, np.int64)
    if not len(regions) or not len(drawn):
        return which
    overlap = iou_matrix(drawn.boxes, regions.boxes)
    overlap[(drawn.labels[:, None] != regions.label[None, :]) | (overlap < NEAR)] = 0.0
    boxes, numbers = linear_sum_assignment(overlap * regions.p_right, maximize=True)
    is_about = overlap[boxes, numbers] > 0.0
    which[boxes[is_about]] = numbers[is_about]
    return which


def unseen_share(found: Sequence[Detections], drawn: Sequence[BoxLabels]) -> float:
    """Share of the drawn boxes that no region of any class touches; 0.02 before there are any."""
    count, unseen = UNSEEN_BOXES, UNSEEN * UNSEEN_BOXES
    for regions, truth in zip(found, drawn, strict=True):
        overlap = iou_matrix(truth.boxes, regions.boxes).max(axis=1, initial=0.0)
        count += len(truth)
        unseen += float((overlap < NEAR).sum())
    return unseen / count


def spurious_share(found: Sequence[Detections], drawn: Sequence[BoxLabels], noise: float) -> float:
    """Share of the regions without an object that somebody drew a box around, if `noise` did.

    Of B boxes ``noise * B`` are around nothing, and meet one of the regions that are none; a
    detector tells of many more of these than there are boxes. At most `noise`.
    """
    without = sum(float((1.0 - regions.p_right).sum()) for regions in found)
    return noise * min(sum(len(truth) for truth in drawn) / max(without, 1e-9), 1.0)


def _of_image(
    regions: Detections,
    drawn: BoxLabels,
    which: Ints,
    *,
    noise: float,
    least: float,
    tight: float,
    unseen: float,
    spurious: float,
) -> BoxErrors:
    overlooked = _overlooked(regions, drawn, which, noise)
    swapped, unsupported, by = _wrong_class(
        regions, drawn, which, noise=noise, unseen=unseen, spurious=spurious
    )
    is_class = 1.0 - swapped - unsupported
    misplaced = is_class * p_badly_placed(regions, drawn, which, noise=noise, tight=tight)
    of_drawn = np.stack([misplaced, swapped, unsupported], axis=1)
    right = np.clip(1.0 - of_drawn.sum(axis=1), 0.0, 1.0)
    findings = [
        Finding("overlooked", float(overlooked[n]), None, n, int(regions.label[n]), boxes)
        for n, boxes in enumerate(regions.boxes)
    ]
    for n in range(len(drawn)):
        own, region, other = int(drawn.labels[n]), int(which[n]), int(by[n])
        p_misplaced, p_swapped, p_none = of_drawn[n].tolist()
        if region != NO_REGION:
            place = regions.boxes[region]
            findings.append(Finding("badly placed", p_misplaced, n, region, own, place))
        if other != NO_REGION:
            label = int(_others(regions, own)[other].argmax())
            findings.append(Finding("swapped", p_swapped, n, other, label, drawn.boxes[n]))
        findings.append(Finding("unsupported", p_none, n, None, own, drawn.boxes[n]))
    findings = [one for one in findings if one.probability >= least]
    return BoxErrors(
        score=float(np.prod(right) * np.prod(1.0 - overlooked)),
        overlooked=overlooked,
        of_drawn=of_drawn,
        findings=tuple(sorted(findings, key=lambda one: -one.probability)),
    )


def _overlooked(regions: Detections, drawn: BoxLabels, which: Ints, noise: float) -> Floats:
    """``(R,)`` probabilities."""
    is_free = np.ones(len(regions), bool)
    is_free[which[which != NO_REGION]] = False
    is_free &= iou_matrix(regions.boxes, drawn.boxes).max(axis=1, initial=0.0) < IOU_RIGHT
    inside = inside_matrix(regions.boxes, drawn.ignored).max(axis=1, initial=0.0)
    is_free &= inside < INSIDE_IGNORED
    same = iou_matrix(regions.boxes, regions.boxes) >= IOU_RIGHT
    for n in np.argsort(-regions.p_right, kind="stable"):
        if is_free[n]:
            is_free &= ~same[n]
            is_free[n] = True
    p = regions.p_right
    return np.where(is_free, noise * p / (noise * p + (1.0 - p)), 0.0)


def _wrong_class(
    regions: Detections,
    drawn: BoxLabels,
    which: Ints,
    *,
    noise: float,
    unseen: float,
    spurious: float,
) -> tuple[Floats, Floats, Ints]:
    """``(B,)`` P(swapped) and P(unsupported), and which region shows the other class, or -1."""
    swapped, unsupported = np.zeros(len(drawn)), np.zeros(len(drawn))
    by = np.full(len(drawn), NO_REGION, np.int64)
    covers = iou_matrix(drawn.boxes, regions.boxes) >= IOU_RIGHT
    classes = regions.probs.shape[1]
    for n, own in enumerate(drawn.labels.tolist()):
        taken = which[(which != NO_REGION) & (np.arange(len(drawn)) != n)]
        about = np.setdiff1d(np.flatnonzero(covers[n]), taken)  # others explain other boxes
        if which[n] != NO_REGION:
            about = np.union1d(about, which[n])
        p_own = max(float(regions.probs[about, own].max(initial=0.0)), unseen)
        p_other = 0.0
        if len(about) and classes > 1:
            rivals = _others(regions, own)[about]
            p_other = float(rivals.max(axis=0).sum())
            by[n] = about[rivals.max(axis=1).argmax()]
        right = (1.0 - noise) * p_own
        other = noise / max(classes - 1, 1) * min(p_other, 1.0)
        nothing = (spurious if len(about) else noise) * max(1.0 - p_own - p_other, 0.0)
        swapped[n], unsupported[n] = np.array([other, nothing]) / (right + other + nothing)
    return swapped, unsupported, by


def _others(regions: Detections, own: int) -> Floats:
    """``(R, C)`` probabilities of all classes but one, which gets 0."""
    probs = regions.probs.copy()
    probs[:, own] = 0.0
    return probs
