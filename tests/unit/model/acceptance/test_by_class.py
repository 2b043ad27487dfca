"""Audits for each class: the promise holds for all of them together."""

from __future__ import annotations

import numpy as np
import pytest

from model.acceptance.by_class import plan_by_class
from model.acceptance.certificate import certify
from model.acceptance.plan import EXPECTED, Promise
from model.errors import ModelError, ShapeError

PROMISE = Promise(0.05, 0.9)


def pool(seed: int = 0, n: int = 1500):
    """P(right), descending, and a class each: cats are sure, dogs less so, owls are guesses."""
    rng = np.random.default_rng(seed)
    said = rng.choice(["cat", "dog", "owl"], n)
    shape = {"cat": 0.1, "dog": 0.3, "owl": 6.0}
    p = 1.0 - np.array([rng.beta(shape[name], 3.0) for name in said])
    order = np.argsort(-p)
    return p[order], said[order].tolist()


def test_classes_that_pay_share_the_chance_of_a_mistake():
    p_right, said = pool()
    plans = plan_by_class(p_right, said, PROMISE)
    assert [part.name for part in plans] == ["cat", "dog"]
    for part in plans:
        assert {said[row] for row in part.rows} == {part.name}
        assert part.plan.pool == len(part.rows) == said.count(part.name)
        assert part.plan.promise.confidence == pytest.approx(0.95)
        assert (np.diff(part.rows) > 0).all()


def test_an_expectation_needs_no_sharing():
    p_right, said = pool()
    plans = plan_by_class(p_right, said, Promise(0.05, 0.9, EXPECTED))
    assert {part.plan.promise.confidence for part in plans} == {0.9}


def test_one_class_is_broken_as_rarely_as_promised():
    """Every class has one wrong item more than allowed: any certificate is a mistake."""
    p_right, said = pool()
    plans = plan_by_class(p_right, said, PROMISE)
    mistakes, trials = 0, 1500
    for seed in range(trials):
        for number, part in enumerate(plans):
            wrong = np.zeros(part.plan.pool, bool)
            for start, size in zip((0, *part.plan.sizes), part.plan.sizes, strict=False):
                short = part.plan.promise.broken_by(size, part.plan.pool) - int(wrong[:size].sum())
                wrong[start : start + short] = True
            ranks = part.plan.draw([seed, number])
            if certify(part.plan, ranks, wrong[ranks]).size:
                mistakes += 1
                break
    assert 0.02 < mistakes / trials <= 0.1 + 3 * np.sqrt(0.09 / trials)


def test_a_number_of_labels_is_for_each_class_that_pays_for_so_many():
    p_right, said = pool()
    plans = plan_by_class(p_right, said, PROMISE, audit=150)
    assert {part.plan.audit for part in plans} == {150}
    assert "owl" not in {part.name for part in plans}
    assert plan_by_class(p_right, said, PROMISE, audit=1000) == []


def test_nothing_pays_where_all_are_guesses():
    assert plan_by_class(np.full(50, 0.4), ["a", "b"] * 25, PROMISE) == []
    assert plan_by_class(np.empty(0), [], PROMISE) == []


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ShapeError, match="said"):
        plan_by_class(np.full(3, 0.9), ["a"], PROMISE)
    with pytest.raises(ModelError, match="audit is -1"):
        plan_by_class(np.full(3, 0.9), ["a", "b", "a"], PROMISE, audit=-1)
