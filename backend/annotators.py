"""Several people who label the same tasks: one label of theirs, and how good each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from backend.edges.database import Database
from backend.edges.labels.answers import is_known, merged
from backend.edges.labels.config import TaskSpec
from backend.edges.labels.merge import weighted
from backend.kinds import kind_of
from backend.kinds.base import Model
from backend.records import Consensus, Contradicted
from model.annotators.base import F64, LEAST_WEIGHT, Annotator, vote_weight
from model.annotators.likelihood import weigh

Given = Mapping[int, str]  # person -> their newest label of a task
UNKNOWN = (
    "How good people are cannot be told: at the last training no two of them had labelled the same "
    "task."
)
MEANINGS = {
    "one choice": (
        "Agreement: share of others' labels of the same tasks that are equal; kappa: the same "
        "beyond chance, 0 where it is no more. Quality: how probably a label of theirs is right."
    ),
    "several choices": (
        "Agreement: share of others' sets of choices of the same tasks that are equal as a whole; "
        "kappa: that of single choices beyond chance, 0 where it is no more. Quality: how probably "
        "a set of theirs is right as a whole. Recall: share of the choices that apply which they "
        "made; precision: share of their choices that apply."
    ),
    "boxes": (
        "Agreement: share of boxes that others drew too, of the same class and with IoU 0.5 or "
        "more (F1); there is no kappa. Quality: the same share against what is probably there, by "
        "people and model together. Recall: share of what is there that they drew; precision: "
        "share of their boxes that are right."
    ),
}


@dataclass(frozen=True)
class Weighed:
    """What a version makes of people and of their labels.

    Attributes:
        contradicted: the labels it was fitted on; where several people labelled with the
            probability by model and people together, and who says what.
        annotators: people; none where no two share tasks.
        consensus: what every labelled task comes to; none where no two people share one.
    """

    contradicted: list[Contradicted]
    annotators: tuple[Annotator, ...] = ()
    consensus: tuple[Consensus, ...] = ()


def one_label_each(
    database: Database, key: str, spec: TaskSpec, task_ids: Sequence[int] | None = None
) -> dict[int, str]:
    """Task -> the one answer that stands for those of its annotators; all, or a few named tasks.

    Where one class is chosen and the last training could tell how good people are, their votes
    count by that, each person's newest label once; of somebody it could not judge as much as the
    others' do on average. Otherwise see `answers.merged`.
    """
    given = database.answers_of_people(key, task_ids)
    weights = _weights(database, key, spec)
    found: dict[int, str] = {}
    for task, votes in given.items():
        if weights:
            usual = sum(weights.values()) / len(weights)
            counted = [(text, weights.get(who, usual)) for who, text in _newest(votes)]
            text = weighted(counted)
        else:
            text = merged(spec, [text for _, text in votes])
        if text is not None:
            found[task] = text
    return found


def weigh_people(
    database: Database,
    key: str,
    spec: TaskSpec,
    model: Model,
    labels: Mapping[int, str],
    contradicted: Sequence[Contradicted],
) -> Weighed:
    """What a version just fitted makes of people, and of the tasks that several of them labelled.

    Args:
        database: with who said what.
        key: of the project.
        spec: of the project.
        model: with what it says out of fold.
        labels: task -> the label it was fitted on.
        contradicted: what is known of these labels, by the model alone.
    """
    probs = kind_of(spec).class_probs(model, spec)
    if probs is None:
        return _weigh_several(database, key, spec, model, labels, contradicted)
    code = {name: number for number, name in enumerate(model.classes)}
    answers = database.answers_of_people(key)
    given: dict[int, Given] = {}
    rows: list[int] = []
    for row, task in enumerate(sorted(labels)):
        known = {who: text for who, text in votes_of(answers.get(task, ())) if text in code}
        if known:
            given[task] = known
            rows.append(row)
    flat = [
        (row, who, code[text])
        for row, votes in enumerate(given.values())
        for who, text in votes.items()
    ]
    if not flat:
        return Weighed(list(contradicted))
    row_of_label, person, label = np.array(flat, np.int64).T
    crowd = weigh(np.asarray(probs[rows], np.float64), row_of_label, person, label)
    if crowd.why is not None:
        return Weighed(list(contradicted))
    place = {task: n for n, task in enumerate(given)}
    told = []
    for one in contradicted:
        votes = given.get(one.task_id, {})
        if len(votes) > 1:
            row = place[one.task_id]
            probably = model.classes[int(crowd.consensus[row])]
            why = who_says_what(votes.values(), probably if probably != one.label else None)
            p_right = float(crowd.probs[row, code[one.label]])
            one = replace(one, p_right=p_right, why=why)
        told.append(one)
    sure = crowd.p_right
    consensus = [
        Consensus(
            task_id=task, label=model.classes[int(crowd.consensus[row])],
            p_right=float(sure[row]), votes=votes_of(answers[task]),
            probs={text: float(crowd.probs[row, code[text]]) for text in set(given[task].values())},
        )
        for task, row in place.items()
    ]  # fmt: skip
    return Weighed(told, crowd.annotators, tuple(consensus))


def _weigh_several(
    database: Database,
    key: str,
    spec: TaskSpec,
    model: Model,
    labels: Mapping[int, str],
    contradicted: Sequence[Contradicted],
) -> Weighed:
    """Where a task asks for several things: the model alone says which labels are to be checked."""
    answers = database.answers_of_people(key)
    rows: list[int] = []
    tasks: list[int] = []
    given: list[Given] = []
    for row, task in enumerate(sorted(labels)):
        votes = {who: text for who, text in votes_of(answers.get(task, ())) if is_known(spec, text)}
        if votes:
            rows.append(row)
            tasks.append(task)
            given.append(votes)
    together = kind_of(spec).together(model, spec, rows, given)
    if together is None:
        return Weighed(list(contradicted))
    consensus = [
        Consensus(task_id=task, label=text, p_right=p, votes=votes_of(answers[task]))
        for task, text, p in zip(tasks, together.texts, together.p_right.tolist(), strict=True)
    ]
    return Weighed(list(contradicted), together.annotators, tuple(consensus))


def votes_of(answers: Iterable[tuple[int | None, str]]) -> list[tuple[int, str]]:
    """Who says what of a task, by id: each known person's newest label.

    Example:
        >>> votes_of([(2, "cat"), (None, "cat"), (1, "cat"), (2, "dog")])
        [(1, 'cat'), (2, 'dog')]
    """
    return sorted({who: text for who, text in answers if who is not None}.items())


def who_says_what(texts: Iterable[str], probably: str | None) -> str:
    """Votes in words, most first.

    Example:
        >>> who_says_what(["dog", "cat", "cat"], None)
        '2 say cat, 1 says dog'
    """
    counts = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{n} {'says' if n == 1 else 'say'} {text}" for text, n in counts)
    return f"{said}; probably {probably}" if probably else said


def people(database: Database, key: str) -> list[dict[str, Any]]:
    """How people label by the last training, as plain values, least quality first.

    Empty where no two share tasks.
    """
    return [asdict(person) for person in database.annotators(key)]


def weights_of(database: Database, key: str, labels: Mapping[int, str]) -> F64 | None:
    """How much each label counts in the next fit.

    Where several people labelled a task as probably as its label is right, by them and by the last
    version, which was not fitted on it. Where one did it counts in full: a version that does not
    know a rare class yet would weigh its few labels away. In full counts also what was not known at
    the last training, and what people have changed since.

    Args:
        database: with what the last training made of labelled tasks.
        key: of the project.
        labels: task -> the label to fit on.

    Returns:
        ``(N,)``, in ascending order of the tasks, each in (0, 1]; None where all count in full.
    """
    known = {row.task_id: row for row in database.consensus(key) if len(row.votes) > 1}
    answers = database.answers_of_people(key) if known else {}
    found = np.ones(len(labels))
    for n, task in enumerate(sorted(labels)):
        row = known.get(task)
        if row is not None and row.votes == votes_of(answers.get(task, ())):
            found[n] = max(row.probs.get(labels[task], 1.0), LEAST_WEIGHT)
    return found if (found < 1.0).any() else None


def meaning(spec: TaskSpec | None) -> str:
    """What the figures of `people` are, for a project that asks for this; None: one choice."""
    if spec is not None and spec.boxes:
        return MEANINGS["boxes"]
    return MEANINGS["several choices" if spec is not None and spec.multiple else "one choice"]


def _weights(database: Database, key: str, spec: TaskSpec) -> dict[int | None, float]:
    if spec.boxes or spec.multiple:
        return {}
    return {
        person.id: vote_weight(person.quality, len(spec.classes))
        for person in database.annotators(key)
        if person.quality is not None
    }


def _newest(votes: Sequence[tuple[int | None, str]]) -> list[tuple[int | None, str]]:
    """Each person's last label, oldest first; all of those whose person is unknown."""
    last = {who: n for n, (who, _) in enumerate(votes)}
    return [vote for n, vote in enumerate(votes) if vote[0] is None or last[vote[0]] == n]
