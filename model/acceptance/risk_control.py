"""The expected share of wrong labels in the finished set, held by conformal risk control."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.acceptance.bounds import check_share
from model.acceptance.plan import errors_allowed
from model.errors import ModelError, ShapeError


def largest_in_expectation(
    ranks: NDArray[np.int64],
    wrong: NDArray[np.bool_],
    *,
    max_error: float,
    reach: int,
    pool: int,
) -> int:
    """Most items that may be accepted so that the pool's *expected* share of wrong ones is held.

    A weaker promise than a certificate: over many projects the mean is held, of one project nothing
    is said. It needs few labels: ``reach / pool / max_error`` of them at least.

    Args:
        ranks: ``(n,)`` of audit items drawn uniformly from the first `reach`; 0 is the surest.
        wrong: ``(n,)`` whether each prediction was wrong.
        max_error: largest expected share of the whole pool that is accepted and wrong.
        reach: items that the audit was drawn from.
        pool: items in the pool.

    Returns:
        The size of the largest part, at most `reach`; 0 when the labels are too few for any.

    Raises:
        ShapeError: not one verdict an item.
        ModelError: `max_error` is no share, or a rank lies outside the part.

    Source:
        Angelopoulos, Bates, Fisch, Lei and Schuster 2022, arXiv:2208.02814. The loss, accepted and
        wrong, grows with the part and is at most 1.
    """
    check_share("max_error", max_error)
    if ranks.ndim != 1 or wrong.shape != ranks.shape:
        raise ShapeError("wrong", expected=str(ranks.shape), got=wrong.shape)
    if not 0 < reach <= pool:
        raise ModelError(f"reach is {reach} of a pool of {pool}; give 1 to {pool}")
    if len(ranks) and not (ranks.min() >= 0 and ranks.max() < reach):
        raise ModelError(f"a rank lies outside the audited part, the first {reach} items")
    allowed = errors_allowed(len(ranks), reach, pool, max_error)
    if allowed < 0:
        return 0
    bad = np.sort(ranks[wrong])
    return reach if len(bad) <= allowed else int(bad[allowed])
