"""The plain head: what somebody would fit without thinking, and what ours is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model.heads.problem import Labels
from model.heads.sigmoid import BinaryCrossEntropy
from model.heads.softmax import F32, F64, Basis, Heads, Search, fit_heads, normalise

PLAIN_BACKBONE = "efficientnet-lite2"
PLAIN_L2 = 0.05
MULTI_LABEL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class PlainHead:
    """Multinomial logistic regression on centred features of length 1, nothing else.

    Where an image may have several classes, one logistic regression a class.

    No class weights, no choice of the prior, no calibration: `fit` minimises the sum of
    cross-entropies plus ``0.05 / 2 * |W|^2``, intercepts free (scikit-learn's
    ``LogisticRegression(C=20)``).

    Attributes:
        weights: ``(D, C)``.
        biases: ``(C,)``; -1e9 for classes without a label, 1e9 for those that all images have
            where an image may have several.
        centre: ``(D,)``, subtracted before rows are scaled to length 1.
        multi_label: whether an image may have several classes.
    """

    weights: F32
    biases: F32
    centre: F32
    multi_label: bool = False

    @classmethod
    def fit(cls, features: F32, labels: Labels, n_classes: int, *, centre: F32) -> PlainHead:
        """Fit on ``(N, D)`` features and ``(N,)`` labels, or ``(N, C)`` bool, N >= 1."""
        basis = Basis.of(normalise(features, centre))
        ones, l2 = np.ones((1, len(labels))), np.array([PLAIN_L2])
        if labels.ndim == 2:
            yes = labels.astype(bool)
            heads = Search(basis, BinaryCrossEntropy(yes), ones, l2).run(MULTI_LABEL_TOLERANCE)
            heads.biases[0, yes.all(axis=0)] *= -1.0
        else:
            numbers = labels.astype(np.int64, copy=False)
            heads = fit_heads(basis, numbers, n_classes, weights_BN=ones, l2_B=l2)
        weights = (basis.axes @ heads.weights[0]).astype(np.float32)
        return cls(weights, heads.biases[0], centre, labels.ndim == 2)

    def probs(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, C)``, not calibrated."""
        heads = Heads(self.weights[None], self.biases[None])
        rows = normalise(features, self.centre)
        found: F64 = (expit(heads.logits(rows)) if self.multi_label else heads.probs(rows))[:, 0]
        return found

    def guess(self, features: F32) -> NDArray[np.int64] | NDArray[np.bool_]:
        """``(N,)`` classes, or ``(N, C)`` which of them are more probable than not."""
        probs = self.probs(features)
        return probs > 0.5 if self.multi_label else probs.argmax(axis=1)
