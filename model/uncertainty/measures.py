"""What K predictions an image say together; all in nats, none of them random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from model.errors import ShapeError

Array = NDArray[np.float64]


def entropy(probs: Array) -> Array:
    """Entropy over the last axis, from 0 to ``log C``.

    Example:
        >>> entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(4)
        array([0.    , 0.6931])
    """
    result: Array = entr(probs).sum(axis=-1)
    return result


def decompose(passes_NKC: Array) -> tuple[Array, Array, Array]:
    """Split what is uncertain into what labels cannot remove and what they can.

    Args:
        passes_NKC: ``(N, K, C)`` probabilities of K passes.

    Returns:
        ``(N,)`` each: total = entropy of the mean, aleatoric = mean entropy of the passes,
        epistemic = total - aleatoric, the mutual information (never negative; 0 when K is 1).

    Raises:
        ShapeError: `passes_NKC` is not 3-D with at least one pass and one class.

    Source:
        Houlsby et al. 2011, arXiv:1112.5745; Depeweg et al. 2018, arXiv:1710.07283.
    """
    if passes_NKC.ndim != 3 or 0 in passes_NKC.shape[1:]:
        raise ShapeError("passes", expected="(N, K>=1, C>=1)", got=passes_NKC.shape)
    total_N = entropy(passes_NKC.mean(axis=1))
    aleatoric_N = entropy(passes_NKC).mean(axis=1)
    epistemic_N = np.maximum(total_N - aleatoric_N, 0.0)  # rounding leaves about -1e-16
    return total_N, total_N - epistemic_N, epistemic_N


def margin(probs_NC: Array) -> Array:
    """Largest minus second largest probability: 0 for a tie, 1 for certainty or a single class."""
    if probs_NC.ndim != 2 or probs_NC.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs_NC.shape)
    if probs_NC.shape[1] == 1:
        return np.ones(len(probs_NC))
    top = np.partition(probs_NC, -2, axis=1)[:, -2:]
    result: Array = top[:, 1] - top[:, 0]
    return result
