"""The protocol every uncertainty estimator follows, so that each is one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Estimator(Protocol):
    """A fitted estimator: K predictions an image from its cached features.

    How the K differ is epistemic, what each is unsure of is aleatoric.
    """

    @property
    def passes(self) -> int:
        """K."""

    def rows(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(N, D)`` features as `sample_rows` takes them: centred and of length 1."""

    def sample_rows(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(N, D)`` rows to probabilities ``(N, K, C)``; the same every time it is called."""

    def sample(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(N, D)`` features to probabilities ``(N, K, C)``: `sample_rows` of their `rows`."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything `EstimatorFamily.restore` needs, as plain arrays."""


@dataclass(frozen=True)
class Neighbours:
    """Label propagation beside a head, whatever its weight.

    Attributes:
        read: ``(N, D)`` rows to its probabilities ``(N, C)``.
        lead: log odds by which the head is right more often than it, out of fold.
    """

    read: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    lead: float


@dataclass(frozen=True)
class FittedEstimator:
    """What fitting gives.

    Attributes:
        estimator: fitted on all labels.
        out_of_fold: ``(N, K, C)`` probabilities of each label's image by estimators that have not
            seen that label: what calibration and metrics may use.
        facts: JSON-able facts worth showing, such as the regularisation chosen.
        neighbours: None where nothing was propagated.
        plain: ``(N, C)`` what logistic regressions on the same folds say out of fold; None where a
            family has none. See `model.label_errors.choices` for why it is wanted.
    """

    estimator: Estimator
    out_of_fold: NDArray[np.float64]
    facts: Mapping[str, float] = field(default_factory=dict)
    neighbours: Neighbours | None = None
    plain: NDArray[np.float64] | None = None


class EstimatorFamily(Protocol):
    """How an estimator of one kind is fitted and brought back from disk."""

    @property
    def passes(self) -> int:
        """K of every estimator it fits, known before anything is fitted."""

    @property
    def joint(self) -> bool:
        """Whether a pass is the same function for all images, so that a batch has joint doubts."""

    def fit(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int64] | NDArray[np.bool_],
        n_classes: int,
        *,
        centre: NDArray[np.float32],
        seed: int,
        progress: Callable[[float, str], None],
        weights: NDArray[np.float64] | None = None,
    ) -> FittedEstimator:
        """Fit on ``(N, D)`` features with labels in ``0..n_classes - 1``, N >= 2.

        Args:
            features: as they come from the cache.
            labels: ``(N,)``; a class may have no label at all. Or ``(N, C)`` bool where an image
                may have several classes: then probabilities are of independent yes-or-no
                questions and do not sum to 1.
            n_classes: number of classes of the project.
            centre: ``(D,)`` mean of the pool, which is subtracted first.
            seed: of everything random.
            progress: called with a share from 0 to 1 and what is being done.
            weights: ``(N,)`` above 0, how much each label counts; all alike without.
        """

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild what `Estimator.arrays` described."""
