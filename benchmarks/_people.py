"""Simulated people who label images, each with errors of their own kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import mean_row
from model.heads.softmax import normalise

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Three who are good, one who is careless, and one who is good but for two classes.
RIGHT = (0.95, 0.95, 0.95, 0.7, 0.95)
CONFUSED, CONFUSION = 4, 0.5
HARD, MISLED = 0.15, 0.4  # share of images that are hard, and how often one misleads a person


@dataclass(frozen=True)
class Answers:
    """L labels, oldest first.

    Attributes:
        task: ``(L,)`` number of the image.
        person: ``(L,)`` in the order of `RIGHT`.
        label: ``(L,)``.
    """

    task: Ints
    person: Ints
    label: Ints

    def quality(self, truth: Ints) -> NDArray[np.float64]:
        """``(M,)`` share of each person's labels that are right."""
        is_right = self.label == truth[self.task]
        return np.array([is_right[self.person == n].mean() for n in range(len(RIGHT))])

    def table(self, n: int) -> NDArray[np.float64]:
        """``(n, M)``, nan where a person did not label."""
        found = np.full((n, len(RIGHT)), np.nan)
        found[self.task, self.person] = self.label
        return found


def ask(truth: Ints, classes: int, *, shared: float, misleading: Ints | None, seed: int) -> Answers:
    """Have everybody label.

    Args:
        truth: ``(N,)`` classes.
        classes: how many.
        shared: share of images that two or three people label; one person labels each other.
        misleading: ``(N,)`` the class that an image misleads people to, -1 where it does not.
        seed: of who labels what, and how.
    """
    rng = np.random.default_rng(seed)
    pair = np.argsort(-np.bincount(truth, minlength=classes), kind="stable")[:2]
    rows: list[tuple[int, int, int]] = []
    for task in rng.permutation(len(truth)).tolist():
        people = int(rng.integers(2, 4)) if rng.random() < shared else 1
        for person in rng.choice(len(RIGHT), people, replace=False).tolist():
            rows.append(
                (task, person, _answer(rng, person, task, truth, pair, classes, misleading))
            )
    task, person, label = np.array(rows, np.int64).T
    return Answers(task, person, label)


def everybody(truth: Ints, classes: int, *, misleading: Ints | None, seed: int) -> Ints:
    """``(N, M)`` what each person would say of each image, see `ask`."""
    rng = np.random.default_rng(seed)
    pair = np.argsort(-np.bincount(truth, minlength=classes), kind="stable")[:2]
    return np.array(
        [
            [_answer(rng, n, task, truth, pair, classes, misleading) for n in range(len(RIGHT))]
            for task in range(len(truth))
        ]
    )


def _answer(
    rng: np.random.Generator,
    person: int,
    task: int,
    truth: Ints,
    pair: Ints,
    classes: int,
    misleading: Ints | None,
) -> int:
    label = int(truth[task])
    if misleading is not None and misleading[task] >= 0 and rng.random() < MISLED:
        return int(misleading[task])
    if person == CONFUSED and label in pair:
        return int(pair.sum()) - label if rng.random() < CONFUSION else label
    if rng.random() >= RIGHT[person]:
        return int(label + rng.integers(1, classes)) % classes
    return label


def misleading(features: NDArray[np.float32], truth: Ints, classes: int) -> Ints:
    """``(N,)`` the class whose mean is nearest beside an image's own, of the hardest; else -1."""
    rows = normalise(features, mean_row(features))
    means = np.stack([rows[truth == n].mean(axis=0) for n in range(classes)])
    likeness = rows @ means.T
    everyone = np.arange(len(truth))
    own = likeness[everyone, truth].copy()
    likeness[everyone, truth] = -np.inf
    hardest = np.argsort(own - likeness.max(axis=1), kind="stable")[: round(HARD * len(truth))]
    found = np.full(len(truth), -1, np.int64)
    found[hardest] = likeness[hardest].argmax(axis=1)
    return found
