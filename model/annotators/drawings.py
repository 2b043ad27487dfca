"""Several people who each draw boxes on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from model.annotators.base import F64, Annotator, Bools, Ints, ratio
from model.annotators.sets import check_labels
from model.annotators.yes_no import (
    USUAL_ANSWERS,
    USUAL_YES,
    Found,
    Questions,
    annotators,
    answer,
    why_unknown,
)
from model.detection.evaluate import INSIDE_IGNORED, IOU_RIGHT
from model.detection.geometry import inside_matrix, iou_matrix
from model.detection.types import BoxLabels, Detections
from model.errors import ShapeError

# Regions less probable than this are not asked about where nobody drew anything.
LEAST_REGION = 0.05


@dataclass(frozen=True)
class BoxCrowd:
    """What several people's drawings of N tasks come to.

    Attributes:
        drawn: N, the objects that are more probably there than not: median sides of those who drew
            them, or the region where nobody did. Empty where `why` is set.
        p_right: ``(N,)`` probability that nothing of this is wrong and nothing is missed. Empty
            where `why` is set.
        annotators: each once, in ascending order of the ids; `quality` is the F1 of their boxes
            against what is there, `agreement` the F1 against the others' boxes of the same images,
            at IoU 0.5 and of the same class, `recall` and `precision` are the parts of quality;
            there is no `kappa`. None where `why` is set.
        why: why nobody's quality can be told; None where somebody's can.
    """

    drawn: tuple[BoxLabels, ...]
    p_right: F64
    annotators: tuple[Annotator, ...]
    why: str | None


@dataclass
class _Object:
    """Something that may be there."""

    label: int
    boxes: list[F64] = field(default_factory=list)
    who: list[int] = field(default_factory=list)
    prior: float = np.nan

    @property
    def box(self) -> F64:
        middle: F64 = np.median(np.stack(self.boxes), axis=0)
        return middle


def weigh_drawings(
    found: Sequence[Detections],
    task: Ints,
    annotator: Ints,
    drawn: Sequence[BoxLabels],
) -> BoxCrowd:
    """Estimate which objects are there, and how good each person's boxes are.

    Boxes of one class with IoU 0.5 and more are one object, and so is what the model finds there.
    Whether it is there is a question to everybody who labelled the image, see `yes_no.answer`: who
    drew it says yes. Before that it is as probable as the model says; of what the model did not
    find one share for all is estimated. What nobody drew counts where the model finds it. Who left
    an area open is not asked about what lies in it.

    A box in the right place with another's class says no to the right object and yes to a wrong
    one, and so does a box that is too far off.

    Args:
        found: of N tasks all regions by heads that were not fitted to the image.
        task: ``(L,)`` number of the task of each drawing.
        annotator: ``(L,)`` whose it is; at most one a task.
        drawn: L.

    Raises:
        ShapeError: arrays that do not belong together.
        ModelError: a task is out of range, or one person has two drawings of a task.
    """
    for name, size in (("annotator", len(annotator)), ("drawn", len(drawn))):
        if size != len(task):
            raise ShapeError(name, expected=f"({len(task)},)", got=(size,))
    check_labels(task, annotator, len(found))
    people, who = np.unique(annotator, return_inverse=True)
    why = why_unknown(task, people)
    if why is not None:  # to compare what all drew takes its time
        return BoxCrowd((), np.zeros(0), (), why)
    by_task: list[list[int]] = [[] for _ in found]
    for row in np.lexsort((who, task)).tolist():
        by_task[task[row]].append(row)
    objects: list[list[_Object]] = []
    answers: list[tuple[int, int, bool]] = []
    first = 0  # question of the image
    for regions, rows in zip(found, by_task, strict=True):
        objects.append(_objects([(int(who[r]), drawn[r]) for r in rows], regions))
        for number, one in enumerate(objects[-1]):
            for row in rows:
                person = int(who[row])
                if person in one.who:
                    answers.append((first + number, person, True))
                elif not _is_open(one, drawn[row]):
                    answers.append((first + number, person, False))
        first += len(objects[-1])
    question, of_person, yes = np.array(answers, np.int64).reshape(-1, 3).T
    given = Questions(
        task=np.repeat(np.arange(len(found)), [len(part) for part in objects]),
        prior=np.array([one.prior for part in objects for one in part], np.float64),
        question=question,
        who=of_person,
        yes=yes.astype(bool),
        labelled=np.stack([task, who], axis=1),
        people=people,
    )
    result = answer(given)
    agreement = _agreement(by_task, who, drawn, len(people))
    told = annotators(given, result, _f1, agreement, np.full(len(people), np.nan))
    ends = np.cumsum([0, *map(len, objects)])
    p = [result.p[a:b] for a, b in pairwise(ends)]
    right = [float(np.maximum(one, 1.0 - one).prod()) for one in p]
    consensus = [_drawing(part, one > 0.5) for part, one in zip(objects, p, strict=True)]
    return BoxCrowd(tuple(consensus), np.array(right), told, None)


def matches(a: BoxLabels, b: BoxLabels) -> int:
    """How many boxes of one drawing are those of another: same class, IoU 0.5, one to one."""
    return len(_pairs(_overlap(a, b)))


def _f1(given: Questions, found: Found) -> tuple[F64, F64]:
    p = found.p[given.question] * found.is_judged
    drew = given.yes & found.is_judged
    hits, said, there = given.per_person(p * drew), given.per_person(drew), given.per_person(p)
    things = (said + there) / 2.0
    return (hits + USUAL_YES * USUAL_ANSWERS) / (things + USUAL_ANSWERS), things


def _objects(drawings: Sequence[tuple[int, BoxLabels]], regions: Detections) -> list[_Object]:
    """Everything that somebody drew or the model finds on one image."""
    labels = {int(label) for _, one in drawings for label in one.labels}
    labels |= {int(n) for n in regions.label[regions.p_right >= LEAST_REGION]}
    made: list[_Object] = []
    for label in sorted(labels):
        of_class: list[_Object] = []
        for person, one in drawings:
            boxes = one.boxes[one.labels == label]
            pairs = dict(_pairs(iou_matrix(boxes, _stack([o.box for o in of_class]))))
            for n, box in enumerate(boxes):
                if n in pairs:
                    group = of_class[pairs[n]]
                else:
                    group = _Object(label)
                    of_class.append(group)
                group.boxes.append(box)
                group.who.append(person)
        _compare(of_class, label, regions)
        made += of_class
    return made


def _compare(objects: list[_Object], label: int, regions: Detections) -> None:
    """What the model says of objects of a class; those that only the model finds are added."""
    drawn = _stack([one.box for one in objects])
    overlap = iou_matrix(drawn, regions.boxes)
    likely = np.where(overlap >= IOU_RIGHT, regions.probs[None, :, label], 0.0)
    for n, region in zip(*linear_sum_assignment(likely, maximize=True), strict=True):
        if likely[n, region] > 0.0:
            objects[n].prior = float(regions.probs[region, label])
    is_free = (regions.label == label) & (regions.p_right >= LEAST_REGION)
    is_free &= overlap.max(axis=0, initial=0.0) < IOU_RIGHT
    same = iou_matrix(regions.boxes, regions.boxes) >= IOU_RIGHT
    for n in np.argsort(-regions.p_right, kind="stable"):
        if is_free[n]:
            is_free &= ~same[n]  # two such regions may be one object; the surer one is asked about
            one = _Object(label, [regions.boxes[n]], [], float(regions.p_right[n]))
            objects.append(one)


def _is_open(one: _Object, drawing: BoxLabels) -> bool:
    inside = inside_matrix(one.box[None, :], drawing.ignored)
    return bool((inside >= INSIDE_IGNORED).any())


def _overlap(a: BoxLabels, b: BoxLabels) -> F64:
    overlap = iou_matrix(a.boxes, b.boxes)
    overlap[a.labels[:, None] != b.labels[None, :]] = 0.0
    return overlap


def _pairs(overlap: F64) -> list[tuple[int, int]]:
    """As many pairs as there can be with IoU 0.5 or more; among as many those that overlap most."""
    fits = overlap >= IOU_RIGHT
    # A pair more is worth more than whatever the overlaps of the others add up to.
    worth = np.where(fits, 1.0 + overlap / (1.0 + min(overlap.shape, default=0)), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if fits[a, b]]


def _agreement(
    by_task: Sequence[list[int]], who: Ints, drawn: Sequence[BoxLabels], people: int
) -> F64:
    """``(M,)`` F1 of each person's boxes against all others' of the same images."""
    same, count = np.zeros(people), np.zeros(people)
    for rows in by_task:
        for n, a in enumerate(rows):
            for b in rows[n + 1 :]:
                one, other = _without_open(drawn[a], drawn[b]), _without_open(drawn[b], drawn[a])
                both = 2.0 * matches(one, other)
                for row in (a, b):
                    same[who[row]] += both
                    count[who[row]] += len(one) + len(other)
    return ratio(same, count)


def _without_open(a: BoxLabels, b: BoxLabels) -> BoxLabels:
    """The boxes of a drawing that do not lie in an area which another one leaves open."""
    inside = (inside_matrix(a.boxes, b.ignored) >= INSIDE_IGNORED).any(axis=1)
    # What both have drawn there is compared all the same.
    inside &= _overlap(a, b).max(axis=1, initial=0.0) < IOU_RIGHT
    return _some(a, ~inside)


def _some(one: BoxLabels, rows: Bools) -> BoxLabels:
    return BoxLabels(one.boxes[rows], one.labels[rows], one.accepted[rows], one.ignored)


def _drawing(objects: Sequence[_Object], is_there: Bools) -> BoxLabels:
    kept = [one for one, yes in zip(objects, is_there.tolist(), strict=True) if yes]
    labels = np.array([one.label for one in kept], np.int64)
    nothing = np.zeros((0, 4))
    return BoxLabels(_stack([one.box for one in kept]), labels, np.zeros(len(kept), bool), nothing)


def _stack(boxes: Sequence[F64]) -> F64:
    return np.stack(boxes) if boxes else np.zeros((0, 4))
