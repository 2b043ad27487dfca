"""One replay: a rule asks for labels round by round; each round is judged on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.engine import MIN_LABELS
from model.errors import DataError, ModelError
from model.uncertainty import DEFAULT_ESTIMATOR

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
        training_steps: of the optimiser where a head is trained by steps, as detectors are; None
            leaves it to the engine.
    """

    initial: int
    batch: int
    rounds: int
    random_share: float = 0.2
    uncertainty: str = DEFAULT_ESTIMATOR
    training_steps: int | None = None

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

    def check(self, data: Playable) -> None:
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
        data.require_estimator(self.uncertainty)
        pool = len(data.pool)
        if self.initial + self.batch > pool:
            initial, smaller = f"the initial {self.initial} and ", "make them smaller"
            if not self.initial:
                initial, smaller = "", "make it smaller"
            raise DataError(
                f"{data.name} has {pool} images to learn from ({int(data.test.sum())} are held "
                f"out), fewer than {initial}one batch of {self.batch}; {smaller}, or add images"
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

    METRIC: ClassVar[str] = "accuracy"
    QUALITY: ClassVar[tuple[str, ...]] = ("ece", "error_auroc", "augrc", "brier")

    @property
    def said(self) -> str:
        """The figure that curves are of, for people."""
        name = "accuracy" if self.macro_f1 is None else "subset accuracy"
        return f"{name} {self.accuracy:.4f} at {self.labels} labels"


@dataclass(frozen=True)
class BoxCheckpoint:
    """The same of a detector; see `model.detection.evaluate`.

    Attributes:
        labels: images with their boxes drawn.
        ap50: 0 where nothing could be fitted yet, as without any object.
        map: mean over IoU 0.5 to 0.95.
        ap50_per_class: None of a class that no held-out image has.
        ece: of the regions shown; None without any.
        error_auroc: of the regions shown; None when all or none were right.
        missed_recall: share of the images with a missed object that are among the fifth said to
            miss most; None when nothing was missed.
        regions: shown on the held-out images.
        missed_objects: that no region shown covers.
        objects: drawn so far.
    """

    labels: int
    ap50: float
    map: float
    ap50_per_class: Mapping[str, float | None]
    ece: float | None
    error_auroc: float | None
    missed_recall: float | None
    regions: int
    missed_objects: int
    objects: int
    score_pool_s: float
    acquire_s: float
    fit_s: float

    METRIC: ClassVar[str] = "ap50"
    QUALITY: ClassVar[tuple[str, ...]] = ("ece", "error_auroc", "missed_recall", "map")

    @property
    def said(self) -> str:
        """The figure that curves are of, for people."""
        return f"AP50 {self.ap50:.4f} at {self.labels} images"


Point = Checkpoint | BoxCheckpoint


def _point(body: Mapping[str, Any]) -> Point:
    kind = BoxCheckpoint if BoxCheckpoint.METRIC in body else Checkpoint
    return kind(**body)


class Seconds(NamedTuple):
    """What the steps of one round took."""

    score_pool: float
    acquire: float
    fit: float


@dataclass(frozen=True)
class Choice:
    """What a rule chose: positions in what it was given, and the seconds of both steps."""

    rows: Ints
    score_s: float = 0.0
    acquire_s: float = 0.0

    @classmethod
    def of_nothing(cls) -> Choice:
        """Where nothing is wanted of the rule."""
        return cls(np.zeros(0, np.int64))


class Judged(NamedTuple):
    """A checkpoint, and what was stated and true of each held-out image, or each region shown."""

    point: Point
    p_right: NDArray[np.float64]
    right: NDArray[np.bool_]


class Player(Protocol):
    """One rule on one set: what it has learnt so far. All rows are positions in the pool."""

    def choose(self, wanted: int, *, left: Ints, taken: Ints, known: Ints, seed: int) -> Choice:
        """Ask the rule.

        Args:
            wanted: images, at least one.
            left: what may be chosen.
            taken: what was labelled before or is drawn in this round.
            known: what was labelled before.
            seed: of everything random.
        """

    def learn(self, labelled: Ints, is_random: NDArray[np.bool_]) -> float:
        """Fit to these labels; gives the seconds."""

    def look(self, labelled: Ints, seconds: Seconds) -> Judged:
        """Judge on the held-out images what was learnt from these labels."""


class Playable(Protocol):
    """A labelled set with a part held out: what a rule can be played through."""

    @property
    def name(self) -> str:
        """Of the set, for people."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def test(self) -> NDArray[np.bool_]:
        """``(N,)`` whether an image is held out."""

    @property
    def names(self) -> tuple[str, ...]:
        """``(N,)`` of the images."""

    @property
    def digest(self) -> str:
        """Changes when an image, a label or the split does."""

    @property
    def split(self) -> str:
        """Where the held-out images come from, for people."""

    @property
    def task(self) -> str:
        """As in ``result.json``."""

    @property
    def metric(self) -> str:
        """As in ``result.json``."""

    @property
    def pool(self) -> Ints:
        """Rows that may be asked for."""

    def caption(self, row: int) -> str:
        """What is known of an image, for people."""

    def kinds(self, row: int) -> tuple[str, ...]:
        """What of the set's variety an image shows."""

    def require_estimator(self, name: str) -> None:
        """Raise UnknownNameError where no estimator has that name."""

    def player(self, plan: Plan, acquisition: str, seed: int) -> Player:
        """One that has learnt nothing; raises UnknownNameError as `require_estimator` does."""

    def full(self, uncertainty: str, *, training_steps: int | None = None) -> dict[str, float]:
        """The metrics when everything that may be asked for is labelled."""

    def save(self, folder: Path) -> None:
        """Write what players need, for other processes."""


@dataclass(frozen=True)
class Run:
    """One rule and one seed.

    Attributes:
        acquisition: name of the rule.
        seed: of everything random.
        checkpoints: one a round.
        asked: rows of the set in the order in which they were labelled.
        is_random: whether each was drawn rather than chosen.
        p_right: of the held-out images after the last round, or of the regions shown on them.
        right: whether they were.
    """

    acquisition: str
    seed: int
    checkpoints: tuple[Point, ...]
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
            checkpoints=tuple(_point(point) for point in body["checkpoints"]),
            **{name: tuple(body[name]) for name in ("asked", "is_random", "p_right", "right")},
        )


