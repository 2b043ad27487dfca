"""Active learning replayed on a labelled set, whatever the model and whoever chooses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import FeatureSet
from numpy.typing import NDArray

from model.acquisition import Sample, select
from model.acquisition.base import mean_row
from model.engine import EngineConfig, fit
from model.heads.softmax import normalise
from model.types import Labelled, Predictions

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BATCH = 20  # labels a round in `choose_labels`
TEST_SHARE = 0.3  # of a set that does not say which of its images are for testing


@dataclass(frozen=True)
class Task:
    """A set, divided into a pool and a test."""

    features: NDArray[np.float32]
    labels: Ints
    test_features: NDArray[np.float32]
    test_labels: Ints
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: FeatureSet) -> Task:
        is_test = data.split == "test"
        if not is_test.any():
            order = np.random.default_rng(0).permutation(len(is_test))
            is_test[order[: round(TEST_SHARE * len(order))]] = True
        return cls(
            data.features[~is_test],
            data.labels[~is_test],
            data.features[is_test],
            data.labels[is_test],
            data.classes,
        )

    def normalised(self) -> Task:
        """Rows as the plain classifier takes them."""
        centre = mean_row(self.features)
        return Task(
            normalise(self.features, centre),
            self.labels,
            normalise(self.test_features, centre),
            self.test_labels,
            self.classes,
        )


@dataclass(frozen=True)
class Ask:
    """What a strategy may know when it is asked for the next batch.

    Attributes:
        labelled: items of the pool with a label.
        drawn: those that this batch's random share asks for, not labelled yet.
        rest: all others, of which `n` are wanted.
        seed: of everything random.
        model: fitted on the labels.
    """

    labelled: Ints
    drawn: Ints
    rest: Ints
    n: int
    seed: int
    model: Any


@dataclass(frozen=True)
class Plan:
    """How many labels: at first, a batch, in the end."""

    initial: int
    batch: int
    budget: int


def ask_ours(
    name: str,
    task: Task,
    ask: Ask,
    predictions: Predictions | None,
    sample: Sample | None,
) -> Ints:
    """The one call of `model.acquisition.select`; gives indices into the pool."""
    chosen = select(
        name,
        pool=task.features[ask.rest],
        n=ask.n,
        labelled=task.features[np.concatenate([ask.labelled, ask.drawn])],
        label_counts=np.bincount(task.labels[ask.labelled], minlength=len(task.classes)),
        predictions=predictions,
        sample=sample,
        seed=ask.seed,
    )
    return ask.rest[chosen.rows]


def replay(
    task: Task,
    plan: Plan,
    seed: int,
    fit_model: Callable[[Ints, Bools, int], Any],
    judge: Callable[[Any], float],
    choose: Callable[[Ask], tuple[Ints, float]],
    share: float = 0.0,
) -> dict[str, Any]:
    """One curve: the initial labels, then batch after batch up to the budget."""
    rng = np.random.default_rng(seed)
    count = len(task.labels)
    budget = min(plan.budget, count)
    labelled = rng.permutation(count)[: min(plan.initial, budget)].astype(np.int64)
    random = np.ones(len(labelled), bool)
    run: dict[str, Any] = {"labels": [], "accuracy": [], "query_s": [], "fit_s": []}
    while True:
        begin = time.perf_counter()
        model = fit_model(labelled, random, seed)
        run["fit_s"].append(round(time.perf_counter() - begin, 4))
        run["labels"].append(len(labelled))
        run["accuracy"].append(judge(model))
        size = min(plan.batch, budget - len(labelled))
        if size <= 0:
            return run
        rest = np.setdiff1d(np.arange(count), labelled)
        drawn = rng.permutation(rest)[: round(share * size)]  # before any score is looked at
        ask = Ask(
            labelled=labelled,
            drawn=drawn,
            rest=np.setdiff1d(rest, drawn),
            n=size - len(drawn),
            seed=seed * 1000 + len(labelled),
            model=model,
        )
        chosen, seconds = choose(ask)
        run["query_s"].append(round(seconds, 4))
        labelled = np.concatenate([labelled, drawn, chosen])
        random = np.concatenate([random, np.ones(len(drawn), bool), np.zeros(len(chosen), bool)])


def choose_labels(
    task: Task, counts: list[int], share: float, seed: int
) -> Iterator[tuple[int, Ints, Any]]:
    """Label as the product does, from nothing; yield the labels at each number wanted."""
    rng = np.random.default_rng(seed)
    labelled, random = np.zeros(0, np.int64), np.zeros(0, bool)
    bundle = None
    while len(labelled) < counts[-1]:
        size = min(BATCH, min(n for n in counts if n > len(labelled)) - len(labelled))
        rest = np.setdiff1d(np.arange(len(task.labels)), labelled)
        drawn = rng.permutation(rest)[: round(share * size)]  # before any score is looked at
        rest = np.setdiff1d(rest, drawn)
        predictions = None if bundle is None else bundle.predict(task.features[rest])
        ask = Ask(labelled, drawn, rest, size - len(drawn), seed * 1000 + len(labelled), bundle)
        sample = None if bundle is None else bundle.sample
        chosen = ask_ours("auto", task, ask, predictions, sample)
        labelled = np.concatenate([labelled, drawn, chosen])
        random = np.concatenate([random, np.ones(len(drawn), bool), np.zeros(len(chosen), bool)])
        if len(labelled) in counts:
            yield len(labelled), labelled, random
        data = Labelled(task.features[labelled], task.labels[labelled], random)
        bundle = fit(data, task.classes, pool=task.features, config=EngineConfig(seed=seed))
