"""The protocol of a kind of project."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels.config import TaskSpec
from backend.settings import Settings
from model.acquisition import Selection
from model.annotators.base import Annotator

if TYPE_CHECKING:
    from backend.app import App

Progress = Callable[[float, str], None]
# Picks n of some rows of what was said: (rows, n, labelled rows, labels by class, seed).
Choose = Callable[[NDArray[np.int64], int, NDArray[np.int64], NDArray[np.int64], int], Selection]


class Model(Protocol):
    """A trained version of either kind."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Measured when it was fitted."""

    @property
    def out_of_fold_right(self) -> NDArray[np.bool_] | None:
        """Whether each label's image was predicted right out of fold; not stored."""

    @property
    def out_of_fold_p_right(self) -> NDArray[np.float64] | None:
        """The P(right) stated for these; not stored."""

    def save(self, folder: Path) -> None:
        """Write it as a new folder, complete or not there at all."""


@dataclass(frozen=True)
class Said:
    """What a version says of N images.

    Attributes:
        label: N texts as `edges.labels.answers` has them; None where the config asks for
            something else now.
        p_right: ``(N,)`` calibrated P(nothing in it is wrong).
        total: ``(N,)`` nats, as aleatoric and epistemic.
        aleatoric: see `total`.
        epistemic: see `total`.
        probs: N times calibrated probabilities by class, or None.
        rule: name of the acquisition rule that `choose` follows.
        choose: picks what to label next among these images.
    """

    label: Sequence[str | None]
    p_right: NDArray[np.float64]
    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    probs: Sequence[dict[str, float] | None]
    rule: str
    choose: Choose

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Fitted:
    """A version just fitted, and which of its labels were drawn by chance.

    Attributes:
        model: what predicts.
        random: ``(n_labels,)`` in ascending order of the tasks.
    """

    model: Model
    random: NDArray[np.bool_]


@dataclass(frozen=True)
class Together:
    """What people and a version that was not fitted on them make of N tasks.

    Attributes:
        texts: N, the most probable answer to each.
        p_right: ``(N,)`` probability that nothing of it is wrong.
        annotators: each person once.
    """

    texts: Sequence[str]
    p_right: NDArray[np.float64]
    annotators: tuple[Annotator, ...]


class Kind(Protocol):
    """How images are read, versions fitted and predictions made."""

    def backbone(self, settings: Settings) -> str:
        """Name of the network that reads the images."""

    def quiet_s(self, settings: Settings) -> float:
        """Seconds without a new label after which even one starts a training."""

    def estimator(self, settings: Settings) -> str:
        """Name of the uncertainty estimator of new versions."""

    def acquisition(self, settings: Settings) -> str:
        """Name of the rule that picks what to label next."""

    def backbone_variable(self) -> str:
        """The variable that names this network."""

    def advice(self, settings: Settings, metrics: Mapping[str, Any]) -> list[str]:
        """Other settings that a version's metrics speak for, each a sentence; mostly none."""

    def code(self, app: App) -> str:
        """Key of what it computes; changes with its weights and its preprocessing."""

    def missing(self, app: App, keys: Sequence[str]) -> list[str]:
        """Of images by their SHA-256 those that were not read yet, each once."""

    def read(
        self, app: App, items: Iterable[tuple[str, bytes]]
    ) -> Generator[tuple[list[str], dict[str, str]], None, None]:
        """Read images and keep what the network sees, batch by batch.

        Yields:
            The keys that are kept, and the reason for each that is no image.
        """

    def missing_views(self, app: App, keys: Sequence[str]) -> list[str]:
        """Of images by their SHA-256 those to be looked at again before all are trained on."""

    def read_views(self, app: App, items: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """Look at labelled images in other ways, and keep it for `fit`.

        Yields:
            The key of each image that is done.
        """

    def fit(
        self,
        app: App,
        spec: TaskSpec,
        *,
        keys: Sequence[str],
        texts: Sequence[str],
        random: NDArray[np.bool_],
        pool: NDArray[np.float32],
        progress: Progress,
        weights: NDArray[np.float64] | None = None,
    ) -> Fitted:
        """Fit and calibrate a version on labelled images.

        Args:
            app: for settings and caches.
            spec: of the project.
            keys: SHA-256 of the N labelled images.
            texts: N answers.
            random: ``(N,)`` True where the image was drawn by chance.
            pool: ``(M, D)`` features of every readable image.
            progress: called with a share from 0 to 1 and what is being done.
            weights: ``(N,)`` above 0, how much each answer counts; boxes all count alike.
        """

    def contradictions(
        self, model: Model, spec: TaskSpec, texts: Sequence[str]
    ) -> list[tuple[float, str]]:
        """What a version just fitted makes of its own labels, none of which it is fitted on there.

        Args:
            model: with what it found out of fold.
            spec: of the project.
            texts: the labels, as they were given to `fit`.

        Returns:
            Of each label the probability that it is right, and in words what speaks against it.
        """

    def class_probs(self, model: Model, spec: TaskSpec) -> NDArray[np.float64] | None:
        """``(n_labels, C)`` out-of-fold probabilities of the one class that each image has.

        None where an image has not just one, and where a version does not say.
        """

    def together(
        self, model: Model, spec: TaskSpec, rows: Sequence[int], votes: Sequence[Mapping[int, str]]
    ) -> Together | None:
        """What people's answers come to where a task asks for several things.

        Args:
            model: just fitted, with what it found out of fold.
            spec: of the project.
            rows: number of each of N tasks among the labels it was fitted on.
            votes: N, person -> answer.

        Returns:
            None where an image has one class (see `class_probs`), where nobody can be judged, and
            where a version does not say.
        """

    def is_right(self, spec: TaskSpec, said: str, answer: str) -> bool:
        """Whether nothing of what a version said of an image is wrong, by a person's answer.

        Args:
            spec: of the project.
            said: text of a version, see `Said.label`.
            answer: text of the labels.
        """

    def load(self, folder: Path) -> Model:
        """A stored version."""

    def say(
        self,
        app: App,
        model: Model,
        spec: TaskSpec,
        *,
        keys: Sequence[str],
        features: NDArray[np.float32],
        progress: Progress,
    ) -> Said:
        """What a version says of images that were read."""