def replay(
    data: Playable,
    plan: Plan,
    acquisition: str,
    seed: int,
    *,
    progress: Callable[[Point], None] = lambda point: None,
) -> Run:
    """Play one rule through a set.

    Args:
        data: the set; of its labels only those asked for are used, and the held-out ones to judge.
        plan: how much is asked for, and how.
        acquisition: a rule for sets of this kind.
        seed: of everything random. The initial labels of one seed are the same for every rule.
        progress: called after each round.

    Raises:
        UnknownNameError: no rule or estimator has that name.
    """
    player = data.player(plan, acquisition, seed)
    rows = data.pool
    rng = np.random.default_rng(seed)
    labelled = np.zeros(0, np.int64)
    is_random = np.zeros(0, bool)
    judged: Judged | None = None
    points: list[Point] = []
    for number, size in enumerate(plan.steps(len(rows))):
        rest = np.setdiff1d(np.arange(len(rows)), labelled)
        all_random = acquisition == RANDOM or (number == 0 and plan.initial > 0)
        share = size if all_random else _share(plan, len(labelled), size)
        drawn = rng.permutation(rest)[:share]  # before any score is looked at
        left = np.setdiff1d(rest, drawn)
        taken = np.concatenate([labelled, drawn])
        choice = Choice.of_nothing()
        if share < size:
            choice = player.choose(
                size - share,
                left=left,
                taken=taken,
                known=labelled,
                seed=seed * 1000 + len(labelled),
            )
        chosen = left[choice.rows]
        labelled = np.concatenate([taken, chosen])
        is_random = np.concatenate([is_random, np.ones(share, bool), np.zeros(len(chosen), bool)])
        fit_s = player.learn(labelled, is_random)
        judged = player.look(labelled, Seconds(choice.score_s, choice.acquire_s, fit_s))
        points.append(judged.point)
        progress(judged.point)
    if judged is None:
        raise DataError(f"{data.name} has no image to learn from")
    return Run(
        acquisition=acquisition,
        seed=seed,
        checkpoints=tuple(points),
        asked=tuple(rows[labelled].tolist()),
        is_random=tuple(is_random.tolist()),
        p_right=tuple(np.round(judged.p_right, 6).tolist()),
        right=tuple(judged.right.tolist()),
    )


def _share(plan: Plan, labelled: int, size: int) -> int:
    """Draws of this round, such that after every round the share is kept as well as it can be."""

    def draws(count: int) -> int:
        return int(np.floor(plan.random_share * (count - plan.initial) + 0.5))

    return draws(labelled + size) - draws(labelled)


def with_all_labels(
    data: Playable, uncertainty: str, *, training_steps: int | None = None
) -> dict[str, float]:
    """What everything that may be asked for gives when it is labelled; see `Playable.full`."""
    return data.full(uncertainty, training_steps=training_steps)
