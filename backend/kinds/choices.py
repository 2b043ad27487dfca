"""Projects that ask for a choice, or several: one vector an image."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels import answers
from backend.edges.labels.config import TaskSpec
from backend.kinds.base import Fitted, Model, Progress, Said, Together
from backend.settings import Settings
from model.acquisition import Selection, require, select
from model.annotators.sets import weigh_sets
from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.errors import NeedsError
from model.extract import extract
from model.label_errors.choices import find_choice_errors
from model.types import Labelled
from model.uncertainty import ESTIMATORS

if TYPE_CHECKING:
    from backend.app import App

log = logging.getLogger(__name__)

FALLBACK = "auto"  # a rule that every estimator can feed


class Choices:
    """See `backend.kinds.base.Kind`."""

    def backbone(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.backbone

    def quiet_s(self, settings: Settings) -> float:
        """See `Kind`."""
        return settings.quiet_s

    def estimator(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.estimator

    def acquisition(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.acquisition

    def backbone_variable(self) -> str:
        """See `Kind`."""
        return "DOUBTLESS_BACKBONE"

    def advice(self, settings: Settings, metrics: Mapping[str, Any]) -> list[str]:
        """See `Kind`."""
        del settings, metrics
        return []

    def code(self, app: App) -> str:
        """See `Kind`."""
        return app.backbone_hash(app.settings.backbone)

    def missing(self, app: App, keys: Sequence[str]) -> list[str]:
        """See `Kind`."""
        return app.features.missing(self.code(app), keys)

    def read(
        self, app: App, items: Iterable[tuple[str, bytes]]
    ) -> Generator[tuple[list[str], dict[str, str]], None, None]:
        """See `Kind`."""
        code = self.code(app)
        limit = app.settings.max_image_megapixels
        done: list[str] = []
        rows: list[NDArray[np.float32]] = []
        try:
            for keys, features, errors in extract(app.backbone(), items, max_megapixels=limit):
                done += keys
                rows.append(features)
                yield keys, errors
        finally:
            if done:
                # One shard for all: many small ones would make every later read slower.
                app.features.add(code, done, np.concatenate(rows))

    def missing_views(self, app: App, keys: Sequence[str]) -> list[str]:
        """See `Kind`; features of whole images are trained on as they are."""
        del app, keys
        return []

    def read_views(self, app: App, items: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """See `Kind`."""
        del app, items
        return iter(())

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
        """See `Kind`."""
        data = Labelled(
            features=app.features.load(self.code(app), keys),
            labels=answers.to_labels(spec, texts, spec.classes),
            random=random,
            weights=weights,
        )
        config = EngineConfig(
            estimator=app.settings.estimator,
            acquisition=app.settings.acquisition,
            at_least_one=spec.required,
        )
        bundle = fit(data, spec.classes, pool=pool, config=config, progress=progress)
        return Fitted(bundle, random)

    def contradictions(
        self, model: Model, spec: TaskSpec, texts: Sequence[str]
    ) -> list[tuple[float, str]]:
        """See `Kind`."""
        assert isinstance(model, Bundle)
        plain = model.out_of_fold_plain
        probs = model.out_of_fold_probs if plain is None else plain
        if probs is None:
            return []
        labels = answers.to_labels(spec, texts, model.classes)
        found = find_choice_errors(probs, labels)
        said = found.suggested if labels.ndim == 2 else probs.argmax(axis=1)
        why = []
        for row, text in zip(said, texts, strict=True):
            other = answers.of_prediction(spec, model.classes, row)
            shown = answers.readable(spec, other) if other != text else None
            shown = ", ".join(shown) or "none of them" if isinstance(shown, list) else shown
            why.append(f"probably {shown}" if shown else "not clear")
        return list(zip(found.score.tolist(), why, strict=True))

    def class_probs(self, model: Model, spec: TaskSpec) -> NDArray[np.float64] | None:
        """See `Kind`."""
        assert isinstance(model, Bundle)
        return None if spec.multiple else model.out_of_fold_probs

    def together(
        self, model: Model, spec: TaskSpec, rows: Sequence[int], votes: Sequence[Mapping[int, str]]
    ) -> Together | None:
        """See `Kind`."""
        assert isinstance(model, Bundle)
        if not spec.multiple or model.out_of_fold_probs is None or not rows:
            return None
        flat = [(n, who, text) for n, given in enumerate(votes) for who, text in given.items()]
        crowd = weigh_sets(
            np.asarray(model.out_of_fold_probs[list(rows)], np.float64),
            np.array([n for n, _, _ in flat], np.int64),
            np.array([who for _, who, _ in flat], np.int64),
            np.asarray(answers.to_labels(spec, [text for *_, text in flat], model.classes), bool),
            at_least_one=spec.required,
        )
        if crowd.why is not None:
            return None
        chosen = [
            answers.encode(name for name, yes in zip(model.classes, row, strict=True) if yes)
            for row in crowd.consensus
        ]
        return Together(chosen, crowd.p_right, crowd.annotators)

    def is_right(self, spec: TaskSpec, said: str, answer: str) -> bool:
        """See `Kind`."""
        del spec
        return said == answer

    def load(self, folder: Path) -> Bundle:
        """See `Kind`."""
        return Bundle.load(folder)

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
        """See `Kind`."""
        del keys, progress  # a thousand images take milliseconds
        assert isinstance(model, Bundle)
        found = model.predict(features)
        rule = _usable(app.settings.acquisition, model.estimator_name)

        def choose(
            rows: NDArray[np.int64],
            n: int,
            known: NDArray[np.int64],
            counts: NDArray[np.int64],
            seed: int,
        ) -> Selection:
            return select(
                rule,
                pool=features[rows],
                n=n,
                labelled=features[known] if len(known) else None,
                label_counts=counts,
                predictions=found.take(rows),
                sample=model.sample,
                seed=seed,
            )

        return Said(
            label=[answers.of_prediction(spec, model.classes, label) for label in found.label],
            p_right=found.p_right,
            total=found.total,
            aleatoric=found.aleatoric,
            epistemic=found.epistemic,
            probs=[answers.probabilities(spec, model.classes, row) for row in found.probs],
            rule=rule,
            choose=choose,
        )


def _usable(rule: str, estimator: str) -> str:
    """The rule, unless it asks for passes that a version of that estimator does not have.

    As one may that was fitted before the project or the installation chose another estimator.
    """
    family = ESTIMATORS[estimator]
    try:
        require(rule, passes=family.passes, joint=family.joint)
    except NeedsError as exc:
        log.warning("the queue is ordered by %s: %s", FALLBACK, exc)
        return FALLBACK
    return rule
