"""Sets whose images have a label, or several: how a rule plays them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.acquisition import ACQUISITIONS, select
from model.acquisition.base import mean_row
from model.bundle import Bundle
from model.calibration.metrics import augrc, brier, ece, error_auroc, macro_f1
from model.engine import EngineConfig, fit
from model.heads.plain import PlainHead
from model.simulation.replay import RANDOM, Checkpoint, Choice, Ints, Judged, Plan, Seconds
from model.types import Labelled, agree, label_counts

if TYPE_CHECKING:
    from model.simulation.data import LabelledSet


class Classifier:
    """See `model.simulation.replay.Player`."""

    def __init__(self, data: LabelledSet, plan: Plan, acquisition: str, seed: int) -> None:
        ACQUISITIONS[acquisition]
        self._data, self._acquisition = data, acquisition
        self._config = EngineConfig(estimator=plan.uncertainty, acquisition=acquisition, seed=seed)
        self._rows = data.pool
        self._pool, self._truth = data.features[self._rows], data.labels[self._rows]
        self._judge = _Judge(data, plain=acquisition == RANDOM)
        self._bundle: Bundle | None = None

    def choose(self, wanted: int, *, left: Ints, taken: Ints, known: Ints, seed: int) -> Choice:
        """See `Player`; the only place that calls `select`."""
        bundle, pool = self._bundle, self._pool[left]
        begin = time.perf_counter()
        predictions = bundle.predict(pool) if bundle else None
        middle = time.perf_counter()
        choice = select(
            self._acquisition,
            pool=pool,
            n=wanted,
            labelled=self._pool[taken],
            label_counts=label_counts(self._truth[known], len(self._data.classes)),
            predictions=predictions,
            sample=bundle.sample if bundle else None,
            seed=seed,
        )
        return Choice(choice.rows, middle - begin, time.perf_counter() - middle)

    def learn(self, labelled: Ints, is_random: NDArray[np.bool_]) -> float:
        """See `Player`."""
        begin = time.perf_counter()
        self._bundle = fit(
            Labelled(self._pool[labelled], self._truth[labelled], is_random),
            self._data.classes,
            pool=self._pool,
            config=self._config,
        )
        return time.perf_counter() - begin

    def look(self, labelled: Ints, seconds: Seconds) -> Judged:
        """See `Player`."""
        assert self._bundle is not None, "look comes after learn"
        return self._judge.look(self._bundle, self._rows[labelled], seconds)


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

    def look(self, bundle: Bundle, asked: Ints, seconds: Seconds) -> Judged:
        """See `Player`; `asked` are rows of the set."""
        found = bundle.predict(self._features)
        right = found.right(self._truth)
        point = Checkpoint(
            labels=len(asked),
            accuracy=float(right.mean()),
            ece=ece(found.p_right, right),
            brier=brier(found.probs, self._truth),
            error_auroc=error_auroc(found.p_right, right),
            augrc=augrc(found.p_right, right),
            score_pool_s=seconds.score_pool,
            acquire_s=seconds.acquire,
            fit_s=seconds.fit,
            plain_accuracy=self.plain_accuracy(asked),
            macro_f1=(
                macro_f1(found.label.astype(bool), self._truth.astype(bool))
                if found.multi_label
                else None
            ),
        )
        return Judged(point, found.p_right, right)

    def plain_accuracy(self, asked: Ints) -> float | None:
        """Of the plain head on these rows of the set; None when it is not compared with."""
        data = self._data
        if not self._has_plain or data.plain is None:
            return None
        head = PlainHead.fit(
            data.plain[asked], data.labels[asked], len(data.classes), centre=self._plain_centre
        )
        return float(agree(head.guess(self._plain_features), self._truth).mean())


def accuracy_of_all(data: LabelledSet, uncertainty: str) -> dict[str, float]:
    """Accuracy when everything that may be asked for is labelled, of our head and the plain one."""
    rows = data.pool
    known = Labelled(data.features[rows], data.labels[rows], np.ones(len(rows), bool))
    bundle = fit(known, data.classes, config=EngineConfig(estimator=uncertainty))
    right = bundle.predict(data.features[data.test]).right(data.labels[data.test])
    result = {"accuracy": float(right.mean())}
    plain = _Judge(data, plain=True).plain_accuracy(rows)
    return result if plain is None else result | {"plain_accuracy": plain}
