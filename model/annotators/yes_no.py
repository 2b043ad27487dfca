"""Yes-or-no questions that people answered: what is so, and how often each of them sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from model.annotators.base import (
    ALONE,
    APART,
    F64,
    LEVEL,
    Annotator,
    Bools,
    Ints,
    interval,
    ratio,
)

# What is expected of somebody before any answer of theirs is judged; each counts as two answers.
USUAL_YES, USUAL_NO, USUAL_ANSWERS = 0.8, 0.8, 2.0
# No model is surer than this: two people can outvote it.
SUREST = 0.999
# The line of the model's log odds starts as they are; that counts as so many questions (about four
# times as many where the model is in doubt), and a step is at most so long.
AS_SAID, MOST_STEP = 4.0, 0.5
PARTS = 20  # of the tasks, each left out once for the interval
MOST_ROUNDS, CLOSE = 300, 1e-6
_TINY = 1e-12


@dataclass(frozen=True)
class Questions:
    """K questions about N tasks, and L answers of M people.

    Attributes:
        task: ``(K,)`` which task each question is about.
        prior: ``(K,)`` probability of yes by a model that was not fitted on the task's labels; nan
            where it says nothing, then one share for all of these is estimated.
        question: ``(L,)`` of each answer.
        who: ``(L,)`` number of the person.
        yes: ``(L,)`` the answer.
        labelled: ``(T, 2)`` each task and person that labelled it once, also where they had no
            question to answer.
        people: ``(M,)`` ids, ascending.
    """

    task: Ints
    prior: F64
    question: Ints
    who: Ints
    yes: Bools
    labelled: Ints
    people: Ints

    @cached_property
    def log_odds(self) -> F64:
        """``(K,)`` of `prior`; 0 where it is nan."""
        known = np.where(np.isnan(self.prior), 0.5, self.prior)
        odds: F64 = logit(np.clip(known, 1.0 - SUREST, SUREST))
        return odds

    @cached_property
    def weight(self) -> F64:
        """``(L,)`` how much each answer counts.

        Of what the model says nothing it is asked because somebody said yes, so one yes says
        nothing: which of them is left open, and each counts as much less.
        """
        said_yes = np.bincount(self.question, self.yes, minlength=len(self.prior))[self.question]
        is_unsaid = np.isnan(self.prior)[self.question]
        less = np.where(said_yes > 0, 1.0 - 1.0 / np.maximum(said_yes, 1), 1.0)
        return np.where(is_unsaid & self.yes, less, 1.0)

    @cached_property
    def count(self) -> Ints:
        """``(N,)`` how many people labelled each task."""
        most = max(self.labelled[:, 0].max(initial=-1), self.task.max(initial=-1))
        return np.bincount(self.labelled[:, 0], minlength=int(most) + 1)

    def per_person(self, rows: Bools | F64) -> F64:
        """``(M,)`` sums of ``(L,)`` values, of each person's answers."""
        return np.bincount(self.who, rows, minlength=len(self.people)).astype(np.float64)


@dataclass(frozen=True)
class Found:
    """What answers come to.

    Attributes:
        p: ``(K,)`` probability of yes, by model and people together.
        is_judged: ``(L,)`` which answers are of tasks that several people labelled.
        sees: ``(M,)`` how often each says yes where it is so.
        invents: ``(M,)`` how often each says yes where it is not.
        unsaid: the prior of questions that the model says nothing of.
        model: ``(2,)`` what is added to the model's log odds, after they are multiplied by the
            second number: it was calibrated to people's labels, errors and all.
    """

    p: F64
    is_judged: Bools
    sees: F64
    invents: F64
    unsaid: float
    model: F64


def why_unknown(task: Ints, people: Ints) -> str | None:
    """Why nobody can be judged by their ``(T,)`` labels of tasks; None where somebody can."""
    if (np.bincount(task) > 1).any():
        return None
    return ALONE if len(people) < 2 else APART


# The share of each person's work that is right, ``(M,)``, and of how many things it is one.
Judge = Callable[[Questions, Found], tuple[F64, F64]]


def answer(given: Questions, left_out: Ints | None = None, start: Found | None = None) -> Found:
    """Estimate together what is so, and how often each person sees what is and invents what is not.

    Given the truth people answer independently of each other, of the model and of the other
    questions. Expectation maximisation over the tasks that several people labelled. How far the
    model is to be believed is estimated with it, as a line of its log odds: a model that learnt
    from labels with errors, and was calibrated to them, takes what is so for less probable.

    Args:
        given: the answers.
        left_out: tasks that do not count.
        start: an estimate to begin from.

    Source:
        Dawid and Skene 1979 for two classes, with one pair of rates a person and the model as the
        prior of each question; the line is that of Platt 1999, one step of Newton's a round.
    """
    shared = given.count > 1
    if left_out is not None:
        shared = shared.copy()
        shared[left_out] = False
    is_judged = shared[given.task[given.question]]
    is_unsaid = np.isnan(given.prior)
    counts_unsaid = is_unsaid & shared[given.task]
    people = len(given.people)
    sees = np.full(people, USUAL_YES) if start is None else start.sees
    invents = np.full(people, 1.0 - USUAL_NO) if start is None else start.invents
    unsaid = 0.5 if start is None else start.unsaid
    model = np.array([0.0, 1.0]) if start is None else start.model
    counts_said = ~is_unsaid & shared[given.task]
    said = given.log_odds[counts_said]
    weight = given.weight * is_judged
    total = given.per_person(weight)
    says = given.per_person(weight * given.yes)
    for _ in range(MOST_ROUNDS):
        p = _posterior(given, sees, invents, unsaid, model)
        of_answer = weight * p[given.question]
        true = given.per_person(of_answer)
        hits = given.per_person(of_answer * given.yes)
        new_sees = (hits + USUAL_YES * USUAL_ANSWERS) / (true + USUAL_ANSWERS)
        usual = (1.0 - USUAL_NO) * USUAL_ANSWERS
        new_invents = (says - hits + usual) / (total - true + USUAL_ANSWERS)
        new_unsaid = (float(p[counts_unsaid].sum()) + 1.0) / (float(counts_unsaid.sum()) + 2.0)
        new_model = _closer(model, said, p[counts_said])
        moved = max(
            float(np.abs(new_sees - sees).max()), float(np.abs(new_invents - invents).max()),
            abs(new_unsaid - unsaid), float(np.abs(new_model - model).max()),
        )  # fmt: skip
        sees, invents, unsaid, model = new_sees, new_invents, new_unsaid, new_model
        if moved < CLOSE:
            break
    known = total > 0.0
    if known.any():  # who cannot be judged is taken to be as good as the others
        sees = np.where(known, sees, sees[known].mean())
        invents = np.where(known, invents, invents[known].mean())
    p = _posterior(given, sees, invents, unsaid, model)
    return Found(p, is_judged, sees, invents, unsaid, model)


