"""What an audit has proved: Learn-then-Test over nested parts of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.acceptance.bounds import chance_of_so_few, labels_needed, most_wrong
from model.acceptance.plan import ACCEPTED, ALL, EXPECTED, AuditPlan
from model.acceptance.risk_control import largest_in_expectation
from model.errors import ModelError, ShapeError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

FIRST_SHARE, LATER_SHARE = 0.8, 0.2


@dataclass(frozen=True)
class Test:
    """One part of the pool and what the audit says of it.

    Attributes:
        size: items in the part.
        drawn: audit labels that lie in it.
        errors: wrong ones among them.
        p_value: of "the promise is broken on this part"; None where nothing is tested.
        passed: it was reached, and rejected.
    """

    size: int
    drawn: int
    errors: int
    p_value: float | None
    passed: bool


@dataclass(frozen=True)
class Certificate:
    """The largest part that may be accepted, or nothing and the reason.

    Attributes:
        plan: what was tested.
        tests: in order, up to the first that failed; of what is held in expectation the part that
            may be accepted, or the largest where none may, without a p-value.
        size: items that may be accepted, the surest first; 0 for none. Those among them that the
            audit labelled are people's now.
        sentence: the same in words.
    """

    plan: AuditPlan
    tests: tuple[Test, ...]
    size: int
    sentence: str

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "size": self.size,
            "pool": self.plan.pool,
            "max_error": self.plan.promise.max_error,
            "confidence": self.plan.promise.confidence,
            "of": self.plan.promise.of,
            "audit": self.plan.audit,
            "sentence": self.sentence,
            "tests": [vars(test) for test in self.tests],
        }


def certify(
    plan: AuditPlan, ranks: Ints, wrong: Bools, *, stated: float | None = None
) -> Certificate:
    """Test the parts of a plan in its order, and stop at the first that may break the promise.

    That the parts and their order were fixed beforehand is what makes one level enough for all of
    them: a part whose promise is broken is accepted only if the first such part passes its test,
    which happens with a probability of at most 1 - confidence. Draws without replacement are
    tested exactly, however errors lie in the part and however many of one image are in it.

    Args:
        plan: as it was when the audit was drawn.
        ranks: ``(audit,)`` of the audit labels, see `AuditPlan.draw`.
        wrong: ``(audit,)`` whether each prediction was wrong. What could not be judged, such as a
            skipped task, has to count as wrong: otherwise what is doubtful would count as right.
        stated: confidence that the sentence names, where this is one of several tests that share
            it; None: that of the plan.

    Raises:
        ShapeError: not one verdict a label.
        ModelError: labels are missing (looking at an audit before it is complete, and again until
            it passes, breaks the promise), occur twice or lie outside the plan.

    Source:
        Angelopoulos, Bates, Candes, Jordan and Lei 2021, arXiv:2110.01052 (fixed sequence testing);
        what is held in expectation: see `largest_in_expectation`.
    """
    _check(plan, ranks, wrong)
    promise, tests = plan.promise, []
    if promise.of == EXPECTED:
        size = largest_in_expectation(
            ranks, wrong, max_error=promise.max_error, reach=plan.reach, pool=plan.pool
        )
        size = max((part for part in plan.sizes if part <= size), default=0)
        inside = ranks < (size or plan.reach)
        found = Test(
            size or plan.reach, int(inside.sum()), int(wrong[inside].sum()), None, size > 0
        )
        return _certificate(plan, [found], stated)
    for size in plan.sizes:
        inside = ranks < size
        drawn, errors = int(inside.sum()), int(wrong[inside].sum())
        p_value = chance_of_so_few(errors, drawn, promise.broken_by(size, plan.pool), size)
        passed = p_value <= 1.0 - promise.confidence
        tests.append(Test(size, drawn, errors, p_value, passed))
        if not passed:
            break
    return _certificate(plan, tests, stated)


def confidence_of_attempt(confidence: float, attempt: int) -> float:
    """Confidence to test with at the n-th attempt, so that all of them together keep the promise.

    Whoever audits again after a failure has had a second chance to be lucky. The chance of a
    mistake is divided: four fifths for the first attempt, four fifths of the rest for the next.

    Args:
        confidence: of the promise, over all attempts with one version.
        attempt: from 0.

    Example:
        >>> [round(confidence_of_attempt(0.95, n), 4) for n in range(3)]
        [0.96, 0.992, 0.9984]
    """
    if attempt < 0:
        raise ModelError(f"attempt is {attempt}; the first is 0")
    return 1.0 - (1.0 - confidence) * FIRST_SHARE * LATER_SHARE**attempt


def _check(plan: AuditPlan, ranks: Ints, wrong: Bools) -> None:
    if ranks.ndim != 1 or wrong.shape != ranks.shape:
        raise ShapeError("wrong", expected=str(ranks.shape), got=wrong.shape)
    if len(np.unique(ranks)) != len(ranks):
        raise ModelError("an audit label occurs twice; each item is drawn once")
    if len(ranks) and (ranks.min() < 0 or ranks.max() >= plan.reach):
        bad = int(ranks.min() if ranks.min() < 0 else ranks.max())
        raise ModelError(f"rank {bad} is outside the audited part, the first {plan.reach} items")
    if len(ranks) != plan.audit:
        raise ModelError(
            f"{len(ranks)} of the {plan.audit} audit labels are there; an audit proves something "
            "only when it is complete"
        )


def _certificate(plan: AuditPlan, tests: list[Test], stated: float | None) -> Certificate:
    passed = [test for test in tests if test.passed]
    size = passed[-1].size if passed else 0
    # A few items cannot break a promise about the whole pool, however wrong they are; but what is
    # wrong as often as right is no help to anybody.
    if size and 2 * passed[-1].errors >= max(passed[-1].drawn, 1):
        size = 0
    return Certificate(plan, tuple(tests), size, _sentence(plan, tests, size, stated))


def _sentence(plan: AuditPlan, tests: list[Test], size: int, stated: float | None) -> str:
    promise = plan.promise
    bound, items = f"{100 * promise.max_error:g} %", f" {plan.unit}" if plan.unit else ""
    if size:
        test = next(test for test in tests if test.size == size)
        sure = f"with {100 * (stated or promise.confidence):g} % confidence"
        what = {
            ACCEPTED: f"at most {bound} of them are wrong, {sure}",
            ALL: f"at most {bound} of all {plan.pool}{items} will be wrong because of them, {sure}",
            EXPECTED: f"on average over such audits at most {bound} of all {plan.pool}{items} are "
            "wrong because of them",
        }[promise.of]
        return (
            f"The surest {size} of {plan.pool}{items} may be accepted: {what} "
            f"({test.errors} of {test.drawn} audited were wrong)."
        )
    first = tests[0]
    said = (
        f"Nothing may be accepted: {first.errors} of {first.drawn} audited among the surest "
        f"{first.size}{items} were wrong"
    )
    if promise.of == EXPECTED:
        return f"{said}. More labels teach the model more than another audit would."
    most = most_wrong(first.errors, first.drawn, first.size, confidence=promise.confidence)
    said = f"{said}, so up to {most} of these {first.size} may be."
    if promise.of != ACCEPTED:
        return said
    clean = labels_needed(
        promise.max_error, confidence=promise.confidence, errors=first.errors, size=first.size
    )
    if clean is not None and first.errors / clean < promise.max_error / 2:
        return f"{said} With {clean} labels there and as many errors it would have been proved."
    return f"{said} More labels teach the model more than another audit would."
