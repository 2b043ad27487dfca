"""Several labels an image: what independent answers to yes-or-no questions say about their set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.errors import ShapeError
from model.uncertainty.measures import decompose_multi_label

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

TINY = 1e-12
MOST_ASKED = 4  # questions of an image that rules about joint outcomes look at: 16 outcomes


def most_probable_set(probs_NC: Array, *, at_least_one: bool = False) -> Bools:
    """The set of labels that is most probably the whole truth: those more probable than not.

    Args:
        probs_NC: ``(N, C)`` probability of each label.
        at_least_one: the empty set is no answer; then the most probable label stands for it.

    Returns:
        ``(N, C)``; a tie is a no.

    Example:
        >>> most_probable_set(np.array([[0.9, 0.6], [0.2, 0.4]]), at_least_one=True).tolist()
        [[True, True], [False, True]]
    """
    chosen: Bools = probs_NC > 0.5
    if at_least_one and probs_NC.shape[1]:
        empty = np.flatnonzero(~chosen.any(axis=1))
        chosen[empty, probs_NC[empty].argmax(axis=1)] = True
    return chosen


def log_p_set(probs_NC: Array, chosen_NC: Bools, *, at_least_one: bool = False) -> Array:
    """``(N,)`` logarithm of the probability that all answers are right, were they independent.

    Args:
        probs_NC: ``(N, C)`` probability of each label.
        chosen_NC: ``(N, C)`` the sets.
        at_least_one: given that the truth is not the empty set.

    Example:
        >>> np.exp(log_p_set(np.array([[0.9, 0.4]]), np.array([[True, False]]))).round(4)
        array([0.54])
    """
    of_no = np.log(np.maximum(1.0 - probs_NC, TINY))
    found: Array = np.where(chosen_NC, np.log(np.maximum(probs_NC, TINY)), of_no).sum(axis=1)
    if at_least_one:
        found = found - np.log(np.maximum(-np.expm1(of_no.sum(axis=1)), TINY))
    return np.minimum(found, 0.0)


def set_margin(probs_NC: Array) -> Array:
    """Probability of the most probable set less that of the next: 0 for a tie, 1 for certainty.

    The next differs in the most doubtful label alone. With one label it is the margin of yes and
    no, as `measures.margin` has it.

    Example:
        >>> set_margin(np.array([[0.9, 0.6]])).round(4)
        array([0.18])
    """
    if probs_NC.ndim != 2 or probs_NC.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs_NC.shape)
    best = np.exp(log_p_set(probs_NC, most_probable_set(probs_NC)))
    surest = np.maximum(probs_NC, 1.0 - probs_NC).min(axis=1)
    result: Array = best * (2.0 * surest - 1.0) / surest
    return result


def joint_outcomes(passes_NKC: Array) -> Array:
    """Yes-or-no passes as passes over the joint answers to an image's most telling questions.

    For rules that want one of so many outcomes. Of each image the 4 labels are kept whose mutual
    information with the pass is largest, so 16 outcomes; the others are summed over, which never
    adds information: what a rule finds is a lower bound, exact with up to 4 labels.

    Args:
        passes_NKC: ``(N, K, C)`` probabilities of yes.

    Returns:
        ``(N, K, 2^min(C, 4))`` summing to 1.
    """
    count, passes, classes = passes_NKC.shape
    kept = min(classes, MOST_ASKED)
    asked = np.broadcast_to(np.arange(classes), (count, classes))
    if classes > kept:
        columns = passes_NKC.transpose(0, 2, 1).reshape(-1, passes, 1)
        told = decompose_multi_label(columns)[2].reshape(count, classes)
        asked = np.argpartition(-told, kept - 1, axis=1)[:, :kept]
    yes = np.take_along_axis(passes_NKC, asked[:, None, :], axis=2)
    joint = np.ones((count, passes, 1))
    for number in range(kept):
        one = yes[:, :, number, None]
        joint = np.concatenate([joint * (1.0 - one), joint * one], axis=2)
    return joint
