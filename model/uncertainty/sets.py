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


def most_probable_set(probs_NC: Array, *, empty: float | Array = 0.0) -> Bools:
    """The set of labels that is most probably the whole truth.

    With independent answers these are the labels more probable than not. Where images without any
    label are rarer than that, the most probable label alone may come before none.

    Args:
        probs_NC: ``(N, C)`` probability of each label.
        empty: logarithm of what the probability of the empty set is multiplied by before all are
            made to sum to 1, one number or ``(N,)``; minus infinity where it is no answer.

    Returns:
        ``(N, C)``; a tie is a no.

    Example:
        >>> most_probable_set(np.array([[0.9, 0.6], [0.2, 0.4]]), empty=-np.inf).tolist()
        [[True, True], [False, True]]
    """
    chosen: Bools = probs_NC > 0.5
    without = np.flatnonzero(~chosen.any(axis=1))
    chosen[without, probs_NC[without].argmax(axis=1)] = True
    chosen[log_p_none(probs_NC) + empty >= _log_answers(probs_NC, chosen)] = False
    return chosen


def log_p_set(probs_NC: Array, chosen_NC: Bools, *, empty: float | Array = 0.0) -> Array:
    """``(N,)`` logarithm of the probability that all answers are right.

    Args:
        probs_NC: ``(N, C)`` probability of each label, independent but for `empty`.
        chosen_NC: ``(N, C)`` the sets.
        empty: as for `most_probable_set`.

    Example:
        >>> np.exp(log_p_set(np.array([[0.9, 0.4]]), np.array([[True, False]]))).round(4)
        array([0.54])
    """
    found = _log_answers(probs_NC, chosen_NC) - _log_total(probs_NC, empty)
    return np.minimum(np.where(chosen_NC.any(axis=1), found, found + empty), 0.0)


def set_margin(probs_NC: Array, *, empty: float | Array = 0.0) -> Array:
    """Probability of the most probable set less that of the next: 0 for a tie, 1 for certainty.

    With one label it is the margin of yes and no, as `measures.margin` has it.

    Args:
        probs_NC: ``(N, C)`` probability of each label.
        empty: as for `most_probable_set`.

    Example:
        >>> set_margin(np.array([[0.9, 0.6]])).round(4)
        array([0.18])
    """
    if probs_NC.ndim != 2 or probs_NC.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs_NC.shape)
    # But for the empty set, the two best are among the labels more probable than not, and these
    # with the most or the second most doubtful one turned round.
    rows, base = np.arange(len(probs_NC)), probs_NC > 0.5
    found = [log_p_none(probs_NC) + empty]
    order = np.argsort(np.abs(probs_NC - 0.5), axis=1, kind="stable")[:, :2]
    for turned in (None, *order.T):
        chosen = base.copy()
        if turned is not None:
            chosen[rows, turned] ^= True
        log_p = _log_answers(probs_NC, chosen)
        found.append(np.where(chosen.any(axis=1), log_p, -np.inf))
    best = np.sort(np.exp(np.array(found) - _log_total(probs_NC, empty)), axis=0)
    result: Array = np.clip(best[-1] - best[-2], 0.0, 1.0)
    return result


def log_p_none(probs_NC: Array) -> Array:
    """``(N,)`` logarithm of the probability of the empty set, were the answers independent."""
    none: Array = np.log(np.maximum(1.0 - probs_NC, TINY)).sum(axis=1)
    return none


def _log_answers(probs_NC: Array, chosen_NC: Bools) -> Array:
    of_answer = np.where(chosen_NC, probs_NC, 1.0 - probs_NC)
    answers: Array = np.log(np.maximum(of_answer, TINY)).sum(axis=1)
    return answers


def _log_total(probs_NC: Array, empty: float | Array) -> Array:
    """Logarithm of what all sets sum to, the empty one weighed."""
    none = log_p_none(probs_NC)
    total: Array = np.logaddexp(np.log(np.maximum(-np.expm1(none), TINY)), none + empty)
    return total


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
