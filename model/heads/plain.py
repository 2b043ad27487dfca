"""The plain head: what somebody would fit without thinking, and what ours is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.heads.softmax import F32, F64, Basis, Heads, fit_heads, normalise

PLAIN_BACKBONE = "efficientnet-lite2"
PLAIN_L2 = 0.05


@dataclass(frozen=True)
class PlainHead:
    """Multinomial logistic regression on centred features of length 1, nothing else.

    No class weights, no choice of the prior, no calibration: `fit` minimises the sum of
    cross-entropies plus ``0.05 / 2 * |W|^2``, intercepts free (scikit-learn's
    ``LogisticRegression(C=20)``).

    Attributes:
        weights: ``(D, C)``.
        biases: ``(C,)``; -1e9 for classes without a label.
        centre: ``(D,)``, subtracted before rows are scaled to length 1.
    """

    weights: F32
    biases: F32
    centre: F32

    @classmethod
    def fit(
        cls, features: F32, labels: NDArray[np.int64], n_classes: int, *, centre: F32
    ) -> PlainHead:
        """Fit on ``(N, D)`` features and ``(N,)`` labels, N >= 1."""
        basis = Basis.of(normalise(features, centre))
        heads = fit_heads(
            basis,
            labels,
            n_classes,
            weights_BN=np.ones((1, len(labels))),
            l2_B=np.array([PLAIN_L2]),
        )
        weights = (basis.axes @ heads.weights[0]).astype(np.float32)
        return cls(weights, heads.biases[0], centre)

    def probs(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, C)``, not calibrated."""
        heads = Heads(self.weights[None], self.biases[None])
        found: F64 = heads.probs(normalise(features, self.centre))[:, 0]
        return found
