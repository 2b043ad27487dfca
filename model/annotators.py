"""Several people who label the same images: what is right, and how often each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from model.errors import ModelError, ShapeError

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEVEL = 0.95
# Nobody's weight is below: where all are as good as a guess they still have to be divided by.
LEAST_WEIGHT = 1e-6
ALONE = "only one person has labelled; how good they are can be told once another labels some too"
APART = (
    "no two people have labelled the same task; how good they are can be told once some tasks are "
    "labelled by two"
)
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
    """

    id: int
    labels: int
    shared: int
    agreement: float | None
    kappa: float | None
    quality: float | None
    low: float | None
    high: float | None


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


def crowdlab(probs: F64, task: Ints, annotator: Ints, label: Ints) -> Crowd:
    """Weigh a model and people by how they agree on the tasks that several people labelled.

    With majority votes, ties decided by the model, as the first guess Y' of the truth, I+ the tasks
    of more than one label and J the people who labelled a task,

    - ``P`` is the mean share of a task's labels that are Y', over I+;
    - ``s_j`` is the share of others' labels of the same tasks that are equal to those of person j;
    - ``E`` is the share of I+ where Y' is not its most common class, the error of knowing nothing;
    - ``w_j = 1 - (1 - s_j) / E``, and of a model that errs on a share e of I+
      ``w_M = (1 - e / E) * sqrt(mean labels a task)``.

    A label is taken for a probability: P for the class given and ``(1 - P) / (C - 1)`` for each
    other. The weighted mean of these and of the model's are the probabilities of a task. Quality of
    a person is ``w Q + (1 - w) A``: Q the mean probability of their labels, A the share of their
    labels in I+ that are the consensus, w the model's part of all weights.

    Args:
        probs: ``(N, C)`` of a model that was not fitted on the task's own labels.
        task: ``(L,)`` row of `probs` each label is of; every row has at least one.
        annotator: ``(L,)`` whose label it is; at most one a task.
        label: ``(L,)`` class from 0 to C - 1.

    Returns:
        Independent of the order of labels. Where no two people share a task, `Crowd.why` says so.

    Raises:
        ShapeError: arrays that do not belong together, or no class.
        ModelError: probabilities that are none, a task or class out of range, a task without a
            label, or two labels of one person for one task.

    Source:
        Goh, Tkachenko and Mueller 2022, arXiv:2210.06812. A person without shared tasks has the
        others' mean weight, and no quality; the interval and kappa are ours.
    """
    _check(probs, task, annotator, label)
    people, who = np.unique(annotator, return_inverse=True)
    votes = np.zeros(probs.shape, np.int64)
    np.add.at(votes, (task, label), 1)
    count = votes.sum(axis=1)
    majority = (votes + 0.5 * probs).argmax(axis=1)  # the model decides among equals
    others = count[task] - 1
    same = votes[task, label] - 1
    shared = count > 1
    if not shared.any():
        why = ALONE if len(people) == 1 else APART
        found = tuple(
            Annotator(int(name), int((who == n).sum()), 0, None, None, None, None, None)
            for n, name in enumerate(people)
        )
        return Crowd(majority, probs, found, why)

    error = max(float((majority != _most_common(majority[shared]))[shared].mean()), LEAST_WEIGHT)
    agreement = _ratio(_sums(same, who), _sums(others, who))
    weight = np.maximum(1.0 - (1.0 - agreement) / error, LEAST_WEIGHT)
    weight = np.where(np.isnan(agreement), np.nanmean(weight), weight)
    model_error = float((probs.argmax(axis=1) != majority)[shared].mean())
    model_weight = max(1.0 - model_error / error, LEAST_WEIGHT) * float(np.sqrt(count.mean()))

    rows = np.arange(len(probs))
    likely = float((votes[rows, majority] / count)[shared].mean())
    weighed = np.zeros(probs.shape)
    np.add.at(weighed, (task, label), weight[who])
    total = weighed.sum(axis=1, keepdims=True)
    unlikely = (1.0 - likely) / max(probs.shape[1] - 1, 1)
    together = model_weight * probs + likely * weighed + unlikely * (total - weighed)
    together /= together.sum(axis=1, keepdims=True)
    is_tied = together[rows, majority] >= together.max(axis=1) - _EQUAL
    consensus = np.where(is_tied, majority, together.argmax(axis=1))

    part = model_weight / (model_weight + float(total.mean()))
    of_shared = shared[task]
    labels, overlap = _sums(np.ones(len(task)), who), _sums(of_shared, who)
    believed = _ratio(_sums(together[task, label], who), labels)
    agreed = _ratio(_sums(of_shared & (label == consensus[task]), who), overlap)
    quality = part * believed + (1.0 - part) * agreed
    kappa = _kappa(votes, task, who, label, others, agreement)
    annotators = []
    for n, name in enumerate(people):
        known = bool(overlap[n])
        low, high = _interval(quality[n], labels[n], overlap[n], part) if known else (None, None)
        annotators.append(
            Annotator(
                id=int(name), labels=int(labels[n]), shared=int(overlap[n]),
                agreement=float(agreement[n]) if known else None,
                kappa=None if np.isnan(kappa[n]) else float(kappa[n]),
                quality=float(quality[n]) if known else None, low=low, high=high,
            )
        )  # fmt: skip
    return Crowd(consensus, together, tuple(annotators), None)


