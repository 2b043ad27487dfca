"""People's labels of the same tasks, how they agree, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from model.errors import ModelError, ShapeError

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEVEL = 0.95
ALONE = "only one person has labelled; how good they are can be told once another labels some too"
APART = (
    "no two people have labelled the same task; how good they are can be told once some tasks are "
    "labelled by two"
)
LEAST_WEIGHT = 1e-6  # where all are as good as a guess they still have to be divided by
_ROUNDING = 1e-3  # of rows that came out of an exponential
_EQUAL = 1e-12


@dataclass(frozen=True)
class Annotator:
    """How one person labels.

    Attributes:
        id: as it was given.
        labels: how many tasks they labelled.
        shared: how many of these somebody else labelled too.
        agreement: share in [0, 1] of the others' labels of the same tasks that are equal to
            theirs; None without a shared task.
        kappa: the same, corrected for chance, at most 1; with two people it is Cohen's. None
            without a shared task, and where everybody always says the same.
        quality: estimated probability in [0, 1] that a label of theirs is right; None without a
            shared task.
        low: lower end of its 95 % interval; None where `quality` is.
        high: upper end.
        recall: where a task asks for several things, the estimated share in [0, 1] of what is there
            that they gave; otherwise None.
        precision: of what they gave, the estimated share that is there; as `recall`.
    """

    id: int
    labels: int
    shared: int
    agreement: float | None
    kappa: float | None
    quality: float | None
    low: float | None
    high: float | None
    recall: float | None = None
    precision: float | None = None


@dataclass(frozen=True)
class Crowd:
    """What several people's labels of N tasks come to.

    Attributes:
        consensus: ``(N,)`` int64, the most probable class; where `why` is set, the class most
            people gave.
        probs: ``(N, C)`` probability that each class is right, by model and people together; where
            `why` is set, the model's.
        annotators: each once, in ascending order of the ids.
        why: why nobody's quality can be told; None where somebody's can.
    """

    consensus: Ints
    probs: F64
    annotators: tuple[Annotator, ...]
    why: str | None

    @property
    def p_right(self) -> F64:
        """``(N,)`` probability that the consensus is right."""
        p: F64 = self.probs[np.arange(len(self.consensus)), self.consensus]
        return p


@dataclass(frozen=True)
class Given:
    """L labels that M people gave to N tasks, and what is counted of them.

    Attributes:
        probs: ``(N, C)`` of a model that was not fitted on the task's own labels.
        task: ``(L,)`` row of `probs`.
        who: ``(L,)`` number of the person, in `people`.
        label: ``(L,)`` class.
        people: ``(M,)`` ids, ascending.
        votes: ``(N, C)`` how many gave each class.
        count: ``(N,)`` how many labels a task has.
    """

    probs: F64
    task: Ints
    who: Ints
    label: Ints
    people: Ints
    votes: Ints
    count: Ints

    @classmethod
    def of(cls, probs: F64, task: Ints, annotator: Ints, label: Ints) -> Given:
        """Check and count them.

        Raises:
            ShapeError: arrays that do not belong together, or no class.
            ModelError: probabilities that are none, a task or class out of range, a task without a
                label, or two labels of one person for one task.
        """
        _check(probs, task, annotator, label)
        people, who = np.unique(annotator, return_inverse=True)
        votes = np.zeros(probs.shape, np.int64)
        np.add.at(votes, (task, label), 1)
        return cls(probs, task, who, label, people, votes, votes.sum(axis=1))

    @property
    def shared(self) -> Bools:
        """``(N,)`` which tasks have several labels."""
        return self.count > 1

    @property
    def majority(self) -> Ints:
        """``(N,)`` the class most people gave; among equals the one the model believes most."""
        best: Ints = (self.votes + 0.5 * self.probs).argmax(axis=1)
        return best

    def sums(self, values: F64 | Ints | Bools) -> F64:
        """``(M,)`` sums of ``(L,)`` values, of each person's labels."""
        sums = np.zeros(len(self.people))
        np.add.at(sums, self.who, values)
        return sums

    @property
    def labels(self) -> F64:
        """``(M,)`` how many labels each gave."""
        return self.sums(np.ones(len(self.task)))

    @property
    def overlap(self) -> F64:
        """``(M,)`` how many of them are of shared tasks."""
        return self.sums(self.shared[self.task])

    @property
    def agreement(self) -> F64:
        """``(M,)`` share of others' labels of the same tasks that are equal, or nan."""
        same = self.votes[self.task, self.label] - 1
        return ratio(self.sums(same), self.sums(self.count[self.task] - 1))

    @property
    def kappa(self) -> F64:
        """``(M,)`` agreement beyond what their and the others' shares of classes have by chance."""
        others = self.count[self.task] - 1
        own = np.zeros((len(self.people), self.probs.shape[1]))
        np.add.at(own, (self.who, self.label), others)
        theirs = np.zeros_like(own)
        np.add.at(theirs, self.who, self.votes[self.task])
        np.add.at(theirs, (self.who, self.label), -1)  # without their own
        chance = ratio((own * theirs).sum(axis=1), self.sums(others) ** 2)
        beyond = np.where(chance < 1.0 - _EQUAL, 1.0 - chance, 0.0)
        return ratio(self.agreement - chance, beyond)

    def unknown(self) -> Crowd:
        """The answer where no two people share a task."""
        why = ALONE if len(self.people) == 1 else APART
        nothing = np.full(len(self.people), np.nan)
        return Crowd(self.majority, self.probs, self.annotators(nothing, nothing), why)

    def annotators(self, quality: F64, worth: F64) -> tuple[Annotator, ...]:
        """Each person, with ``(M,)`` qualities that vary as those of `worth` labels do."""
        found = []
        for n, (agreement, kappa) in enumerate(zip(self.agreement, self.kappa, strict=True)):
            shared = int(self.overlap[n])
            value = min(max(float(quality[n]), 0.0), 1.0) if shared else None
            low, high = (None, None) if value is None else interval(value, float(worth[n]))
            found.append(
                Annotator(
                    id=int(self.people[n]), labels=int(self.labels[n]), shared=shared,
                    agreement=float(agreement) if shared else None,
                    kappa=None if np.isnan(kappa) else float(kappa),
                    quality=value, low=low, high=high,
                )
            )  # fmt: skip
        return tuple(found)


