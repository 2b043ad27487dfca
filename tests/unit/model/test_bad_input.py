"""Whatever comes in, a defined answer or a sentence comes out: never NaN, never a warning.

Over all estimators, calibrators and rules, through the entries that the program uses. Warnings are
errors in all tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from model.acquisition import ACQUISITIONS, select
from model.bundle import Bundle
from model.calibration.families import CALIBRATORS
from model.engine import EngineConfig, fit
from model.errors import ModelError
from model.types import Labelled
from model.uncertainty import ESTIMATORS

DIM = 6


class Given(NamedTuple):
    """What a project may hold."""

    features: np.ndarray
    labels: np.ndarray
    pool: np.ndarray
    classes: int = 3

    def fit(self, **choices: str) -> Bundle:
        random = np.arange(len(self.labels)) % 3 == 0
        data = Labelled(self.features, self.labels, random)
        names = [f"class {number}" for number in range(self.classes)]
        return fit(data, names, pool=self.pool, config=EngineConfig(**choices))


def usual() -> Given:
    rng = np.random.default_rng(7)
    labels = np.arange(24) % 3
    centres = rng.normal(size=(3, DIM))
    features = centres[labels] + 0.5 * rng.normal(size=(24, DIM))
    pool = centres[np.arange(30) % 3] + 0.5 * rng.normal(size=(30, DIM))
    return Given(features.astype(np.float32), labels, pool.astype(np.float32))


def both(change: Callable[[np.ndarray], np.ndarray]) -> Given:
    """The usual, with labelled and pool features changed alike."""
    given = usual()
    return given._replace(features=change(given.features), pool=change(given.pool))


def labelled_as(labels: np.ndarray, classes: int) -> Given:
    return usual()._replace(labels=labels, classes=classes)


def with_one(value: float) -> Given:
    """The usual, with one pool value changed."""
    given = usual()
    given.pool[5, 2] = value
    return given


FIRST = np.arange(24) == 0
DEFINED: dict[str, Callable[[], Given]] = {
    "one class only": lambda: labelled_as(np.zeros(24, np.int64), 3),
    "a project of one class": lambda: labelled_as(np.zeros(24, np.int64), 1),
    "a class with one example": lambda: labelled_as(FIRST.astype(np.int64), 2),
    "all duplicates": lambda: both(lambda x: np.repeat(x[:1], len(x), axis=0)),
    "constant features": lambda: both(np.ones_like),
    "no features but zeros": lambda: both(np.zeros_like),
    "features of length 0": lambda: both(lambda x: x[:, :0]),
    "1,000 classes": lambda: labelled_as(np.arange(24) * 40, 1000),
    "two labels": lambda: usual()._replace(features=usual().features[:2], labels=np.arange(2)),
    "an empty pool": lambda: usual()._replace(pool=usual().pool[:0]),
    "a pool of one": lambda: usual()._replace(pool=usual().pool[:1]),
    "float16": lambda: both(lambda x: x.astype(np.float16)),
    "whole numbers": lambda: both(lambda x: (10 * x).astype(np.int64)),
    "bytes": lambda: both(lambda x: (10 * np.abs(x)).astype(np.uint8)),
    "the largest allowed": lambda: both(lambda x: x / np.abs(x).max() * np.float32(9.9e14)),
    "hardly above 0": lambda: both(lambda x: x * np.float32(1e-38)),
    "one far from all": lambda: with_one(9e14),
}
REFUSED: dict[str, tuple[Callable[[], Given], str]] = {
    "NaN": (lambda: with_one(np.nan), "not all finite"),
    "infinity": (lambda: with_one(-np.inf), "not all finite"),
    "both infinities": (
        lambda: with_one(np.inf)._replace(features=np.full((24, DIM), -np.inf, np.float32)),
        "not all finite",
    ),
    "huge": (lambda: both(lambda x: x * np.float32(1e30)), r"reach \de\+30 and may reach 1e\+15"),
    "one huge": (lambda: with_one(-1e20), r"reach 1e\+20"),
}


def check(bundle: Bundle, features: np.ndarray) -> None:
    found = bundle.predict(features)
    for values in vars(found).values():
        assert len(values) == len(features)
        assert np.isfinite(values).all()
    np.testing.assert_allclose(found.probs.sum(axis=1), 1.0, atol=1e-9)
    assert ((found.p_right > 0) & (found.p_right < 1)).all()
    for nats in (found.total, found.aleatoric, found.epistemic):
        assert (nats >= 0).all()
    numbers = [value for value in bundle.metrics.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("case", DEFINED)
@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_every_estimator_answers(estimator: str, case: str) -> None:
    given = DEFINED[case]()
    bundle = given.fit(estimator=estimator)
    check(bundle, given.pool)
    check(bundle, given.features)


@pytest.mark.parametrize("case", DEFINED)
@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS))
def test_every_calibrator_answers(calibrator: str, case: str) -> None:
    given = DEFINED[case]()
    check(given.fit(calibrator=calibrator), given.pool)


@pytest.mark.parametrize("case", DEFINED)
def test_every_rule_chooses_what_there_is(case: str) -> None:
    """Also more than there is, without a version, and without a label."""
    given = DEFINED[case]()
    version = given.fit(estimator="mc-dropout")
    counts = np.bincount(given.labels, minlength=given.classes)
    for rule in sorted(ACQUISITIONS):
        for n in (1, 7, 99):
            for knows in (version, None):
                chosen = select(
                    rule,
                    pool=given.pool,
                    n=n,
                    labelled=given.features if knows else None,
                    label_counts=counts,
                    predictions=knows.predict(given.pool) if knows else None,
                    sample=knows.estimator.sample if knows else None,
                )
                rows = chosen.rows.tolist()
                assert len(rows) == len(set(rows)) == min(n, len(given.pool)), (rule, n)
                assert set(rows) <= set(range(len(given.pool)))
                if chosen.probability is not None:
                    assert np.isfinite(chosen.probability).all()
                    assert (chosen.probability > 0).all()


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_length_is_refused_everywhere(case: str) -> None:
    made, reason = REFUSED[case]
    given = made()
    version = usual().fit()
    with pytest.raises(ModelError, match=reason):
        given.fit()
    with pytest.raises(ModelError, match=reason):
        version.predict(given.pool)
    for rule in sorted(ACQUISITIONS):
        with pytest.raises(ModelError, match=reason):
            select(rule, pool=given.pool, n=3)
