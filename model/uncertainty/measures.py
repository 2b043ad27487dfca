"""What K predictions an image say together; all in nats, none of them random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, psi

from model.errors import ModelError, ShapeError

Array = NDArray[np.float64]

BLOCK_VALUES = 4_000_000  # of a block of distances, 16 MB


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


def decompose_multi_label(passes_NKC: Array) -> tuple[Array, Array, Array]:
    """`decompose` where each class is a yes-or-no question of its own: sums over the classes.

    Args:
        passes_NKC: ``(N, K, C)`` probabilities of yes.

    Returns:
        ``(N,)`` each, total, aleatoric and epistemic, from 0 to ``C log 2``.

    Raises:
        ShapeError: `passes_NKC` is not 3-D with at least one pass and one class.

    Example:
        >>> [float(part[0].round(4)) for part in decompose_multi_label(np.array([[[0.5, 1.0]]]))]
        [0.6931, 0.6931, 0.0]
    """
    if passes_NKC.ndim != 3 or 0 in passes_NKC.shape[1:]:
        raise ShapeError("passes", expected="(N, K>=1, C>=1)", got=passes_NKC.shape)
    total_N = set_entropy(passes_NKC.mean(axis=1))
    aleatoric_N = set_entropy(passes_NKC).mean(axis=1)
    epistemic_N = np.maximum(total_N - aleatoric_N, 0.0)
    return total_N, total_N - epistemic_N, epistemic_N


def binary_entropy(probs: Array) -> Array:
    """Entropy of each answer to a yes-or-no question, from 0 to ``log 2``; the same shape."""
    result: Array = entr(probs) + entr(1.0 - probs)
    return result


def set_entropy(probs: Array) -> Array:
    """Entropy of the answers to all yes-or-no questions: summed over the last axis.

    Example:
        >>> set_entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(4)
        array([0.    , 1.3863])
    """
    result: Array = binary_entropy(probs).sum(axis=-1)
    return result


def margin(probs_NC: Array) -> Array:
    """Largest minus second largest probability: 0 for a tie, 1 for certainty or a single class."""
    if probs_NC.ndim != 2 or probs_NC.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs_NC.shape)
    if probs_NC.shape[1] == 1:
        return np.ones(len(probs_NC))
    top = np.partition(probs_NC, -2, axis=1)[:, -2:]
    result: Array = top[:, 1] - top[:, 0]
    return result


def least_confidence(probs_NC: Array) -> Array:
    """1 - the largest probability, from 0 to ``1 - 1 / C``.

    Example:
        >>> least_confidence(np.array([[0.7, 0.3], [1.0, 0.0]])).round(4)
        array([0.3, 0. ])
    """
    if probs_NC.ndim != 2 or probs_NC.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs_NC.shape)
    result: Array = 1.0 - probs_NC.max(axis=1)
    return result


def variation_ratio(passes_NKC: Array) -> Array:
    """Share of the passes whose most probable class is not the one most passes agree on.

    Args:
        passes_NKC: ``(N, K, C)``; a tie within a pass goes to the first class.

    Returns:
        ``(N,)`` from 0 to ``1 - 1 / min(K, C)``; 0 when K is 1.

    Raises:
        ShapeError: `passes_NKC` is not 3-D with at least one pass and one class.

    Source:
        Freeman 1965; with dropout, Gal 2016, section 3.3.1.

    Example:
        >>> variation_ratio(np.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]])).round(4)
        array([0.3333])
    """
    if passes_NKC.ndim != 3 or 0 in passes_NKC.shape[1:]:
        raise ShapeError("passes", expected="(N, K>=1, C>=1)", got=passes_NKC.shape)
    count, passes, classes = passes_NKC.shape
    votes = np.zeros((count, classes))
    chosen = passes_NKC.argmax(axis=2)
    np.add.at(votes, (np.arange(count)[:, None], chosen), 1.0)
    result: Array = 1.0 - votes.max(axis=1) / passes
    return result


def vacuity(alpha_NC: Array) -> Array:
    """How little evidence a Dirichlet holds: ``C / sum(alpha)``, 1 for none at all.

    Args:
        alpha_NC: ``(N, C)`` concentrations, above 0; at least 1 for a range of (0, 1].

    Raises:
        ShapeError: not 2-D.
        ModelError: a concentration is not above 0.

    Source:
        Sensoy et al. 2018, arXiv:1806.01768, equation 1.

    Example:
        >>> vacuity(np.array([[1.0, 1.0], [7.0, 1.0]]))
        array([1.  , 0.25])
    """
    _check_alpha(alpha_NC)
    result: Array = alpha_NC.shape[1] / alpha_NC.sum(axis=1)
    return result


def dirichlet_entropy(alpha_NC: Array) -> Array:
    """Expected entropy of a probability vector drawn from a Dirichlet, nats: its aleatoric part.

    Args:
        alpha_NC: ``(N, C)`` concentrations, above 0.

    Raises:
        ShapeError: not 2-D.
        ModelError: a concentration is not above 0.

    Source:
        Malinin and Gales 2018, arXiv:1802.10501, equation 18.

    Example:
        >>> dirichlet_entropy(np.array([[1.0, 1.0], [1.0, 2.0]])).round(4)
        array([0.5, 0.5])
    """
    _check_alpha(alpha_NC)
    sums = alpha_NC.sum(axis=1, keepdims=True)
    result: Array = (alpha_NC / sums * (psi(sums + 1.0) - psi(alpha_NC + 1.0))).sum(axis=1)
    return result


def _check_alpha(alpha_NC: Array) -> None:
    if alpha_NC.ndim != 2 or alpha_NC.shape[1] == 0:
        raise ShapeError("alpha", expected="(N, C>=1)", got=alpha_NC.shape)
    if not (alpha_NC > 0.0).all():
        raise ModelError(f"concentrations must be above 0; the least is {alpha_NC.min()}")


def knn_novelty(features_ND: Array, labelled_MD: Array, k: int = 5) -> Array:
    """Mean Euclidean distance to the k nearest labelled items: how new an image is.

    Scale the features first where lengths mean nothing. Works in blocks: memory does not grow with
    N times M. With fewer than k labelled items it takes all there are.

    Args:
        features_ND: ``(N, D)``.
        labelled_MD: ``(M, D)``.
        k: at least 1.

    Returns:
        ``(N,)`` at least 0; infinite for every item when nothing is labelled.

    Raises:
        ShapeError: not 2-D, or of different D.
        ModelError: k is below 1.

    Source:
        Sun et al. 2022, arXiv:2204.06507, with the mean in place of the k-th distance.

    Example:
        >>> knn_novelty(np.array([[0.0], [5.0]]), np.array([[1.0], [3.0]]), k=2)
        array([2., 3.])
    """
    if features_ND.ndim != 2 or labelled_MD.ndim != 2:
        raise ShapeError("features", expected="(N, D)", got=features_ND.shape)
    if features_ND.shape[1] != labelled_MD.shape[1]:
        width = labelled_MD.shape[1]
        raise ShapeError("features", expected=f"(N, {width})", got=features_ND.shape)
    if k < 1:
        raise ModelError(f"k is {k}; at least 1 neighbour is needed")
    count, others = len(features_ND), len(labelled_MD)
    if others == 0:
        return np.full(count, np.inf)
    k = min(k, others)
    squares_M = np.einsum("md,md->m", labelled_MD, labelled_MD)
    novelty = np.empty(count)
    step = max(1, BLOCK_VALUES // others)
    for start in range(0, count, step):
        block = features_ND[start : start + step]
        squares = np.einsum("nd,nd->n", block, block)[:, None] + squares_M
        squares -= 2.0 * (block @ labelled_MD.T)
        nearest = np.partition(squares, k - 1, axis=1)[:, :k]
        novelty[start : start + step] = np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1)
    return novelty
