"""How many of a part may be wrong, by exact bounds for draws without replacement."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr, gammaln

from model.errors import ModelError

LARGEST_AUDIT = 1_000_000


def chance_of_so_few(errors: int, drawn: int, wrong: int, size: int) -> float:
    """P(at most `errors` among `drawn` items), if `wrong` of the `size` they come from are wrong.

    Args:
        errors: wrong items seen.
        drawn: items seen, drawn uniformly without replacement.
        wrong: wrong items in the part; more than `size` cannot be, and counts as impossible.
        size: items in the part.

    Returns:
        The exact hypergeometric probability: the p-value of "at least `wrong` are wrong".

    Raises:
        ModelError: numbers that cannot belong together.

    Example:
        >>> round(chance_of_so_few(0, 10, 5, 100), 4)
        0.5838
    """
    if not 0 <= errors <= drawn <= size:
        raise ModelError(
            f"{errors} errors among {drawn} of {size} items cannot be; each is at most the next"
        )
    if wrong > size:
        return 0.0
    least = max(0, drawn - (size - wrong))
    if errors < least:
        return 0.0
    if errors >= min(wrong, drawn):
        return 1.0
    seen = np.arange(least, errors + 1, dtype=np.float64)
    logs = (
        _log_choose(wrong, seen)
        + _log_choose(size - wrong, drawn - seen)
        - _log_choose(size, np.array([drawn], np.float64))
    )
    top = logs.max()
    return float(min(1.0, np.exp(top) * np.exp(logs - top).sum()))


def most_wrong(errors: int, drawn: int, size: int, *, confidence: float) -> int:
    """Upper bound of the number of wrong items in a part, with that confidence.

    Raises:
        ModelError: as `chance_of_so_few`, or a confidence outside (0, 1).

    Example:
        >>> most_wrong(0, 59, 100_000, confidence=0.95) / 100_000 <= 0.05
        True
    """
    check_share("confidence", confidence)
    low, high = errors, size - (drawn - errors)  # high is possible; above it nothing is
    while low < high:
        middle = (low + high + 1) // 2
        if chance_of_so_few(errors, drawn, middle, size) > 1.0 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def labels_needed(
    max_error: float, *, confidence: float, errors: int = 0, size: int | None = None
) -> int | None:
    """Fewest audit labels that prove an error bound when that many of them are wrong.

    Args:
        max_error: the bound, a share.
        confidence: with which it is to be proved.
        errors: wrong ones among the audit labels.
        size: items in the part; None for one far larger than the audit.

    Returns:
        None where even all of the part would not prove it.

    Raises:
        ModelError: a share outside (0, 1), or a negative number.

    Source:
        Clopper and Pearson 1934; without replacement the hypergeometric form.

    Example:
        >>> [labels_needed(0.05, confidence=0.95, errors=k) for k in range(4)]
        [59, 93, 124, 153]
    """
    check_share("max_error", max_error)
    check_share("confidence", confidence)
    if errors < 0:
        raise ModelError(f"errors is {errors}; give 0 or more")
    most = LARGEST_AUDIT if size is None else size

    def proves(drawn: int) -> bool:
        if size is None:
            return bool(bdtr(errors, drawn, max_error) <= 1.0 - confidence)
        return chance_of_so_few(errors, drawn, too_many(max_error, size), size) <= 1.0 - confidence

    if most <= errors or not proves(most):
        return None
    low, high = errors, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high


def too_many(max_error: float, size: int) -> int:
    """Fewest wrong items of `size` that break a bound."""
    # A bound of 0.05 on 100 items allows 5, whatever 0.05 * 100 is in binary.
    return int(np.floor(max_error * size + 1e-9)) + 1


def check_share(name: str, value: float) -> None:
    """Refuse what is not a share between 0 and 1."""
    if not 0.0 < value < 1.0:
        such = 0.95 if name == "confidence" else 0.05
        raise ModelError(f"{name} is {value}; give a share between 0 and 1, such as {such}")


def _log_choose(
    of: int, take: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        gammaln(of + 1.0) - gammaln(take + 1.0) - gammaln(of - take + 1.0)
    )
    return found
