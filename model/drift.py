"""Whether new images are unlike those that were there: a permutation test of two samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.checks import check_features
from model.errors import ModelError, ShapeError
from model.uncertainty.measures import knn_novelty

MOST_ROWS = 400  # of each side: enough to see small shifts, and a second
# Of two samples; as many more as a small level needs to be reached: 40 tests of a series can.
PERMUTATIONS, MOST_PERMUTATIONS = 9_999, 99_999
BLOCK = 500
NEIGHBOURS = 5


@dataclass(frozen=True)
class Shift:
    """What a test found.

    Attributes:
        p_value: probability of so large a difference if the new images are like the old ones.
        novelty_before: median novelty of old images.
        novelty_now: median novelty of the new ones.
    """

    p_value: float
    novelty_before: float
    novelty_now: float


def shift_of(
    before: NDArray[np.float32],
    fresh: NDArray[np.float32],
    *,
    level: float = 0.05,
    seed: int = 0,
) -> Shift:
    """Compare fresh images with old ones by the energy distance of their features.

    If fresh images come from where the old ones came from, which of them are fresh is chance, and
    so many random divisions of both together say how large the distance is by chance: the test is
    exact. It sees other images, other shares of the same kinds, and copies.

    Args:
        before: ``(N, D)`` features of all images there were, labelled or not: those that are left
            over after choosing are no sample of what comes.
        fresh: ``(M, D)`` of the images that came.
        level: that the p-value will be compared with; a small one takes more permutations.
        seed: of the permutations, and of the samples where there are more than some hundred.

    Raises:
        ShapeError: not 2-D, or of different D.
        ModelError: fewer than two old images or no fresh one, or features that are not finite.

    Source:
        Szekely and Rizzo 2004, "Testing for equal distributions in high dimension".
    """
    if before.ndim != 2 or fresh.ndim != 2 or before.shape[1] != fresh.shape[1]:
        raise ShapeError("fresh", expected=f"(M, {before.shape[-1]})", got=fresh.shape)
    if len(before) < 2 or not len(fresh):
        raise ModelError(
            f"{len(before)} old and {len(fresh)} new images cannot be compared; at least 2 and 1 "
            "are needed"
        )
    check_features(before, "features of old images")
    check_features(fresh, "features of new images")
    rng = np.random.default_rng(seed)
    old = _unit(before[rng.permutation(len(before))[:MOST_ROWS]])
    new = _unit(fresh[rng.permutation(len(fresh))[:MOST_ROWS]])
    half = len(old) // 2
    return Shift(
        p_value=_permutation_p(np.concatenate([old, new]), len(new), level, rng),
        novelty_before=float(np.median(knn_novelty(old[half:], old[:half], NEIGHBOURS))),
        novelty_now=float(np.median(knn_novelty(new, old[:half], NEIGHBOURS))),
    )


def _permutation_p(
    rows: NDArray[np.float64], fresh: int, level: float, rng: np.random.Generator
) -> float:
    """Share of divisions whose energy distance is at least that of the last `fresh` rows."""
    divisions = int(np.clip(np.ceil(3.0 / level), PERMUTATIONS, MOST_PERMUTATIONS))
    count = len(rows)
    squares = np.einsum("nd,nd->n", rows, rows)
    distances = squares[:, None] + squares - 2.0 * rows @ rows.T
    distances = np.sqrt(np.maximum(distances, 0.0)).astype(np.float32)
    total = distances.sum(axis=1)

    def energy(chosen: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(K,)`` of divisions ``(N, K)``, 1 where a row is among the fresh."""
        inner = np.einsum("nk,nk->k", chosen, distances @ chosen).astype(np.float64)
        across = (total @ chosen).astype(np.float64) - inner
        rest = float(total.sum()) - 2.0 * across - inner
        old = count - fresh
        return np.asarray(2 * across / (fresh * old) - inner / fresh**2 - rest / old**2)

    def division(order: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen = np.zeros(count, np.float32)
        chosen[order[:fresh]] = 1.0
        return chosen

    seen = energy(division(np.arange(count)[::-1])[:, None])[0]
    as_large = 0
    for start in range(0, divisions, BLOCK):
        size = min(BLOCK, divisions - start)
        chosen = np.stack([division(rng.permutation(count)) for _ in range(size)], axis=1)
        as_large += int((energy(chosen) >= seen - 1e-7).sum())
    return (as_large + 1) / (divisions + 1)


def level_of_test(false_alarm: float, number: int) -> float:
    """Level of the n-th test of a series, so that all of them raise a false alarm that rarely.

    Args:
        false_alarm: largest probability of any false alarm, ever.
        number: from 1.

    Example:
        >>> round(sum(level_of_test(0.05, n) for n in range(1, 10_000)), 4)
        0.05
    """
    if number < 1:
        raise ModelError(f"the number of a test is {number}; the first is 1")
    return false_alarm / (number * (number + 1))


def _unit(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of length 1: how bright an image is must not decide."""
    rows = features.astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
