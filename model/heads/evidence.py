"""The loss of an evidential head: logits are the logarithm of evidence for a Dirichlet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, psi

from model.heads.sigmoid import BinaryCrossEntropy
from model.heads.softmax import F32, F64, CrossEntropy

MOST = 12.0  # logarithm of the most evidence for a class


def concentrations(logits: F64) -> F64:
    """``alpha = 1 + exp(logit)``, at most about 160,000; 1 where the logit is far below 0."""
    alpha: F64 = 1.0 + np.exp(np.minimum(logits, MOST))
    return alpha


def trigamma(x: F64) -> F64:
    """Second derivative of log gamma for x >= 1, to 1e-9; a tenth of the time of SciPy's zeta.

    Source:
        Abramowitz and Stegun 6.4.6 (four steps up) and 6.4.12.
    """
    y = x + 4.0
    inverse = 1.0 / y
    square = inverse * inverse
    series = 1 / 6 - square * (1 / 30 - square * (1 / 42 - square * (1 / 30 - square * 5 / 66)))
    result: F64 = inverse + square * (0.5 + inverse * series)
    for step in range(4):
        result += 1.0 / (x + step) ** 2
    return result


@dataclass(frozen=True)
class Evidence:
    """Expected cross-entropy under the Dirichlet, and what holds back evidence for wrong classes.

    Attributes:
        labels: ``(N,)`` classes.
        n_classes: C.
        held: weight of the divergence from the uniform Dirichlet once the evidence for the right
            class is taken away.

    Source:
        Sensoy et al. 2018, arXiv:1806.01768, equations 4 and 5, with exponential evidence.
    """

    labels: NDArray[np.int64]
    n_classes: int
    held: float

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        """Classes that have a label with weight; the Dirichlet is over these."""
        return CrossEntropy(self.labels, self.n_classes).seen(weights_BN)

    def __call__(self, logits_BCN: F32, weights_BN: F32) -> tuple[F64, F32]:
        """The weighted sums, and their slopes in the logits."""
        items = np.arange(len(self.labels))
        present = self.seen(weights_BN.astype(np.float64))[:, :, None]
        wide = logits_BCN.astype(np.float64)
        evidence = np.exp(np.minimum(wide, MOST)) * present
        alpha = np.where(present, 1.0 + evidence, 0.0)
        sums = alpha.sum(axis=1)
        own = np.maximum(alpha[:, self.labels, items], 1.0)
        loss = psi(sums) - psi(own)
        slope = np.broadcast_to(trigamma(sums)[:, None, :], alpha.shape).copy()
        slope[:, self.labels, items] -= trigamma(own)
        if self.held > 0.0:
            others, other_slope = self._divergence(alpha, present)
            loss += self.held * others
            slope += self.held * other_slope
        slope *= evidence * (wide < MOST)
        slope *= weights_BN[:, None, :]
        return (weights_BN * loss).sum(axis=1, dtype=np.float64), slope.astype(np.float32)

    def _divergence(self, alpha: F64, present: NDArray[np.bool_]) -> tuple[F64, F64]:
        """``KL(Dir(alpha, 1 for the label) || Dir(1))`` and its slope in alpha."""
        items = np.arange(len(self.labels))
        rest = np.where(present, alpha, 1.0)
        rest[:, self.labels, items] = 1.0
        classes = present.sum(axis=1)
        extra = rest - 1.0
        sums = extra.sum(axis=1) + classes
        psi_sum = psi(sums)
        value = gammaln(sums) - gammaln(classes)
        value += (extra * (psi(rest) - psi_sum[:, None, :]) - gammaln(rest)).sum(axis=1)
        slope = extra * trigamma(rest) - ((sums - classes) * trigamma(sums))[:, None, :]
        slope[:, self.labels, items] = 0.0
        return value, slope


@dataclass(frozen=True)
class BinaryEvidence:
    """The same for several labels an image: a Beta, so a Dirichlet of two, for each of C questions.

    Every question has two logits, the logarithm of evidence for no and for yes: the first C of an
    image's 2 C are those for no.

    Attributes:
        labels: ``(N, C)`` bool.
        held: as `Evidence.held`.
    """

    labels: NDArray[np.bool_]
    held: float

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        """``(B, 2 C)``: both answers of the questions that have a yes and a no."""
        return np.tile(BinaryCrossEntropy(self.labels).seen(weights_BN), 2)

    def __call__(self, logits_BCN: F32, weights_BN: F32) -> tuple[F64, F32]:
        """Sums over the questions seen, and their slopes."""
        fits, _, count = logits_BCN.shape
        asked = BinaryCrossEntropy(self.labels).seen(weights_BN.astype(np.float64))
        answers = _Answers(self.labels.T.ravel().astype(np.int64), 2, self.held)
        weights = (weights_BN[:, None, :] * asked[:, :, None]).reshape(fits, -1)
        loss, slope = answers(logits_BCN.reshape(fits, 2, -1), weights)
        return loss, slope.reshape(fits, -1, count)


class _Answers(Evidence):
    """Questions as items with two classes, both of which are always possible."""

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        return np.ones((len(weights_BN), 2), bool)
