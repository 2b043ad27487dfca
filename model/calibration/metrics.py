"""How good probabilities are: calibration, ranking of errors, selective risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from model.errors import ShapeError

Array = NDArray[np.float64]


def ece(p_right: Array, right: NDArray[np.bool_], *, bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass.

    Args:
        p_right: ``(N,)`` stated probability of being right.
        right: ``(N,)`` whether it was.
        bins: number of bins; items are sorted by `p_right` and split into that many equal parts.

    Returns:
        Mean over items of |mean stated - share right| of their bin, 0 to 1; smaller is better.

    Raises:
        ShapeError: nothing to measure, or the lengths differ.

    Source:
        Nguyen and O'Connor 2015, arXiv:1508.05154 (bins of equal mass).

    Example:
        >>> ece(np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, False, True, False]), bins=1)
        0.0
    """
    _check(p_right, right)
    order = np.argsort(p_right, kind="stable")
    stated, happened = p_right[order], right[order].astype(np.float64)
    parts = np.array_split(stated - happened, min(bins, len(order)))
    gap = np.array([part.sum() for part in parts])
    return float(np.abs(gap).sum() / len(order))


def adaptive_ece(probs: Array, labels: NDArray[np.int64], *, bins: int = 15) -> float:
    """Calibration error of every class's probability, not only of the largest one.

    Args:
        probs: ``(N, C)`` summing to 1.
        labels: ``(N,)`` the true classes.
        bins: bins of equal mass, of each class's probabilities for themselves.

    Returns:
        Mean over classes of `ece` of "it is this class", 0 to 1; smaller is better. Among many
        classes most probabilities are near 0 and near right, so it is small there by nature:
        compare it between models, not between sets.

    Source:
        Nixon et al. 2019, arXiv:1904.01685 (ACE).

    Example:
        >>> adaptive_ece(np.full((4, 2), 0.5), np.array([0, 0, 0, 1]), bins=1)
        0.25
    """
    _check_probs(probs, labels)
    classes = range(probs.shape[1])
    return float(np.mean([ece(probs[:, c], labels == c, bins=bins) for c in classes]))


@dataclass(frozen=True)
class ReliabilityBin:
    """What was stated and what happened in one bin of equal mass.

    Attributes:
        count: items in it.
        stated: mean stated probability.
        observed: share that was right.
        low: lower end of the 95 % Clopper-Pearson interval of the share.
        high: upper end.
    """

    count: int
    stated: float
    observed: float
    low: float
    high: float


