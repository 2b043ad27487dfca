"""Whether what was accepted still keeps its promise, by a test that may be read at any time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln

from model.acceptance.bounds import check_share
from model.errors import ModelError, ShapeError

MOST_TIMES = 8.0  # as many errors as promised is the worst that is looked for


def evidence_against(wrong: NDArray[np.bool_], *, max_error: float) -> NDArray[np.float64]:
    """How much speaks against "at most `max_error` are wrong" after each audited item.

    The likelihood of what was seen, averaged over error rates above the bound, divided by that at
    the bound. While the promise holds it is a supermartingale: it reaches 1 / a at any time with a
    probability of at most a (Ville), however often one looks.

    Args:
        wrong: ``(n,)`` verdicts of items drawn at random from what was accepted, in order.
        max_error: the promise, a share.

    Returns:
        ``(n,)`` the e-value after each; 1 says nothing, 20 speaks against it as p = 0.05 does.

    Raises:
        ShapeError: not a row of verdicts.
        ModelError: `max_error` is no share.

    Source:
        Robbins 1970 (mixtures); Ramdas, Grunwald, Vovk and Shafer 2023, arXiv:2210.01948.

    Example:
        >>> bool(evidence_against(np.zeros(50, bool), max_error=0.05)[-1] < 1)
        True
    """
    check_share("max_error", max_error)
    if wrong.ndim != 1 or wrong.dtype != np.bool_:
        raise ShapeError("wrong", expected="(n,) of bool", got=wrong.shape)
    n = np.arange(1, len(wrong) + 1, dtype=np.float64)
    k = np.cumsum(wrong).astype(np.float64)
    top = min(1.0, MOST_TIMES * max_error)
    if top - max_error < 1e-12:
        raise ModelError(f"max_error is {max_error}; nothing is worse than that")
    mass = betainc(k + 1, n - k + 1, top) - betainc(k + 1, n - k + 1, max_error)
    with np.errstate(divide="ignore"):
        log = np.log(np.maximum(mass, 0.0)) + betaln(k + 1, n - k + 1) - np.log(top - max_error)
    log -= k * np.log(max_error) + (n - k) * np.log1p(-max_error)
    return np.asarray(np.exp(np.minimum(log, 700.0)))
