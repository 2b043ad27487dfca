"""Independent yes-or-no questions, one a class: the loss for several labels an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.heads.softmax import F32, F64


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Of C answers an image.

    Attributes:
        labels: ``(N, C)`` bool.
    """

    labels: NDArray[np.bool_]

    def seen(self, weights_BN: F64) -> NDArray[np.bool_]:
        """Classes with a yes and a no among the labels with weight."""
        kept = weights_BN > 0
        return (kept.astype(float) @ self.labels > 0) & (kept.astype(float) @ ~self.labels > 0)

    def __call__(self, logits_BCN: F32, weights_BN: F32) -> tuple[F64, F32]:
        """Sums of weighted cross-entropies over the classes seen, and their slopes."""
        present = self.seen(weights_BN.astype(np.float64))[:, :, None]
        truth = self.labels.T.astype(np.float32)
        logits = np.where(present, logits_BCN, np.float32(0))
        small = np.exp(-np.abs(logits))
        loss = np.maximum(logits, 0) - logits * truth + np.log1p(small)
        slope = np.where(logits >= 0, 1, small) / (1 + small) - truth
        weights = weights_BN[:, None, :] * present
        slope = (slope * weights).astype(np.float32)
        return (loss * weights).sum(axis=(1, 2), dtype=np.float64), slope
