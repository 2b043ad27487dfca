"""What an audit will test, fixed before any of its labels is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrik

from model.acceptance.bounds import check_share, too_many
from model.errors import ModelError, UnknownNameError
from model.stopping.base import check_probabilities

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACCEPTED, ALL, EXPECTED = "accepted", "all", "expected"
OF = (ACCEPTED, ALL, EXPECTED)
STEPS = 40  # parts of the pool that an audit may certify: every 2.5 %
AUDIT_SIZES = 32  # that are considered
SMALLEST_AUDIT = 20
# P(right) may be off: parts are planned for as many errors as it says, half and twice as many.
FACTORS, WEIGHTS = (0.5, 1.0, 2.0), (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class Promise:
    """What shall be true of the predictions that are accepted.

    Attributes:
        max_error: largest share of wrong ones.
        confidence: with which that is to be proved.
        of: ``accepted``: the share among the part of the pool that is accepted; ``all``: wrong
            accepted ones as a share of the whole pool, the weaker promise: what is left in the
            finished set when people do the rest; ``expected``: that share on average over many
            projects, the weakest: it holds in expectation, without a confidence.

    Raises:
        ModelError: a share outside (0, 1).
        UnknownNameError: no such `of`.
    """

    max_error: float
    confidence: float
    of: str = ACCEPTED

    def __post_init__(self) -> None:
        check_share("max_error", self.max_error)
        check_share("confidence", self.confidence)
        if self.of not in OF:
            raise UnknownNameError("promise", self.of, OF)

    def broken_by(self, size: int, pool: int) -> int:
        """Fewest wrong items in a part of that size that break the promise."""
        return too_many(self.max_error, size if self.of == ACCEPTED else pool)


@dataclass(frozen=True)
class AuditPlan:
    """Which labels to ask for and which parts of the pool they will be tested on.

    The pool stands in the order of P(right), the surest first; a part is its first so many items.

    Attributes:
        promise: what is to be proved.
        pool: N, items in the pool.
        sizes: ascending, of the parts, in the order in which they are tested. The first is one
            that the audit can certify: at a stricter one it would see too few labels. Of a promise
            in expectation all parts that may be accepted.
        audit: labels, drawn uniformly from the largest part.
        expected: items that are accepted on average if P(right) is true, audited ones included.
        unit: what items are called in sentences, in the plural; empty for none.
    """

    promise: Promise
    pool: int
    sizes: tuple[int, ...]
    audit: int
    expected: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            raise ModelError(f"sizes are {self.sizes}; give ascending numbers of items")
        if not 0 < self.audit <= self.reach <= self.pool:
            raise ModelError(
                f"an audit of {self.audit} in the first {self.reach} of {self.pool} items cannot "
                "be; each is at most the next"
            )

    @property
    def reach(self) -> int:
        """Items in the largest part, from which the audit is drawn."""
        return self.sizes[-1]

    def draw(self, seed: int | Sequence[int]) -> Ints:
        """``(audit,)`` ranks to ask for, in the order of drawing; 0 is the surest item."""
        return np.random.default_rng(seed).permutation(self.reach)[: self.audit].astype(np.int64)


def plan_audit(
    p_right: Floats,
    promise: Promise,
    *,
    audit: int | None = None,
    reach: float | None = None,
    ends: Ints | None = None,
    price: float = 1.0,
) -> AuditPlan | None:
    """The audit that is expected to spare people most work, by what P(right) says.

    A part's errors are foretold by P(right); whether an audit would then certify it follows from
    the binomial distribution. Planned so that the expected number of accepted items, less the
    labels of the audit, is largest. However wrong P(right) is, it costs labels or coverage and
    never the promise: the plan knows no label.

    Args:
        p_right: ``(N,)`` of the pool, descending; with `ends` in the order in which items would be
            accepted.
        promise: what is to be proved.
        audit: labels to spend; None leaves that to the plan.
        reach: largest part of the pool that may be accepted, a share; None leaves it to the plan.
        ends: ``(G,)`` ascending, of groups of items that can only be accepted together, such as the
            regions of an image: how many items each group and those before it have. None: each item
            is a group.
        price: items that could be looked at in the time that one label of the audit takes.

    Returns:
        None where no audit is expected to spare anybody work.

    Raises:
        ShapeError, ModelError: `p_right` is no list of probabilities or not descending, `audit` is
            not positive or more than the pool, or `reach` is no share.
    """
    check_probabilities("p_right", p_right)
    pool = len(p_right)
    if ends is not None and (not len(ends) or ends[-1] != pool or (np.diff(ends) <= 0).any()):
        raise ModelError(f"ends have to ascend to {pool}, the number of items")
    if ends is None and (np.diff(p_right) > 0.0).any():
        raise ModelError("p_right has to be in descending order: the surest item first")
    if audit is not None and not 0 < audit <= pool:
        raise ModelError(f"audit is {audit}; give 1 to {pool}, the number of items")
    if reach is not None and not 0.0 < reach <= 1.0:
        raise ModelError(f"reach is {reach}; give a share of the pool, at most 1")
    if not pool:
        return None
    sizes = np.unique(np.ceil(np.arange(1, STEPS + 1) / STEPS * pool).astype(np.int64))
    if reach is not None:
        last = math.ceil(reach * pool)
        sizes = np.unique(np.append(sizes[sizes < last], last))
    if ends is not None:
        sizes = np.unique(ends[np.searchsorted(ends, sizes)])
    errors = np.cumsum(1.0 - p_right)[sizes - 1] / sizes
    broken = np.array([promise.broken_by(int(size), pool) for size in sizes])
    best: tuple[float, AuditPlan] | None = None
    for last in range(len(sizes)) if reach is None else [len(sizes) - 1]:
        for labels in _audits(audit, int(sizes[last])):
            part = slice(0, last + 1)
            if promise.of == EXPECTED:
                allowed = errors_allowed(labels, int(sizes[last]), pool, promise.max_error)
                gain, start = _expected_size(sizes[part], errors[part], labels, allowed), 0
            else:
                passes = _pass_chance(sizes[part], errors[part], broken[part], labels, promise)
                gain, start = _best_start(sizes[part], passes)
            net = gain - price * labels
            if best is None or net > best[0]:
                tested = tuple(int(size) for size in sizes[start : last + 1])
                best = net, AuditPlan(promise, pool, tested, labels, gain)
    if best is None or (audit is None and best[0] <= 0.0):
        return None
    return best[1]


def errors_allowed(drawn: int, reach: int, pool: int, max_error: float) -> int:
    """Wrong ones among the audit labels of a part with which the expected share is still held.

    Args:
        drawn: audit labels, drawn uniformly from the first `reach` items.
        reach: items in the largest part.
        pool: items in the pool, of which `max_error` is a share.
        max_error: largest expected share of accepted and wrong ones.

    Returns:
        -1 where the labels are too few for any part.

    Source:
        Angelopoulos et al. 2022, arXiv:2208.02814: the largest k with
        ``(k + 1) / (drawn + 1) * reach / pool <= max_error``; no loss is larger than 1.
    """
    return int(np.floor(max_error * pool / reach * (drawn + 1) + 1e-9)) - 1


def _audits(audit: int | None, reach: int) -> list[int]:
    if audit is not None:
        return [audit] if audit <= reach else []
    most = np.geomspace(min(SMALLEST_AUDIT, reach), reach, AUDIT_SIZES)
    # The last of them may be a rounding error above the reach.
    return sorted({min(int(n), reach) for n in np.ceil(most)})


def _pass_chance(sizes: Ints, errors: Floats, broken: Ints, audit: int, promise: Promise) -> Floats:
    """``(S,)`` chance that an audit certifies each part and all before it, by P(right).

    Draws with replacement stand for those without: for planning that is near enough.
    """
    drawn = audit * sizes // sizes[-1]
    level = np.minimum(broken / sizes, 1.0)
    allowed = _most_errors_allowed(drawn, level, 1.0 - promise.confidence)
    chance = np.zeros(len(sizes))
    for factor, weight in zip(FACTORS, WEIGHTS, strict=True):
        rate = np.minimum(factor * errors, 1.0)
        found = np.where(allowed >= 0, bdtr(np.maximum(allowed, 0), drawn, rate), 0.0)
        chance += weight * found
    return np.asarray(np.where(broken > sizes, 1.0, chance))


def _most_errors_allowed(drawn: Ints, level: Floats, delta: float) -> Floats:
    """Largest number of errors with which "at least `level` are wrong" is rejected; -1: none."""
    inside = (drawn > 0) & (level < 1.0)
    n, p = np.where(inside, drawn, 1), np.where(inside, level, 0.5)
    with np.errstate(invalid="ignore"):
        k = np.floor(np.nan_to_num(bdtrik(delta, n, p), nan=-1.0))
    k = np.where((k >= 0) & (bdtr(np.maximum(k, 0), n, p) > delta), k - 1, k)
    k = np.where((k < 0) & (bdtr(np.zeros(len(n)), n, p) <= delta), 0.0, k)
    return np.asarray(np.where(inside, np.maximum(k, -1.0), -1.0))


def _expected_size(sizes: Ints, errors: Floats, audit: int, allowed: int) -> float:
    """Size up to which an audit of the last part sees as many errors as allowed, by P(right)."""
    if allowed < 0:
        return 0.0
    found = 0.0
    for factor, weight in zip(FACTORS, WEIGHTS, strict=True):
        seen = np.minimum(factor * errors, 1.0) * sizes * (audit / sizes[-1])
        found += weight * float(max(sizes[seen <= allowed], default=0))
    return found


def _best_start(sizes: Ints, passes: Floats) -> tuple[float, int]:
    """Expected size that is certified, and the part to begin with for it."""
    best = (0.0, len(sizes) - 1)
    steps = np.diff(sizes, prepend=0)
    for start in range(len(sizes)):
        so_far = np.minimum.accumulate(passes[start:])
        gain = sizes[start] * so_far[0] + float((steps[start + 1 :] * so_far[1:]).sum())
        if gain > best[0]:
            best = (float(gain), start)
    return best
