"""What share of labels is wrong, and how sure a model would be that had seen none of the wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# What is expected before anything is known: errors in the test sets of ten benchmarks, on average
# (Northcutt, Athalye and Mueller 2021, arXiv:2103.14749); it counts as much as so many labels.
USUAL_NOISE, NOISE_LABELS = 0.033, 60.0
MOST_NOISE = 0.5
SHARPNESS_SD = 0.4  # of its logarithm: probabilities were calibrated before, wrong labels included
_TINY = 1e-12


def sharpen_and_weigh(probs: F64, labels: Ints) -> tuple[F64, float]:
    """Fit a temperature and the share of wrong labels together.

    Probabilities that were calibrated to given labels leave each class the share that labels are
    wrong, so a label that is wrong for certain seems about as probable as wrong labels are, and
    Bayes' rule is left in doubt where there is none. Here the given label is right with probability
    1 - e and otherwise any other class, so the likelihood of the label of image i is

        ``(1 - e) p_i + e / (C - 1) * (1 - p_i)``,  ``p_i`` proportional to ``probs ** sharpness``

    and its maximum over e and the sharpness, each with a prior, is taken.

    Args:
        probs: ``(N, C>=2)``, rows that sum to 1.
        labels: ``(N,)``.

    Returns:
        ``(N,)`` sharpened probability of each given label, and e, below 0.5.

    Source:
        Symmetric label noise as a layer on top of a model: Sukhbaatar et al. 2015,
        arXiv:1406.2080, with two parameters in place of a matrix.

    Example:
        >>> probs = np.tile([[0.9, 0.1]], (400, 1))  # of labels that are all right
        >>> p_given, noise = sharpen_and_weigh(probs, np.zeros(400, np.int64))
        >>> bool(p_given[0] > 0.98), noise < 0.01
        (True, True)
    """
    rows = np.arange(len(labels))
    others = probs.shape[1] - 1
    log_p = np.log(np.maximum(probs, _TINY))

    def p_given(log_sharpness: float) -> tuple[F64, F64]:
        """``(N,)`` of the label, and the derivative of its logarithm."""
        sharpness = np.exp(log_sharpness)
        logits = sharpness * log_p
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        slope = sharpness * (log_p[rows, labels] - np.einsum("nc,nc->n", logits, log_p))
        return logits[rows, labels], slope

    def cost(point: F64) -> tuple[float, F64]:
        log_sharpness, odds = point.tolist()
        noise = MOST_NOISE * float(expit(odds))
        given, slope = p_given(log_sharpness)
        other = (1.0 - given) / others
        likelihood = np.maximum((1.0 - noise) * given + noise * other, _TINY)
        usual = USUAL_NOISE * np.log(noise) + (1.0 - USUAL_NOISE) * np.log1p(-noise)
        value = 0.5 * (log_sharpness / SHARPNESS_SD) ** 2 - NOISE_LABELS * usual
        value -= float(np.log(likelihood).sum())
        of_p = (1.0 - noise - noise / others) * given * slope / likelihood
        of_noise = float(((other - given) / likelihood).sum())
        of_noise += NOISE_LABELS * (USUAL_NOISE / noise - (1.0 - USUAL_NOISE) / (1.0 - noise))
        gradient = np.array(
            [
                log_sharpness / SHARPNESS_SD**2 - float(of_p.sum()),
                -of_noise * noise * (1.0 - noise / MOST_NOISE),
            ]
        )
        return value, gradient

    start = np.array([0.0, float(logit(USUAL_NOISE / MOST_NOISE))])
    bounds = [(-5.0 * SHARPNESS_SD, 5.0 * SHARPNESS_SD), (-12.0, 12.0)]
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return p_given(float(found[0]))[0], MOST_NOISE * float(expit(found[1]))
