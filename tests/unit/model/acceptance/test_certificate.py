"""Plans and certificates: what is promised is kept, and an unfinished audit proves nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from model.acceptance.certificate import Certificate, certify, confidence_of_attempt
from model.acceptance.plan import ACCEPTED, ALL, EXPECTED, AuditPlan, Promise, plan_audit
from model.errors import ModelError, ShapeError, UnknownNameError

PROMISE = Promise(0.05, 0.9)


def sure(n: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """P(right) of a pool, most of it sure, descending."""
    return np.sort(1.0 - np.random.default_rng(seed).beta(0.4, 3.0, n))[::-1]


def verdicts(plan: AuditPlan, wrong: NDArray[np.bool_], seed: int) -> Certificate:
    ranks = plan.draw(seed)
    return certify(plan, ranks, wrong[ranks])


def expected_plan(p_right: NDArray[np.float64], **options: float) -> AuditPlan:
    plan = plan_audit(p_right, Promise(0.05, 0.95, EXPECTED), **options)
    assert plan is not None
    return plan


@pytest.mark.parametrize("of", [ACCEPTED, ALL])
def test_a_broken_promise_is_certified_as_rarely_as_promised(of: str) -> None:
    """The worst case: each part has one wrong item more than allowed, whatever P(right) says."""
    pool, promise = 400, Promise(0.05, 0.9, of)
    plan = AuditPlan(promise, pool, (100, 200, 300), 150)
    wrong = np.zeros(pool, bool)
    if of == ACCEPTED:
        wrong[:6], wrong[100:105], wrong[200:205] = True, True, True
    else:
        wrong[:21] = True
    assert all(wrong[:size].sum() >= promise.broken_by(size, pool) for size in plan.sizes)
    trials = 3000
    accepted = sum(verdicts(plan, wrong, seed).size > 0 for seed in range(trials))
    # 0.1 is the largest probability; three standard deviations above it.
    assert accepted / trials <= 0.1 + 3 * np.sqrt(0.09 / trials)
    assert accepted > 0.02 * trials  # and the test is not empty: it is nearly exact


def test_parts_are_tested_in_order_until_one_fails() -> None:
    plan = AuditPlan(PROMISE, 1000, (200, 400, 600), 300)
    wrong = np.zeros(1000, bool)
    wrong[400:600] = True
    found = verdicts(plan, wrong, 0)
    assert [test.size for test in found.tests] == [200, 400, 600]
    assert [test.passed for test in found.tests] == [True, True, False]
    assert found.size == 400
    assert "surest 400 of 1000" in found.sentence
    assert "90 % confidence" in found.sentence


def test_nothing_is_accepted_beyond_a_first_part_that_fails() -> None:
    plan = AuditPlan(PROMISE, 1000, (200, 600), 300)
    wrong = np.zeros(1000, bool)
    wrong[:40] = True
    found = verdicts(plan, wrong, 0)
    assert len(found.tests) == 1
    assert found.size == 0
    assert found.sentence.startswith("Nothing may be accepted")


def test_the_promise_of_the_whole_pool_allows_more() -> None:
    wrong = np.zeros(1000, bool)
    wrong[100:130] = True
    among_accepted = AuditPlan(Promise(0.05, 0.9, ACCEPTED), 1000, (200, 300), 250)
    among_all = AuditPlan(Promise(0.05, 0.9, ALL), 1000, (200, 300), 250)
    assert verdicts(among_accepted, wrong, 1).size == 0
    found = verdicts(among_all, wrong, 1)
    assert found.size == 300
    assert "of all 1000" in found.sentence


def test_a_part_too_small_to_break_a_promise_is_accepted_only_if_it_is_mostly_right() -> None:
    """Ten items cannot make more than 5 % of a thousand wrong."""
    plan = AuditPlan(Promise(0.05, 0.95, ALL), 1000, (10, 500), 250)
    wrong = np.ones(1000, bool)
    found = verdicts(plan, wrong, 0)
    assert found.tests[0].passed
    assert found.size == 0
    assert found.sentence.startswith("Nothing may be accepted")
    wrong[:9] = False
    assert verdicts(plan, wrong, 0).size == 10


def test_an_unfinished_audit_proves_nothing() -> None:
    plan = AuditPlan(PROMISE, 1000, (500,), 100)
    ranks = plan.draw(0)
    with pytest.raises(ModelError, match="99 of the 100 audit labels"):
        certify(plan, ranks[:99], np.zeros(99, bool))


def test_what_does_not_belong_to_the_plan_is_refused() -> None:
    plan = AuditPlan(PROMISE, 1000, (50,), 2)
    with pytest.raises(ModelError, match="twice"):
        certify(plan, np.array([3, 3]), np.zeros(2, bool))
    with pytest.raises(ModelError, match="rank 50 is outside"):
        certify(plan, np.array([3, 50]), np.zeros(2, bool))
    with pytest.raises(ShapeError, match="wrong"):
        certify(plan, np.array([3, 4]), np.zeros(3, bool))


def test_draws_are_distinct_and_uniform_over_the_largest_part() -> None:
    plan = AuditPlan(PROMISE, 1000, (20, 40), 10)
    counts = np.zeros(40)
    for seed in range(2000):
        ranks = plan.draw(seed)
        assert len(set(ranks.tolist())) == 10
        assert ranks.max() < 40
        counts[ranks] += 1
    # Each is drawn in a quarter of the times: 500, with a standard deviation of 19.
    assert np.abs(counts - 500).max() < 5 * 19


def test_a_plan_knows_its_order() -> None:
    for sizes in ((), (5, 3), (3, 3), (0, 3)):
        with pytest.raises(ModelError, match="ascending"):
            AuditPlan(PROMISE, 10, sizes, 2)
    with pytest.raises(ModelError, match="cannot be"):
        AuditPlan(PROMISE, 10, (5,), 6)


def test_where_p_right_is_true_the_planned_audit_saves_work() -> None:
    p_right = sure()
    plan = plan_audit(p_right, PROMISE)
    assert plan is not None
    saved = []
    for seed in range(100):
        wrong = np.random.default_rng(seed).random(len(p_right)) > p_right
        saved.append(verdicts(plan, wrong, seed).size - plan.audit)
    assert np.mean(saved) > 0.3 * len(p_right)
    assert np.mean(np.array(saved) > 0) > 0.9


def test_a_wrong_p_right_costs_coverage_and_not_the_promise() -> None:
    p_right = sure()
    plan = plan_audit(p_right, PROMISE)
    assert plan is not None
    broken = 0
    for seed in range(500):
        wrong = np.random.default_rng(seed).random(len(p_right)) < 0.08
        size = verdicts(plan, wrong, seed).size
        broken += size > 0 and wrong[:size].mean() > PROMISE.max_error
    assert broken / 500 <= 0.1 + 3 * np.sqrt(0.09 / 500)


def test_no_audit_where_none_could_pay() -> None:
    assert plan_audit(np.full(500, 0.7), PROMISE) is None
    assert plan_audit(np.empty(0), PROMISE) is None
    assert plan_audit(np.full(30, 0.999), Promise(0.01, 0.99)) is None


def test_a_given_audit_and_reach_are_kept() -> None:
    plan = plan_audit(sure(), PROMISE, audit=120, reach=0.333)
    assert plan is not None
    assert plan.audit == 120
    assert plan.reach == 333
    fixed = plan_audit(np.full(500, 0.7), PROMISE, audit=100)
    assert fixed is not None
    assert fixed.audit == 100


@pytest.mark.parametrize(
    ("p_right", "options", "message"),
    [
        ([0.2, 0.9], {}, "descending"),
        ([0.9, 1.2], {}, "probabilities"),
        ([0.9, 0.8], {"audit": 3}, "audit is 3"),
        ([0.9, 0.8], {"audit": 0}, "audit is 0"),
        ([0.9, 0.8], {"reach": 1.5}, "reach is 1.5"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    p_right: list[float], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        plan_audit(np.array(p_right), PROMISE, **options)  # type: ignore[arg-type]


def test_a_promise_is_a_share_and_has_a_name() -> None:
    with pytest.raises(ModelError, match="max_error is 5"):
        Promise(5, 0.95)
    with pytest.raises(ModelError, match="confidence is 95"):
        Promise(0.05, 95)
    with pytest.raises(UnknownNameError, match="acepted"):
        Promise(0.05, 0.95, "acepted")


def test_attempts_share_the_chance_of_a_mistake() -> None:
    spent = [1.0 - confidence_of_attempt(0.95, n) for n in range(60)]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) == pytest.approx(0.05)
    with pytest.raises(ModelError, match="attempt is -1"):
        confidence_of_attempt(0.95, -1)


def test_facts_are_json() -> None:
    plan = AuditPlan(PROMISE, 1000, (200,), 100)
    facts = json.loads(json.dumps(verdicts(plan, np.zeros(1000, bool), 0).facts()))
    assert facts["size"] == 200
    assert facts["tests"][0]["drawn"] == 100


def test_what_is_held_in_expectation_is_held_and_needs_few_labels() -> None:
    p_right = sure()
    plan = expected_plan(p_right)
    proof = plan_audit(p_right, Promise(0.05, 0.95, ALL))
    assert proof is not None
    assert plan.audit < proof.audit
    wrong = np.random.default_rng(1).random(1000) > p_right
    found = [verdicts(plan, wrong, seed) for seed in range(2000)]
    losses = [wrong[: one.size].sum() / 1000 for one in found]
    assert 0.03 < np.mean(losses) <= 0.05
    # What the plan expects of P(right) that is true is what comes.
    assert np.mean([one.size for one in found]) == pytest.approx(plan.expected, rel=0.15)
    said = found[0].sentence
    assert "on average" in said
    assert "confidence" not in said


def test_too_few_labels_hold_no_expectation() -> None:
    plan = AuditPlan(Promise(0.05, 0.95, EXPECTED), 1000, (1000,), 18)  # 1 / 19 is above 0.05
    found = verdicts(plan, np.zeros(1000, bool), 0)
    assert found.size == 0
    assert found.sentence.startswith("Nothing may be accepted: 0 of 18")
    enough = AuditPlan(plan.promise, 1000, (1000,), 19)
    assert verdicts(enough, np.zeros(1000, bool), 0).size == 1000
    assert json.loads(json.dumps(found.facts()))["tests"][0]["p_value"] is None


def test_groups_are_accepted_whole_and_an_audit_is_paid_for() -> None:
    """Images of 1 to 9 regions, in an order of their own."""
    counts = np.random.default_rng(0).integers(1, 10, 300)
    ends = np.cumsum(counts)
    p_right = np.concatenate([np.full(n, 1 - 0.001 * k) for k, n in enumerate(counts)])
    p_right[:5] = 0.9  # need not descend
    plan = plan_audit(p_right, PROMISE, ends=ends)
    assert plan is not None
    assert set(plan.sizes) <= set(ends.tolist())
    assert len(plan.sizes) >= 3
    assert plan_audit(p_right, PROMISE, ends=ends, price=plan.expected / plan.audit + 1) is None
    far = plan_audit(p_right, PROMISE, ends=ends, audit=60, reach=0.5)
    assert far is not None
    assert far.reach == ends[np.searchsorted(ends, np.ceil(0.5 * ends[-1]))]
    with pytest.raises(ModelError, match="ends have to ascend to"):
        plan_audit(p_right, PROMISE, ends=ends[:-1])


@pytest.mark.parametrize("pool", [200, 440])
def test_no_part_is_asked_for_more_labels_than_it_has(pool: int) -> None:
    """Whatever a geometric series rounds to: the first parts of these have 5 and 11 items."""
    p_right = np.sort(np.random.default_rng(0).beta(5, 2, pool))[::-1]
    for max_error in (0.05, 0.1, 0.3):
        plan = plan_audit(p_right, Promise(max_error, 0.95))
        assert plan is None or plan.audit <= plan.reach