def annotators(
    given: Questions, found: Found, judge: Judge, agreement: F64, kappa: F64
) -> tuple[Annotator, ...]:
    """Each person with quality by `judge`, and its interval.

    The interval is that of as many labels as the quality varies like when a twentieth of the shared
    tasks is left out and all is estimated anew (the jackknife), and of no more than there are: what
    one task holds goes wrong together.

    Args:
        given: the answers; several people labelled some tasks.
        found: what they come to.
        judge: what a person's quality is a share of.
        agreement: ``(M,)``, nan where there is none.
        kappa: ``(M,)``, nan where there is none.
    """
    quality, things = judge(given, found)
    worth = _worth(given, found, judge, quality, things) + USUAL_ANSWERS
    of_answer = found.p[given.question] * found.is_judged
    hits = given.per_person(of_answer * given.yes)
    recall = ratio(hits, given.per_person(of_answer))
    precision = ratio(hits, given.per_person(found.is_judged & given.yes))
    labels = np.bincount(given.labelled[:, 1], minlength=len(given.people))
    is_shared = given.count[given.labelled[:, 0]] > 1
    shared = np.bincount(given.labelled[is_shared, 1], minlength=len(given.people))
    told = []
    for n, person in enumerate(given.people.tolist()):
        can = bool(shared[n])
        low, high = interval(float(quality[n]), float(worth[n])) if can else (None, None)
        told.append(
            Annotator(
                id=person, labels=int(labels[n]), shared=int(shared[n]),
                agreement=_or_none(agreement[n], can), kappa=_or_none(kappa[n], can),
                quality=_or_none(quality[n], can), low=low, high=high,
                recall=_or_none(recall[n], can), precision=_or_none(precision[n], can),
            )
        )  # fmt: skip
    return tuple(told)


def _worth(given: Questions, found: Found, judge: Judge, quality: F64, things: F64) -> F64:
    """``(M,)`` how many labels each quality varies like."""
    shared = np.flatnonzero(given.count > 1)
    parts = min(PARTS, len(shared))
    if parts < 2:
        return np.zeros(len(quality))  # nothing is known of how much it varies
    without = []
    for part in range(parts):
        left_out = shared[part::parts]
        without.append(judge(given, answer(given, left_out, found))[0])
    spread = np.stack(without)
    variance = (parts - 1) / parts * ((spread - spread.mean(axis=0)) ** 2).sum(axis=0)
    tail = (1.0 + LEVEL) / 2.0
    variance *= (t.ppf(tail, parts - 1) / norm.ppf(tail)) ** 2
    like = quality * (1.0 - quality) / np.maximum(variance, _TINY)
    worth: F64 = np.minimum(like, things)
    return worth


def _closer(model: F64, said: F64, p: F64) -> F64:
    """One step towards the line of log odds `said` that fits probabilities `p` best."""
    rows = np.stack([np.ones(len(said)), said], axis=1)
    now = expit(rows @ model)
    slope = rows.T @ (p - now) - AS_SAID * (model - (0.0, 1.0))
    curve = (rows * (now * (1.0 - now))[:, None]).T @ rows + AS_SAID * np.eye(2)
    step = np.clip(np.linalg.solve(curve, slope), -MOST_STEP, MOST_STEP)
    found: F64 = np.maximum(model + step, (-np.inf, 0.0))
    return found


def _posterior(given: Questions, sees: F64, invents: F64, unsaid: float, model: F64) -> F64:
    is_unsaid = np.isnan(given.prior)
    yes = np.log(sees) - np.log(invents)
    no = np.log1p(-sees) - np.log1p(-invents)
    evidence = given.weight * np.where(given.yes, yes[given.who], no[given.who])
    prior = model[0] + model[1] * given.log_odds
    prior = np.where(is_unsaid, logit(unsaid), prior)
    most = logit(SUREST)
    logits = np.clip(prior, -most, most)
    logits = logits + np.bincount(given.question, evidence, minlength=len(prior))
    p: F64 = expit(logits)
    return p


def _or_none(value: float, can: bool) -> float | None:
    return float(value) if can and not np.isnan(value) else None
