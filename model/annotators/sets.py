"""Several people who each choose a set of classes for an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.annotators.base import F64, Annotator, Bools, Ints, check_once, ratio
from model.annotators.yes_no import (
    USUAL_ANSWERS,
    USUAL_YES,
    Found,
    Questions,
    annotators,
    answer,
    why_unknown,
)
from model.errors import ModelError, ShapeError

_LEAST = 1e-100  # several so improbable classes still add up to more than nothing


@dataclass(frozen=True)
class SetCrowd:
    """What several people's sets for N tasks come to.

    Attributes:
        probs: ``(N, C)`` probability that each class applies, by model and people together; where
            `why` is set, the model's.
        annotators: each once, in ascending order of the ids; `quality` is the probability that a
            set of theirs is right as a whole, `agreement` the share of others' sets of the same
            tasks that are equal to theirs, `kappa` is that of their single yes and no, `recall`
            and `precision` are of choices. None where `why` is set.
        why: why nobody's quality can be told; None where somebody's can.
        at_least_one: whether every task has a class.
    """

    probs: F64
    annotators: tuple[Annotator, ...]
    why: str | None
    at_least_one: bool = False

    @property
    def consensus(self) -> Bools:
        """``(N, C)`` the most probable set, of those that may be."""
        chosen = np.asarray(self.probs > 0.5)
        if self.at_least_one:
            empty = ~chosen.any(axis=1)
            chosen[empty, self.probs[empty].argmax(axis=1)] = True
        return chosen

    @property
    def p_right(self) -> F64:
        """``(N,)`` probability that all of it is right."""
        probs = np.clip(self.probs, _LEAST, 1.0)
        p: F64 = np.where(self.consensus, probs, 1.0 - probs).prod(axis=1)
        if self.at_least_one:
            with np.errstate(divide="ignore"):  # of a class that applies for sure
                p = p / -np.expm1(np.log1p(-probs).sum(axis=1))
        return p


def weigh_sets(
    probs: F64, task: Ints, annotator: Ints, chosen: Bools, *, at_least_one: bool = False
) -> SetCrowd:
    """Estimate which classes apply, and how often each person's set is right.

    Each class of each task is a question of its own, see `yes_no.answer`; a person sees what
    applies, and adds what does not, equally often for every class.

    Args:
        probs: ``(N, C)`` that each class applies, of a model that was not fitted on the task.
        task: ``(L,)`` row of `probs`.
        annotator: ``(L,)`` whose set it is; at most one a task.
        chosen: ``(L, C)`` bool.
        at_least_one: whether every task has a class; only the consensus heeds it.

    Raises:
        ShapeError: arrays that do not belong together, or no class.
        ModelError: probabilities that are none, a task out of range, or two sets of one person for
            one task.
    """
    _check(probs, task, annotator, chosen)
    people, who = np.unique(annotator, return_inverse=True)
    why = why_unknown(task, people)
    if why is not None:
        return SetCrowd(probs, (), why, at_least_one)
    tasks, classes = probs.shape
    code = np.arange(classes)
    given = Questions(
        task=np.repeat(np.arange(tasks), classes),
        prior=probs.reshape(-1),
        question=(task[:, None] * classes + code).reshape(-1),
        who=np.repeat(who, classes),
        yes=chosen.reshape(-1),
        labelled=np.stack([task, who], axis=1),
        people=people,
    )
    found = answer(given)

    def judge(of: Questions, by: Found) -> tuple[F64, F64]:
        p = by.p.reshape(tasks, classes)[task]
        is_judged = by.is_judged.reshape(-1, classes)[:, 0]
        right = np.where(chosen, p, 1.0 - p).prod(axis=1) * is_judged
        n = np.bincount(who, is_judged, minlength=len(of.people)).astype(np.float64)
        sums = np.bincount(who, right, minlength=len(of.people))
        return (sums + USUAL_YES * USUAL_ANSWERS) / (n + USUAL_ANSWERS), n

    agreement, kappa = _agreement(task, who, chosen, len(people))
    told = annotators(given, found, judge, agreement, kappa)
    return SetCrowd(found.p.reshape(tasks, classes), told, None, at_least_one)


def _agreement(task: Ints, who: Ints, chosen: Bools, people: int) -> tuple[F64, F64]:
    """``(M,)`` share of others' sets that are equal, and kappa of the single decisions."""
    _, which = np.unique(chosen, axis=0, return_inverse=True)
    which = which.reshape(-1)
    pairs, equal = np.zeros(people), np.zeros(people)
    same = np.zeros(people)  # decisions
    own, theirs = np.zeros((people, chosen.shape[1])), np.zeros((people, chosen.shape[1]))
    order = np.argsort(task, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(task[order])) + 1):
        others = len(rows) - 1
        votes = chosen[rows].sum(axis=0)
        for row in rows.tolist():
            person, mine = who[row], chosen[row]
            rest = votes - mine
            pairs[person] += others
            equal[person] += int((which[rows] == which[row]).sum()) - 1
            same[person] += np.where(mine, rest, others - rest).sum()
            own[person] += others * mine
            theirs[person] += rest
    known = np.maximum(pairs, 1.0)[:, None]
    yes, no = own / known * (theirs / known), (1.0 - own / known) * (1.0 - theirs / known)
    chance = (yes + no).mean(axis=1)
    beyond = np.where((chance < 1.0 - 1e-12) & (pairs > 0.0), 1.0 - chance, 0.0)
    agreed = same / (known[:, 0] * chosen.shape[1])
    return ratio(equal, pairs), ratio(agreed - chance, beyond)


def _check(probs: F64, task: Ints, annotator: Ints, chosen: Bools) -> None:
    if probs.ndim != 2 or 0 in probs.shape:
        raise ShapeError("probs", expected="(N>=1, C>=1)", got=probs.shape)
    if chosen.shape != (len(task), probs.shape[1]):
        raise ShapeError("chosen", expected=f"({len(task)}, {probs.shape[1]})", got=chosen.shape)
    if annotator.shape != task.shape:
        raise ShapeError("annotator", expected=f"{task.shape}", got=annotator.shape)
    if not ((probs >= 0.0) & (probs <= 1.0)).all():  # also nan
        raise ModelError("probs holds values that are no probabilities, from 0 to 1")
    check_labels(task, annotator, len(probs))


def check_labels(task: Ints, annotator: Ints, tasks: int) -> None:
    """Raise `ModelError` where a task is out of range or labelled twice by one person."""
    bad = task[(task < 0) | (task >= tasks)]
    if len(bad):
        raise ModelError(f"task {int(bad[0])} is out of range; there are {tasks}, from 0")
    check_once(task, annotator)
