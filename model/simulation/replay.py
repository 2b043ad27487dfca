"""One replay: a rule asks for labels round by round; each round is judged on held-out images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.acquisition import ACQUISITIONS, select
from model.acquisition.base import mean_row
from model.bundle import Bundle
from model.calibration.metrics import augrc, brier, ece, error_auroc, macro_f1
from model.engine import MIN_LABELS, EngineConfig, fit
from model.errors import DataError, ModelError
from model.heads.plain import PlainHead
from model.simulation.data import LabelledSet
from model.types import Labelled, agree, label_counts
from model.uncertainty import DEFAULT_ESTIMATOR, ESTIMATORS

Ints = NDArray[np.int64]
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is the same for every rule that is compared.

    Attributes:
        initial: labels drawn at random before the first round, the same for all rules of one
            seed; 0 lets each rule choose its first batch without a model, as the product does.
        batch: labels a round.
        rounds: rounds after the initial labels.
        random_share: part of each round drawn uniformly, before any score is looked at.
        uncertainty: name of the estimator.
    """

    initial: int
    batch: int
    rounds: int
    random_share: float = 0.2
    uncertainty: str = DEFAULT_ESTIMATOR

    @property
    def budget(self) -> int:
        """Labels at the end."""
        return self.initial + self.batch * self.rounds

    def steps(self, pool: int) -> list[int]:
        """How many labels each step adds; the last may be smaller, when the pool ends."""
        wanted = [self.initial] * (self.initial > 0) + [self.batch] * self.rounds
        steps: list[int] = []
        for size in wanted:
            size = min(size, pool - sum(steps))
            if size > 0:
                steps.append(size)
        return steps

    def check(self, data: LabelledSet) -> None:
        """Refuse what cannot be replayed.

        Raises:
            ModelError: a number is out of range, or a name is in no registry.
            DataError: the set is too small for it.
        """
        for name, value, low in (
            ("initial", self.initial, 0),
            ("batch", self.batch, 1),
            ("rounds", self.rounds, 1),
        ):
            if value < low:
                raise ModelError(f"{name} is {value}; it must be at least {low}")
        if not 0.0 <= self.random_share <= 1.0:
            raise ModelError(f"random share is {self.random_share}; it must be from 0 to 1")
        ESTIMATORS[self.uncertainty]
        pool = len(data.pool)
        if self.initial + self.batch > pool:
            raise DataError(
                f"{data.name} has {pool} images to learn from ({int(data.test.sum())} are held "
                f"out), fewer than the initial {self.initial} and one batch of {self.batch}; make "
                "them smaller"
            )
        if self.steps(pool)[0] < MIN_LABELS:
            raise ModelError(
                f"nothing can be fitted on {self.steps(pool)[0]} label; start with "
                f"{MIN_LABELS} initial ones or more"
            )


@dataclass(frozen=True)
class Checkpoint:
    """What was measured on the held-out images after one round; see `calibration.metrics`.

    Attributes:
        accuracy: of whole sets of labels where an image may have several.
        error_auroc: None when everything or nothing was right.
        plain_accuracy: of the plain head on the same labels, where it is compared with.
        macro_f1: mean of the classes' F1 scores; None where an image has one label.
    """

    labels: int
    accuracy: float
    ece: float
    brier: float
    error_auroc: float | None
    augrc: float
    score_pool_s: float
    acquire_s: float
    fit_s: float
    plain_accuracy: float | None = None
    macro_f1: float | None = None


