"""The plain head that all strategies share: logistic regression with one fixed prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.heads.softmax import Basis, Heads, fit_heads
from model.types import Predictions
from model.uncertainty.measures import decompose, margin

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

L2 = 0.05
SAMPLES = 20
PRIOR_PRECISION = 1.0


@dataclass(frozen=True)
class PlainHead:
    """Logits ``rows @ weights + biases`` on rows that are centred and of length 1.

    Attributes:
        weights: ``(D, C)``.
        biases: ``(C,)``, -1e9 for a class without a label.
    """

    weights: F32
    biases: F32

    def probs(self, rows: F32) -> F64:
        """``(N, C)``."""
        return Heads(self.weights[None], self.biases[None]).probs(rows)[:, 0]


def fit_plain(rows: F32, labels: Ints, n_classes: int, l2: float = L2) -> PlainHead:
    """Minimise the sum of cross-entropies ``+ l2 / 2 * |W|^2``, intercepts free."""
    basis = Basis.of(rows)
    ones = np.ones((1, len(labels)))
    heads = fit_heads(basis, labels, n_classes, weights_BN=ones, l2_B=np.array([l2]))
    return PlainHead((basis.axes @ heads.weights[0]).astype(np.float32), heads.biases[0])


def posterior(head: PlainHead, rows: F32, *, seed: int, samples: int = SAMPLES) -> tuple[F32, F32]:
    """Joint samples of the head's last-layer Laplace posterior, Kronecker-factored.

    Precision ``N A x B + tau``: A the mean outer product of the labelled rows (with a 1 for the
    intercept), B the mean of ``diag(p) - p p'``, tau = 1. Outside the span of the rows, what is
    left is the prior.

    Args:
        head: fitted on `rows`.
        rows: ``(N, D)``, the labelled ones.
        seed: of the draws.
        samples: K.

    Returns:
        Weights ``(K, D, C)`` and intercepts ``(K, C)``; unseen classes stay impossible.

    Source:
        Ritter et al. 2018 (Kronecker-factored Laplace); Daxberger et al. 2021, arXiv:2106.14806.
    """
    rng = np.random.default_rng(seed)
    wide = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
    basis = Basis.of(wide)
    probs = head.probs(rows)
    curvature_CC = np.diag(probs.mean(axis=0)) - probs.T @ probs / len(rows)
    across, axes_CC = np.linalg.eigh(curvature_CC)
    precision_RC = basis.scale[:, None] ** 2 * np.maximum(across, 0.0) + PRIOR_PRECISION
    shrink_RC = 1.0 / np.sqrt(precision_RC) - 1.0 / np.sqrt(PRIOR_PRECISION)
    axes_DR = basis.axes.astype(np.float32)
    moved = np.empty((samples, wide.shape[1], len(head.biases)), np.float32)
    for k in range(samples):
        drawn = rng.standard_normal(moved.shape[1:]).astype(np.float32) @ axes_CC
        inside = axes_DR @ (shrink_RC * (axes_DR.T @ drawn))
        moved[k] = (drawn / np.sqrt(PRIOR_PRECISION) + inside) @ axes_CC.T
    return head.weights + moved[:, :-1], head.biases + moved[:, -1]


def sampler(head: PlainHead, rows: F32, *, seed: int) -> Callable[[F32], F64]:
    """Samples of `posterior`, drawn when first asked: ``(N, D)`` rows to ``(N, K, C)``."""
    drawn: list[Heads] = []

    def sample(asked: F32) -> F64:
        if not drawn:
            drawn.append(Heads(*posterior(head, rows, seed=seed)))
        return drawn[0].probs(asked)

    return sample


def as_predictions(probs: F64, passes: F64 | None = None) -> Predictions:
    """What the project's own rules are given: plain probabilities, nothing calibrated.

    Args:
        probs: ``(N, C)``.
        passes: ``(N, K, C)`` for the parts of uncertainty; one pass without.
    """
    label = probs.argmax(axis=1).astype(np.int64)
    total, aleatoric, epistemic = decompose(probs[:, None] if passes is None else passes)
    return Predictions(
        probs=probs,
        label=label,
        p_right=probs.max(axis=1),
        margin=margin(probs),
        total=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
    )
