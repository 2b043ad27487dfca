"""Rules that look for disagreement between the passes: what a label would say about the model."""

from __future__ import annotations

import numpy as np

from model.acquisition.base import F64, Ints, Pool, Selection, by_score, filled
from model.uncertainty.measures import entropy

CANDIDATES = 10  # times the batch: what is gained only shrinks, so the best alone stay the best
LEAST_CANDIDATES = 200
OUTCOMES = 2_000  # joint outcomes of the batch so far that are kept
LEAST_GAIN = 1e-6  # nats; below that the batch has said all that the passes can say


def bald(pool: Pool, n: int, *, seed: int) -> Selection:
    """Largest mutual information between an item's label and the pass first.

    Source:
        Houlsby et al. 2011, arXiv:1112.5745; Gal et al. 2017, arXiv:1703.02910.
    """
    return Selection(by_score(pool.said.epistemic, n, seed=seed))


def batch_bald(pool: Pool, n: int, *, seed: int) -> Selection:
    """Greedily the batch whose labels together say most about the pass.

    Candidates are the items with the largest mutual information of their own, which bounds what
    they can add. K passes hold at most ``log K`` nats: once those are spent, the rest follows in
    order of mutual information.

    Source:
        Kirsch et al. 2019, arXiv:1906.08158.
    """
    order = by_score(pool.said.epistemic, len(pool.features), seed=seed)
    candidates = order[: max(CANDIDATES * n, LEAST_CANDIDATES)]
    chosen, _ = most_joint_information(
        pool.outcomes(pool.features[candidates]), n, np.random.default_rng(seed)
    )
    return Selection(filled(candidates[chosen], order, n))


def most_joint_information(passes_NKC: F64, n: int, rng: np.random.Generator) -> tuple[Ints, F64]:
    """Greedy maximum of the mutual information between the labels of a batch and the pass.

    By the chain rule what an item adds is its mutual information with the pass, averaged over the
    joint outcomes of the batch so far and under the passes' posterior after each. All outcomes are
    gone through while there are at most 2,000; from then on 2,000 are drawn.

    Args:
        passes_NKC: ``(N, K, C)``.
        n: at most so many items.
        rng: of the outcomes.

    Returns:
        At most `n` distinct indices and what each added in nats; fewer when nothing adds anything.
    """
    count, passes, _ = passes_NKC.shape
    share_S = np.ones(1)  # probability of each joint outcome of the batch so far
    posterior_SK = np.full((1, passes), 1.0 / passes)
    doubt_NK = entropy(passes_NKC)
    most_N = np.full(count, np.inf)  # what an item adds only shrinks: old values are bounds
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(n, count)):
        fresh = np.zeros(count, bool)
        while not fresh[best := int(most_N.argmax())]:
            mixed_SC = posterior_SK @ passes_NKC[best]
            aleatoric = share_S @ posterior_SK @ doubt_NK[best]
            most_N[best] = share_S @ entropy(mixed_SC) - aleatoric
            fresh[best] = True
        if most_N[best] < LEAST_GAIN:
            break
        chosen.append(best)
        gains.append(float(most_N[best]))
        most_N[best] = -np.inf
        share_S, posterior_SK = _observe(share_S, posterior_SK, passes_NKC[best], rng)
    return np.array(chosen, np.int64), np.array(gains)


def _observe(
    share_S: F64, posterior_SK: F64, passes_KC: F64, rng: np.random.Generator
) -> tuple[F64, F64]:
    """Joint outcomes and the posteriors after them, with one more item's label."""
    share = (share_S[:, None] * (posterior_SK @ passes_KC)).ravel()
    keep = np.flatnonzero(share > 0.0)
    kept = share[keep]
    if len(keep) > OUTCOMES:
        steps = (np.arange(OUTCOMES) + rng.random()) / OUTCOMES
        total = np.cumsum(kept)
        drawn = np.searchsorted(total, steps * total[-1], "right")
        keep = keep[np.minimum(drawn, len(keep) - 1)]
        kept = np.full(OUTCOMES, 1.0 / OUTCOMES)
    before, label = np.divmod(keep, passes_KC.shape[1])
    posterior = posterior_SK[before] * passes_KC.T[label]
    posterior /= posterior.sum(axis=1, keepdims=True)
    return kept, posterior