@dataclass(frozen=True)
class Run:
    """One rule and one seed.

    Attributes:
        acquisition: name of the rule.
        seed: of everything random.
        checkpoints: one a round.
        asked: rows of the set in the order in which they were labelled.
        is_random: whether each was drawn rather than chosen.
        p_right: of the held-out images after the last round.
        right: whether they were.
    """

    acquisition: str
    seed: int
    checkpoints: tuple[Checkpoint, ...]
    asked: tuple[int, ...]
    is_random: tuple[bool, ...]
    p_right: tuple[float, ...]
    right: tuple[bool, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Run:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError: it is something else.
        """
        return cls(
            acquisition=body["acquisition"],
            seed=body["seed"],
            checkpoints=tuple(Checkpoint(**point) for point in body["checkpoints"]),
            **{name: tuple(body[name]) for name in ("asked", "is_random", "p_right", "right")},
        )


def replay(
    data: LabelledSet,
    plan: Plan,
    acquisition: str,
    seed: int,
    *,
    progress: Callable[[Checkpoint], None] = lambda point: None,
) -> Run:
    """Play one rule through a set.

    Args:
        data: the set; of its labels only those asked for are used, and the held-out ones to judge.
        plan: how much is asked for, and how.
        acquisition: one of `ACQUISITIONS`.
        seed: of everything random. The initial labels of one seed are the same for every rule.
        progress: called after each round.

    Raises:
        UnknownNameError: no rule or estimator has that name.
    """
    ACQUISITIONS[acquisition]
    rows = data.pool
    pool, truth = data.features[rows], data.labels[rows]
    rng = np.random.default_rng(seed)
    labelled = np.zeros(0, np.int64)
    is_random = np.zeros(0, bool)
    bundle: Bundle | None = None
    judge = _Judge(data, plain=acquisition == RANDOM)
    points: list[Checkpoint] = []
    for number, size in enumerate(plan.steps(len(rows))):
        rest = np.setdiff1d(np.arange(len(rows)), labelled)
        all_random = acquisition == RANDOM or (number == 0 and plan.initial > 0)
        share = size if all_random else _share(plan, len(labelled), size)
        drawn = rng.permutation(rest)[:share]  # before any score is looked at
        left = np.setdiff1d(rest, drawn)
        with_drawn = np.concatenate([labelled, drawn])
        choice = _choose(
            acquisition,
            size - share,
            pool=pool[left] if share < size else pool[:0],
            labelled=pool[with_drawn],
            label_counts=label_counts(truth[labelled], len(data.classes)),
            bundle=bundle,
            seed=seed * 1000 + len(labelled),
        )
        chosen = left[choice.rows]
        labelled = np.concatenate([with_drawn, chosen])
        is_random = np.concatenate([is_random, np.ones(share, bool), np.zeros(len(chosen), bool)])
        begin = time.perf_counter()
        known = Labelled(pool[labelled], truth[labelled], is_random)
        bundle = fit(
            known,
            data.classes,
            pool=pool,
            config=EngineConfig(estimator=plan.uncertainty, acquisition=acquisition, seed=seed),
        )
        seconds = time.perf_counter() - begin
        point, p_right, right = judge.look(
            bundle, rows[labelled], seconds=(choice.score_s, choice.acquire_s, seconds)
        )
        points.append(point)
        progress(point)
    return Run(
        acquisition=acquisition,
        seed=seed,
        checkpoints=tuple(points),
        asked=tuple(rows[labelled].tolist()),
        is_random=tuple(is_random.tolist()),
        p_right=tuple(np.round(p_right, 6).tolist()),
        right=tuple(right.tolist()),
    )


def _share(plan: Plan, labelled: int, size: int) -> int:
    """Draws of this round, such that after every round the share is kept as well as it can be."""

    def draws(count: int) -> int:
        return int(np.floor(plan.random_share * (count - plan.initial) + 0.5))

    return draws(labelled + size) - draws(labelled)


@dataclass(frozen=True)
class _Choice:
    rows: Ints
    score_s: float = 0.0
    acquire_s: float = 0.0


def _choose(
    acquisition: str,
    wanted: int,
    *,
    pool: NDArray[np.float32],
    labelled: NDArray[np.float32],
    label_counts: Ints,
    bundle: Bundle | None,
    seed: int,
) -> _Choice:
    """Ask the rule: the only place that calls `select`."""
    if wanted <= 0:
        return _Choice(np.zeros(0, np.int64))
    begin = time.perf_counter()
    predictions = bundle.predict(pool) if bundle else None
    middle = time.perf_counter()
    choice = select(
        acquisition,
        pool=pool,
        n=wanted,
        labelled=labelled,
        label_counts=label_counts,
        predictions=predictions,
        sample=bundle.sample if bundle else None,
        seed=seed,
    )
    return _Choice(choice.rows, middle - begin, time.perf_counter() - middle)


class _Judge:
    """Measures versions on the held-out images, which it picks out once."""

    def __init__(self, data: LabelledSet, *, plain: bool) -> None:
        self._data = data
        self._truth = data.labels[data.test]
        self._features = data.features[data.test]
        self._has_plain = plain and data.plain is not None
        if self._has_plain and data.plain is not None:
            self._plain_centre = mean_row(data.plain[data.pool])
            self._plain_features = data.plain[data.test]

    def look(
        self, bundle: Bundle, asked: Ints, *, seconds: tuple[float, float, float]
    ) -> tuple[Checkpoint, NDArray[np.float64], NDArray[np.bool_]]:
        """A checkpoint, and P(right) and the truth of each held-out image."""
        found = bundle.predict(self._features)
        right = found.right(self._truth)
        point = Checkpoint(
            labels=len(asked),
            accuracy=float(right.mean()),
            ece=ece(found.p_right, right),
            brier=brier(found.probs, self._truth),
            error_auroc=error_auroc(found.p_right, right),
            augrc=augrc(found.p_right, right),
            score_pool_s=seconds[0],
            acquire_s=seconds[1],
            fit_s=seconds[2],
            plain_accuracy=self.plain_accuracy(asked),
            macro_f1=(
                macro_f1(found.label.astype(bool), self._truth.astype(bool))
                if found.multi_label
                else None
            ),
        )
        return point, found.p_right, right

    def plain_accuracy(self, asked: Ints) -> float | None:
        """Of the plain head on these rows of the set; None when it is not compared with."""
        data = self._data
        if not self._has_plain or data.plain is None:
            return None
        head = PlainHead.fit(
            data.plain[asked], data.labels[asked], len(data.classes), centre=self._plain_centre
        )
        return float(agree(head.guess(self._plain_features), self._truth).mean())


def with_all_labels(data: LabelledSet, uncertainty: str) -> dict[str, float]:
    """Accuracy when everything that may be asked for is labelled, of our head and the plain one."""
    rows = data.pool
    known = Labelled(data.features[rows], data.labels[rows], np.ones(len(rows), bool))
    bundle = fit(known, data.classes, config=EngineConfig(estimator=uncertainty))
    right = bundle.predict(data.features[data.test]).right(data.labels[data.test])
    result = {"accuracy": float(right.mean())}
    plain = _Judge(data, plain=True).plain_accuracy(rows)
    return result if plain is None else result | {"plain_accuracy": plain}