def consensus_of(probs: F64, majority: Ints) -> Ints:
    """``(N,)`` most probable class; the majority where it is as probable."""
    is_tied = probs[np.arange(len(probs)), majority] >= probs.max(axis=1) - _EQUAL
    return np.where(is_tied, majority, probs.argmax(axis=1))


def ratio(above: F64, below: F64) -> F64:
    """Quotients; nan where nothing is to be divided by."""
    quotients = np.full(len(above), np.nan)
    np.divide(above, below, out=quotients, where=below > 0.0)
    return quotients


def vote_weight(quality: float, classes: int) -> float:
    """How much a person's vote counts: 1 for one who is always right, almost 0 for a guess.

    Args:
        quality: probability in [0, 1] that a label of theirs is right.
        classes: how many there are.

    Source:
        The form of weights in Goh, Tkachenko and Mueller 2022, arXiv:2210.06812, with even guessing
        as the error of knowing nothing.

    Example:
        >>> vote_weight(1.0, 2), vote_weight(0.75, 2), vote_weight(0.3, 2)
        (1.0, 0.5, 1e-06)
    """
    chance = 1.0 / max(classes, 2)
    return max(1.0 - (1.0 - quality) / (1.0 - chance), LEAST_WEIGHT)


def interval(quality: float, worth: float) -> tuple[float, float]:
    """Clopper-Pearson's, of 95 %, for a share of a number of labels that need not be whole."""
    hits, tail = quality * worth, (1.0 - LEVEL) / 2.0
    low = betaincinv(hits, worth - hits + 1.0, tail) if hits > 0.0 else 0.0
    high = betaincinv(hits + 1.0, worth - hits, 1.0 - tail) if hits < worth else 1.0
    return float(low), float(high)


def _check(probs: F64, task: Ints, annotator: Ints, label: Ints) -> None:
    if probs.ndim != 2 or 0 in probs.shape:
        raise ShapeError("probs", expected="(N>=1, C>=1)", got=probs.shape)
    columns: Sequence[tuple[str, Ints]] = (("task", task), ("annotator", annotator))
    for name, given in (*columns, ("label", label)):
        if given.ndim != 1 or given.shape != task.shape:
            raise ShapeError(name, expected=f"({task.size},)", got=given.shape)
    is_off = np.abs(probs.sum(axis=1) - 1.0) > _ROUNDING
    if not np.isfinite(probs).all() or (probs < 0.0).any() or is_off.any():
        raise ModelError("probs holds rows that are no probabilities: from 0 to 1, with a sum of 1")
    for name, given, size in (("task", task, len(probs)), ("label", label, probs.shape[1])):
        bad = given[(given < 0) | (given >= size)]
        if len(bad):
            raise ModelError(f"{name} {int(bad[0])} is out of range; there are {size}, from 0")
    without = np.flatnonzero(np.bincount(task, minlength=len(probs)) == 0)
    if len(without):
        raise ModelError(f"task {int(without[0])} has no label; leave out tasks without any")
    check_once(task, annotator)


def check_once(task: Ints, annotator: Ints) -> None:
    """Raise `ModelError` where one person labelled a task twice."""
    pairs, times = np.unique(np.stack([task, annotator], axis=1), axis=0, return_counts=True)
    if (times > 1).any():
        row, person = pairs[times.argmax()].tolist()
        raise ModelError(f"annotator {person} labelled task {row} twice; give the newest label")
