"""Risk control in expectation, and the watch over what was accepted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from model.acceptance.risk_control import largest_in_expectation
from model.acceptance.watch import MOST_TIMES, evidence_against
from model.errors import ModelError, ShapeError


def broken_after(wrong, *, max_error: float) -> int | None:
    """After how many items a promise is taken back, by one who looks after each."""
    beyond = np.flatnonzero(evidence_against(wrong, max_error=max_error) >= 20.0)
    return int(beyond[0]) + 1 if len(beyond) else None


def test_the_expected_share_of_wrong_labels_is_held_and_nearly_used() -> None:
    pool, reach, max_error = 1000, 600, 0.05
    wrong = np.zeros(pool, bool)
    rng = np.random.default_rng(0)
    wrong[rng.permutation(600)[:150]] = True
    losses = []
    for seed in range(3000):
        ranks = np.random.default_rng(seed).permutation(reach)[:100]
        size = largest_in_expectation(
            ranks, wrong[ranks], max_error=max_error, reach=reach, pool=pool
        )
        losses.append(wrong[:size].sum() / pool)
    assert np.mean(losses) <= max_error
    assert np.mean(losses) > 0.8 * max_error


def test_risk_control_by_hand() -> None:
    # 19 labels of the whole pool: (wrong + 1) / 20 <= 0.1 allows one wrong one.
    ranks = np.arange(0, 190, 10)
    wrong = np.isin(ranks, [50, 120])
    found = largest_in_expectation(ranks, wrong, max_error=0.1, reach=200, pool=200)
    assert found == 120
    none = largest_in_expectation(ranks[:8], wrong[:8], max_error=0.1, reach=200, pool=200)
    assert none == 0  # (0 + 1) / 9 is more than 0.1
    assert largest_in_expectation(ranks, wrong & False, max_error=0.1, reach=200, pool=200) == 200


def test_risk_control_refuses_what_does_not_belong() -> None:
    ranks, wrong = np.array([3, 7]), np.zeros(2, bool)
    with pytest.raises(ModelError, match="reach is 20"):
        largest_in_expectation(ranks, wrong, max_error=0.1, reach=20, pool=10)
    with pytest.raises(ModelError, match="outside"):
        largest_in_expectation(ranks, wrong, max_error=0.1, reach=5, pool=10)
    with pytest.raises(ShapeError, match="wrong"):
        largest_in_expectation(ranks, wrong[:1], max_error=0.1, reach=10, pool=10)
    with pytest.raises(ModelError, match="max_error is 1"):
        largest_in_expectation(ranks, wrong, max_error=1.0, reach=10, pool=10)


def test_evidence_is_the_averaged_likelihood_ratio() -> None:
    wrong = np.array([False, True, True, False, True])
    bound = 0.05
    top = MOST_TIMES * bound

    def ratio(p: float) -> float:
        return (p / bound) ** 3 * ((1 - p) / (1 - bound)) ** 2

    expected = quad(ratio, bound, top)[0] / (top - bound)
    assert evidence_against(wrong, max_error=bound)[-1] == pytest.approx(expected, rel=1e-6)


def test_what_holds_is_rarely_taken_back_however_often_one_looks() -> None:
    rng = np.random.default_rng(0)
    trials = 2000
    taken = sum(
        broken_after(rng.random(400) < 0.05, max_error=0.05) is not None for _ in range(trials)
    )
    assert taken / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_what_does_not_hold_is_taken_back() -> None:
    rng = np.random.default_rng(0)
    after = [broken_after(rng.random(600) < 0.2, max_error=0.05) or 999 for _ in range(200)]
    assert np.median(after) < 40
    assert max(after) < 200


def test_thousands_of_errors_do_not_overflow() -> None:
    assert np.isfinite(evidence_against(np.ones(5000, bool), max_error=0.01)).all()


def test_the_watch_refuses_what_is_no_verdict() -> None:
    with pytest.raises(ShapeError, match="wrong"):
        evidence_against(np.zeros(3), max_error=0.05)  # type: ignore[arg-type]
    assert broken_after(np.zeros(0, bool), max_error=0.05) is None
