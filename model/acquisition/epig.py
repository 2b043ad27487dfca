"""What a label would say about the predictions of other items, rather than about the model."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import F64, Pool, Selection, by_score, filled
from model.uncertainty.measures import entropy

TARGETS = 100
CANDIDATES = 10  # times the batch
LEAST_CANDIDATES = 500
MOST_OUTCOMES = 16
BLOCK_ITEMS = 32


def epig(pool: Pool, n: int, *, seed: int) -> Selection:
    """Largest expected information about the labels of random items of the pool first.

    An item says no more about other labels than about the pass, so candidates are the items with
    the largest mutual information. Classes beyond an item's 15 most probable count as one.

    Source:
        Bickford Smith et al. 2023, arXiv:2304.08151.
    """
    order = by_score(pool.said.epistemic, len(pool.features), seed=seed)
    candidates = order[: max(CANDIDATES * n, LEAST_CANDIDATES)]
    targets = np.sort(np.random.default_rng(seed).permutation(len(order))[:TARGETS])
    scores = expected_information(
        coarse(pool.outcomes(pool.features[candidates])),
        coarse(pool.outcomes(pool.features[targets])),
    )
    return Selection(filled(candidates[by_score(scores, n, seed=seed)], order, n))


def expected_information(passes_NKC: F64, targets_TKD: F64) -> F64:
    """Mutual information between an item's label and a target's, averaged over the targets.

    Args:
        passes_NKC: ``(N, K, C)`` probabilities of the items.
        targets_TKD: ``(T, K, D)`` of the targets by the same passes, T >= 1.

    Returns:
        ``(N,)`` in nats, never negative.
    """
    passes = passes_NKC.shape[1]
    columns = targets_TKD.transpose(1, 0, 2).reshape(passes, -1) / passes
    alone = entropy(passes_NKC.mean(axis=1)) + entropy(targets_TKD.mean(axis=1)).mean()
    together = np.empty(len(passes_NKC))
    for start in range(0, len(passes_NKC), BLOCK_ITEMS):
        block = passes_NKC[start : start + BLOCK_ITEMS]
        joint = block.transpose(0, 2, 1) @ columns  # (n, C, T D)
        together[start : start + BLOCK_ITEMS] = entropy(joint.reshape(len(block), -1))
    information: F64 = np.maximum(alone - together / len(targets_TKD), 0.0)
    return information


def coarse(passes_NKC: F64) -> F64:
    """The 15 most probable classes of each item, and all others as one: never more information."""
    classes = passes_NKC.shape[2]
    if classes <= MOST_OUTCOMES:
        return passes_NKC
    kept = MOST_OUTCOMES - 1
    top = np.argpartition(-passes_NKC.mean(axis=1), kept - 1, axis=1)[:, None, :kept]
    best = np.take_along_axis(passes_NKC, top, axis=2)
    rest = np.maximum(1.0 - best.sum(axis=2, keepdims=True), 0.0)
    return np.concatenate([best, rest], axis=2)
