"""What the agreement of two learners tells of the level of P(right)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model.calibration.base import Agreement, logit
from model.calibration.doubt import Doubt, lift_to

F64 = NDArray[np.float64]

# How log odds of being right follow from those of agreement, measured on development sets; LEVEL
# is for as many labels as LABELS, and grows by GROWTH times the logarithm of their number.
SLOPE, LEVEL, GROWTH, LABELS = 1.35, -0.9, 0.35, 80.0
LEAST, MOST = 0.02, 0.99  # agreement beyond these is held to say no more
SHARE, FADES = 0.4, 250.0  # of the way at no label, and the labels at which half of that is left
FEW_IMAGES = 20.0  # of so few, how often two learners agree is half chance


def expected_log_odds(agreement: Agreement, labels: int) -> float:
    """Log odds of being right on the unlabelled pool, by how often two learners agree there.

    The head, and label propagation from the same labels: they go wrong in different ways, so the
    more often they name the same class, the fewer errors either makes. Chosen labels cannot spoil
    that, since no label is looked at, and it does not hang on how sure the head is of itself. A
    line in log odds, which rises with the logarithm of the number of labels: two learners that
    know little agree in what they have in common. What it gives lies between the two, so half of
    the head's lead is added.

    Args:
        agreement: on the pool.
        labels: how many there are, at least 1.

    Source:
        The idea: Jiang et al. 2022, arXiv:2106.13799 (disagreement of two runs estimates the
        error); the line is measured, docs/adr/calibration-rule.md.

    Example:
        >>> round(expected_log_odds(Agreement(0.8), 80), 2)
        0.97
    """
    log_odds = float(logit(np.clip(np.array(agreement.share), LEAST, MOST)))
    grown = GROWTH * float(np.log(labels / LABELS))
    return SLOPE * log_odds + LEVEL + grown + 0.5 * agreement.lead


def heed(agreement: Agreement, labels: int, images: int) -> float:
    """How far to move towards `expected_log_odds`, 0 to 0.4.

    By two fifths of the way with few labels, by 0.29, 0.22, 0.08 of it with 100, 200, 1,000. Less
    where the images are few, and where one of the two is far worse: then they differ for its sake.
    """
    fewer = images / (images + FEW_IMAGES)
    return SHARE * FADES / (FADES + labels) * fewer / (1.0 + agreement.lead**2)


def agreement_lift(p_right: F64, doubt: Doubt, agreement: Agreement | None, labels: int) -> float:
    """What to add to the log odds so that the level heeds the agreement of two learners.

    Args:
        p_right: ``(M,)`` as calibrated, of images that stand for the pool; M may be 0.
        doubt: what is done to it; `Doubt.lift` included.
        agreement: None where it is not known, which lifts nothing.
        labels: how many calibration was fitted on.
    """
    if agreement is None or not len(p_right) or not labels:
        return 0.0
    share = heed(agreement, labels, len(p_right))
    stated = float(logit(doubt.apply(p_right).mean()[None])[0])
    goal = (1.0 - share) * stated + share * expected_log_odds(agreement, labels)
    inside = (float(expit(goal)) - (1.0 - doubt.trust) * doubt.base) / max(doubt.trust, 1e-12)
    return lift_to(logit(p_right) + doubt.lift, float(np.clip(inside, 0.0, 1.0)))