def vote_weight(quality: float, classes: int) -> float:
    """How much a person's vote counts: 1 for one who is always right, 0 for one who guesses.

    Args:
        quality: probability in [0, 1] that a label of theirs is right.
        classes: how many there are.

    Example:
        >>> vote_weight(1.0, 2), vote_weight(0.75, 2), vote_weight(0.3, 2)
        (1.0, 0.5, 1e-06)
    """
    chance = 1.0 / max(classes, 2)
    return max(1.0 - (1.0 - quality) / (1.0 - chance), LEAST_WEIGHT)


def _interval(quality: float, labels: float, shared: float, part: float) -> tuple[float, float]:
    """Clopper-Pearson, for as many labels as the quality varies like.

    It is `part` times a mean over all labels and the rest times one over the shared ones, which are
    among them; the covariance of these two means is that of all labels.
    """
    variance = (part**2 + 2.0 * part * (1.0 - part)) / labels + (1.0 - part) ** 2 / shared
    worth, tail = 1.0 / variance, (1.0 - LEVEL) / 2.0
    hits = min(max(quality, 0.0), 1.0) * worth
    low = betaincinv(hits, worth - hits + 1.0, tail) if hits > 0.0 else 0.0
    high = betaincinv(hits + 1.0, worth - hits, 1.0 - tail) if hits < worth else 1.0
    return float(low), float(high)


def _kappa(votes: Ints, task: Ints, who: Ints, label: Ints, others: Ints, agreement: F64) -> F64:
    """``(M,)`` agreement beyond what two of these shares of classes have by chance, or nan."""
    people, classes = len(agreement), votes.shape[1]
    own = np.zeros((people, classes))
    np.add.at(own, (who, label), others)
    theirs = np.zeros((people, classes))
    np.add.at(theirs, who, votes[task])
    np.add.at(theirs, (who, label), -1)  # without their own
    pairs = _sums(others, who)
    chance = _ratio((own * theirs).sum(axis=1), pairs**2)
    return _ratio(agreement - chance, np.where(chance < 1.0 - _EQUAL, 1.0 - chance, 0.0))


def _most_common(labels: Ints) -> int:
    return int(np.bincount(labels).argmax())


def _sums(values: NDArray[np.generic], who: Ints) -> F64:
    return np.bincount(who, weights=values.astype(np.float64))


def _ratio(above: F64, below: F64) -> F64:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0.0)


def _check(probs: F64, task: Ints, annotator: Ints, label: Ints) -> None:
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs.shape)
    for name, given in (("annotator", annotator), ("label", label), ("task", task)):
        if given.ndim != 1 or given.shape != task.shape:
            raise ShapeError(name, expected=f"({len(task)},)", got=given.shape)
    if not np.isfinite(probs).all() or (np.abs(probs.sum(axis=1) - 1.0) > _ROUNDING).any():
        raise ModelError("probs holds rows that are no probabilities; each must sum to 1")
    if (probs < 0.0).any():
        raise ModelError("probs holds negative values; probabilities are in [0, 1]")
    for name, given, size in (("task", task, len(probs)), ("label", label, probs.shape[1])):
        bad = given[(given < 0) | (given >= size)]
        if len(bad):
            raise ModelError(f"{name} {int(bad[0])} is out of range; there are {size}, from 0")
    without = np.flatnonzero(np.bincount(task, minlength=len(probs)) == 0)
    if len(without):
        raise ModelError(f"task {int(without[0])} has no label; leave out tasks without any")
    pairs, times = np.unique(np.stack([task, annotator], axis=1), axis=0, return_counts=True)
    if (times > 1).any():
        row, person = pairs[times.argmax()].tolist()
        raise ModelError(f"annotator {person} labelled task {row} twice; give the newest label")
