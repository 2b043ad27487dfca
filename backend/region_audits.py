"""Audits of regions: which of those that were drawn are wrong, by what people drew on the images.

A drawn region is kept as a number of its own (in an audit its rank among all regions of the reach),
the rank of its image, and its number on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels.answers import is_known, merged
from backend.edges.labels.boxes import decode_prediction, to_box_labels
from backend.edges.labels.config import TaskSpec
from backend.records import AuditItem
from model.detection.evaluate import match

Drawn = Sequence[int]


class Looked(NamedTuple):
    """The regions of an image that somebody has looked at.

    Attributes:
        right: ``(R,)``; none is where nothing could be judged, as after a skip.
        objects: that people drew.
        missed: of these, those that no region shows.
    """

    right: NDArray[np.bool_]
    objects: int
    missed: int


def look(spec: TaskSpec, said: str | None, answers: Sequence[str]) -> Looked:
    """Compare what a version said of an image with what people drew on it."""
    found = None if said is None else decode_prediction(said)
    answer = merged(spec, answers)
    count = 0 if found is None else len(found.regions)
    known = found is not None and all(r.label in spec.classes for r in found.regions)
    if found is None or not known or answer is None or not is_known(spec, answer):
        return Looked(np.zeros(count, bool), 0, 0)
    truth = to_box_labels(answer, spec.classes)
    right = match(
        np.array([r.box for r in found.regions], np.float64).reshape(-1, 4),
        np.array([spec.classes.index(r.label) for r in found.regions], np.int64),
        np.array([r.p for r in found.regions], np.float64),
        truth,
    ).right
    return Looked(right, len(truth), len(truth) - int(right.sum()))


def look_at(
    spec: TaskSpec, items: Iterable[AuditItem], answers: Mapping[int, Sequence[str]]
) -> dict[int, Looked]:
    """`look` at the images of some items; by their rank."""
    return {item.rank: look(spec, item.said, answers.get(item.task_id, ())) for item in items}


def draw_regions(
    items: Sequence[AuditItem], how_many: Callable[[int], int], rng: np.random.Generator
) -> list[list[int]]:
    """Draw regions uniformly from those on some images.

    Args:
        items: the images.
        how_many: to draw, of so many.
        rng: of the draw.

    Returns:
        A number of its own, the rank of its image, and its number there, for each region.
    """
    every = [
        (item.rank, number)
        for item in items
        if item.said is not None and (found := decode_prediction(item.said)) is not None
        for number in range(len(found.regions))
    ]
    chosen = sorted(rng.permutation(len(every))[: how_many(len(every))].tolist())
    return [[n, *every[row]] for n, row in enumerate(chosen)]


def are_wrong(drawn: Iterable[Drawn], looked: Mapping[int, Looked]) -> dict[int, bool]:
    """A region's own number -> whether it is wrong, of those whose image was looked at."""
    return {
        rank: not bool(looked[image].right[number])
        for rank, image, number in drawn
        if image in looked
    }


def share_missed(drawn: Iterable[Drawn], looked: Mapping[int, Looked]) -> float | None:
    """Share of the objects on the images of the reach that no region shows, an estimate.

    Regions are drawn uniformly, so an image as often as it has regions: each counts one divided by
    their number (Hansen and Hurwitz 1943). None where there is no object.
    """
    seen = [looked[image] for _, image, _ in drawn if image in looked]
    missed = sum(one.missed / len(one.right) for one in seen)
    objects = sum(one.objects / len(one.right) for one in seen)
    return missed / objects if objects else None
