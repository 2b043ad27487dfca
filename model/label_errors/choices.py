"""Labels of images, of one class or of several, that the out-of-fold model contradicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError, ShapeError
from model.label_errors.noise import USUAL_NOISE, sharpen_and_weigh

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NOBODY = -1
# Of rows that came out of an exponential; what is further off was not normalised.
_ROUNDING = 1e-3
_TINY = 1e-300
_SLACK = 1e-9  # a threshold is a mean, and one label's own probability has to reach it


@dataclass(frozen=True)
class ChoiceErrors:
    """What is to be said of N labels.

    Attributes:
        score: ``(N,)`` in [0, 1]: probability that the label is right; where an image may have
            several classes, that all of them are. Lowest first is the order to look at them in;
            below 0.5 the label is more probably wrong than right.
        is_issue: ``(N,)`` bool, by confident learning: the image confidently belongs elsewhere. It
            asks about more labels than a score below 0.5 does, and more often in vain.
        suggested: ``(N,)`` int64 or ``(N, C)`` bool, what it confidently belongs to; the given
            label where there is no issue.
        per_class: ``(N, C)`` in [0, 1], where an image may have several classes: probability that
            the answer to each is right. Otherwise ``(N, 1)``, the score.
        noise: ``(C,)`` or ``(1,)`` estimated share of wrong labels, drawn towards 3.3 % while
            labels are few.
    """

    score: F64
    is_issue: Bools
    suggested: Ints | Bools
    per_class: F64
    noise: F64

    def __len__(self) -> int:
        return len(self.score)

    @property
    def ranking(self) -> Ints:
        """``(N,)`` numbers of the labels, most probably wrong first; equal ones as they came."""
        return np.argsort(self.score, kind="stable").astype(np.int64)


def find_choice_errors(probs: F64, labels: Ints | Bools) -> ChoiceErrors:
    """Score given labels by what a model says that has not seen them.

    With a share e of wrong labels, each as likely to be any other of the C classes, Bayes' rule
    makes of the probability p of the given class

        ``P(label right) = (1 - e) p / ((1 - e) p + e / (C - 1) * (1 - p))``

    which says how much of a contradiction it takes: with 43 classes a flat guess of 1 / 43 speaks
    against nobody. Both e and the temperature of p are fitted to the given labels together, see
    `noise.sharpen_and_weigh`. The order is close to that of p, self-confidence; of what else was
    tried on hand-written digits and sign language digits with 5 % of the labels flipped, nothing
    was ahead everywhere: normalised margin and entropy-weighted confidence were behind,
    self-confidence over the class's mean and the ratio to the likeliest class level with it.

    Where an image may have several classes every class is a question of two answers, with a share
    of its own, and the score of the image is the product over the classes: independent questions.

    Args:
        probs: ``(N, C)`` out of fold, such as `model.bundle.Bundle.out_of_fold_plain`. Best are
            those of plain regressions with one temperature for all classes: an evidential head
            keeps some probability for every class where little is known of an image, and a
            calibrator of the largest probability divides what is left, both without regard to how
            improbable the given label was.
        labels: ``(N,)`` int64; or ``(N, C)`` bool, where an image may have several classes.

    Raises:
        ShapeError: arrays that do not belong together, or no class.
        ModelError: probabilities that are none, rows of one class an image that do not sum to 1, a
            label outside the classes, or labels that are neither whole numbers nor bool.

    Source:
        `is_issue` and `suggested`: Northcutt, Jiang and Chuang 2021, arXiv:1911.00068.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
        >>> found = find_choice_errors(probs, np.array([0, 0, 1, 1, 1]))
        >>> found.ranking[0], found.is_issue.tolist(), found.suggested.tolist()
        (np.int64(2), [False, False, True, False, False], [0, 0, 0, 1, 1])
    """
    _check(probs, labels)
    if labels.ndim == 2:
        return _find_in_sets(probs, labels.astype(bool))
    whole = labels.astype(np.int64)
    believed = confident_class(probs, whole)
    if probs.shape[1] == 1:  # there is nothing else that it could be
        score, noise = np.ones(len(whole)), USUAL_NOISE
    else:
        p_given, noise = sharpen_and_weigh(probs, whole)
        score = _p_right(p_given, noise, probs.shape[1])
    is_issue = (believed != NOBODY) & (believed != whole)
    return ChoiceErrors(
        score=score,
        is_issue=is_issue,
        suggested=np.where(is_issue, believed, whole),
        per_class=score[:, None],
        noise=np.array([noise]),
    )


def confident_thresholds(probs: F64, labels: Ints) -> F64:
    """``(C,)`` mean probability of each class among the images labelled so; infinite without any.

    Above its threshold an image belongs to a class as much as those labelled so do on average,
    which allows for a model that is surer of some classes than of others.

    Source:
        Northcutt, Jiang and Chuang 2021, equation 2.
    """
    counts = np.bincount(labels, minlength=probs.shape[1])
    own = np.bincount(
        labels, weights=probs[np.arange(len(labels)), labels], minlength=probs.shape[1]
    )
    thresholds = np.full(probs.shape[1], np.inf)
    np.divide(own, counts, out=thresholds, where=counts > 0)
    return thresholds


def confident_class(probs: F64, labels: Ints) -> Ints:
    """``(N,)`` the most probable class among those whose threshold is reached, or -1: none is.

    Of equally probable ones it is the given label: what is not below contradicts nothing.
    """
    reached = np.where(probs >= confident_thresholds(probs, labels) - _SLACK, probs, -1.0)
    best = reached.argmax(axis=1)
    most = reached[np.arange(len(labels)), best]
    is_given = reached[np.arange(len(labels)), labels] >= most
    return np.where(most < 0.0, NOBODY, np.where(is_given, labels, best))


def _find_in_sets(probs: F64, labels: Bools) -> ChoiceErrors:
    """Each class as a question of two answers."""
    per_class = np.empty_like(probs)
    suggested = labels.copy()
    noise = np.empty(probs.shape[1])
    for number, (p_yes, answers) in enumerate(zip(probs.T, labels.T, strict=True)):
        both = np.stack([1.0 - p_yes, p_yes], axis=1)
        one = find_choice_errors(both, answers.astype(np.int64))
        per_class[:, number] = one.score
        suggested[:, number] = one.suggested.astype(bool)
        noise[number] = one.noise[0]
    return ChoiceErrors(
        score=np.exp(np.log(np.maximum(per_class, _TINY)).sum(axis=1)),
        is_issue=(suggested != labels).any(axis=1),
        suggested=suggested,
        per_class=per_class,
        noise=noise,
    )


def _p_right(p_given: F64, noise: float, classes: int) -> F64:
    right = (1.0 - noise) * p_given
    wrong = noise / (classes - 1) * np.maximum(1.0 - p_given, 0.0)
    score: F64 = right / (right + wrong)
    return score


def _check(probs: F64, labels: Ints | Bools) -> None:
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ShapeError("probs", expected="(N, C>=1)", got=probs.shape)
    expected = probs.shape if labels.ndim == 2 else probs.shape[:1]
    if labels.shape != expected:
        raise ShapeError("labels", expected=f"({len(probs)},) or {probs.shape}", got=labels.shape)
    if not np.isfinite(probs).all() or (probs < 0.0).any() or (probs > 1.0 + _ROUNDING).any():
        raise ModelError("probs holds values that are no probabilities; all must be in [0, 1]")
    wanted = np.bool_ if labels.ndim == 2 else np.integer
    if not np.issubdtype(labels.dtype, wanted):
        raise ModelError(
            f"labels are {labels.dtype}; give whole numbers for one class an image, bool of shape "
            "(N, C) for several"
        )
    if labels.ndim == 2 or not len(labels):
        return
    furthest = float(np.abs(probs.sum(axis=1) - 1.0).max())
    if furthest > _ROUNDING:
        raise ModelError(
            f"the probabilities of an image miss 1 by {furthest:.3g}; with one class an image they "
            "sum to 1, with several give the labels as bool of shape (N, C)"
        )
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        bad = int(labels.max() if labels.min() >= 0 else labels.min())
        raise ModelError(f"label {bad} is outside the {probs.shape[1]} classes")