def reliability(
    p_right: Array, right: NDArray[np.bool_], *, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram, from the least to the most certain; see `ece`.

    Example:
        >>> reliability(np.array([0.5, 0.5]), np.array([True, False]), bins=1)[0].observed
        0.5
    """
    _check(p_right, right)
    order = np.argsort(p_right, kind="stable")
    return tuple(
        ReliabilityBin(
            len(part),
            float(p_right[part].mean()),
            float(right[part].mean()),
            *proportion_interval(int(right[part].sum()), len(part)),
        )
        for part in np.array_split(order, min(bins, len(order)))
    )


def error_falls(bins: tuple[ReliabilityBin, ...]) -> bool:
    """Whether no more certain bin is surely worse than a less certain one.

    Surely: its interval lies below the other's. Looks at all pairs, so that a slow decline over
    many bins counts too.
    """
    best = 0.0
    for one in bins:
        if one.high < best:
            return False
        best = max(best, one.low)
    return True


def brier(probs: Array, labels: NDArray[np.int64] | NDArray[np.bool_]) -> float:
    """Mean squared distance between the probabilities and the one-hot truth.

    Args:
        probs: ``(N, C)`` summing to 1.
        labels: ``(N,)`` the true classes. Or ``(N, C)`` bool where an image may have several; then
            each of `probs` is that of a yes.

    Returns:
        0 (certain and right) to 2 (certain and wrong), with several classes an image to C.

    Source:
        Brier 1950, summed over classes as in the original.
    """
    _check_probs(probs, labels)
    if labels.ndim == 2:
        return float(((probs - labels) ** 2).sum(axis=1).mean())
    truth = probs[np.arange(len(labels)), labels]
    return float(np.mean((probs**2).sum(axis=1) - 2.0 * truth + 1.0))


def nll(probs: Array, labels: NDArray[np.int64] | NDArray[np.bool_]) -> float:
    """Mean negative log probability of the truth, in nats; a probability below 1e-12 counts so.

    With several classes an image, labels ``(N, C)`` bool, the sum over all of them.
    """
    _check_probs(probs, labels)
    if labels.ndim == 2:
        of_answer = np.where(labels, probs, 1.0 - probs)
        return float(-np.log(np.maximum(of_answer, 1e-12)).sum(axis=1).mean())
    return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-12)).mean())


def macro_f1(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """Mean over the classes of the F1 score: the harmonic mean of precision and recall.

    Args:
        said: ``(N, C)``.
        truth: ``(N, C)``.

    Returns:
        0 to 1, over the classes that are said or true at least once; None when there are none.

    Example:
        >>> macro_f1(np.array([[True, False], [True, False]]), np.array([[True, False]] * 2))
        1.0
    """
    if said.ndim != 2 or said.shape != truth.shape:
        raise ShapeError("said", expected=str(truth.shape), got=said.shape)
    mentions = said.sum(axis=0) + truth.sum(axis=0)
    occurs = mentions > 0
    if not occurs.any():
        return None
    return float((2.0 * (said & truth).sum(axis=0)[occurs] / mentions[occurs]).mean())


def error_auroc(p_right: Array, right: NDArray[np.bool_]) -> float | None:
    """Probability that a wrong item has a lower `p_right` than a right one; ties count half.

    Returns:
        0.5 for a score that says nothing, 1 for a perfect ranking; None when all are right or all
        are wrong.
    """
    _check(p_right, right)
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    if n_right == 0 or n_wrong == 0:
        return None
    _, inverse, counts = np.unique(p_right, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0  # mean rank of each distinct value, from 1
    rank_sum = float(ranks[inverse][right].sum())
    return (rank_sum - n_right * (n_right + 1) / 2.0) / (n_right * n_wrong)


def aurc(p_right: Array, right: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve: mean over k of the error rate among the k surest.

    Ties are broken by averaging: each member of a group counts with the group's mean error.

    Source:
        Geifman et al. 2019, arXiv:1805.08206.
    """
    wrong = _wrong_by_confidence(p_right, right)
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def augrc(p_right: Array, right: NDArray[np.bool_]) -> float:
    """Area under the generalised risk-coverage curve: mean over k of (errors in the k surest) / N.

    Unlike AURC it does not give the first few items the weight of all.

    Source:
        Traub et al. 2024, arXiv:2407.01032.
    """
    wrong = _wrong_by_confidence(p_right, right)
    return float(np.mean(np.cumsum(wrong)) / len(wrong))


def proportion_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion; exact, so never too narrow.

    Example:
        >>> tuple(round(bound, 4) for bound in proportion_interval(0, 10))
        (0.0, 0.3085)
    """
    tail = (1.0 - level) / 2.0
    low = 0.0 if successes == 0 else betaincinv(successes, trials - successes + 1, tail)
    high = 1.0 if successes == trials else betaincinv(successes + 1, trials - successes, 1.0 - tail)
    return float(low), float(high)


def judged(right: NDArray[np.bool_], p_right: Array, random: NDArray[np.bool_]) -> dict[str, Any]:
    """How good out-of-fold predictions are, over all labels and on those drawn by chance.

    Args:
        right: ``(N,)`` whether each was right.
        p_right: ``(N,)`` stated.
        random: ``(N,)`` True where the image was drawn by chance.

    Returns:
        ``n_random``, ``oof_accuracy``, ``random_accuracy`` and its 95 % interval, ``ece``,
        ``random_ece``, ``error_auroc``; None where nothing was drawn, or nothing tells.
    """
    count, drawn = int(random.sum()), right[random]
    return {
        "n_random": count,
        "oof_accuracy": float(right.mean()),
        "random_accuracy": float(drawn.mean()) if count else None,
        "random_accuracy_interval": (
            list(proportion_interval(int(drawn.sum()), count)) if count else None
        ),
        "ece": ece(p_right, right),
        "random_ece": ece(p_right[random], drawn) if count else None,
        "error_auroc": error_auroc(p_right, right),
    }


def _wrong_by_confidence(p_right: Array, right: NDArray[np.bool_]) -> Array:
    _check(p_right, right)
    wrong = (~right).astype(np.float64)
    _, inverse, counts = np.unique(-p_right, return_inverse=True, return_counts=True)
    mean_wrong = np.bincount(inverse, weights=wrong) / counts
    return np.repeat(mean_wrong, counts)


def _check(p_right: Array, right: NDArray[np.bool_]) -> None:
    if p_right.ndim != 1 or len(p_right) == 0:
        raise ShapeError("p_right", expected="(N>=1,)", got=p_right.shape)
    if right.shape != p_right.shape:
        raise ShapeError("right", expected=str(p_right.shape), got=right.shape)


def _check_probs(probs: Array, labels: NDArray[np.int64] | NDArray[np.bool_]) -> None:
    if probs.ndim != 2 or len(probs) == 0:
        raise ShapeError("probs", expected="(N>=1, C)", got=probs.shape)
    if labels.ndim == 2 and labels.shape == probs.shape:
        return
    if labels.shape != probs.shape[:1]:
        raise ShapeError("labels", expected=f"({len(probs)},)", got=labels.shape)
