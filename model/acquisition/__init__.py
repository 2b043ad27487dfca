"""What to label next, by name.

Every rule is a pure function of arrays: it neither trains nor loads anything. A new one is a new
file and one `register` line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.acquisition.automatic import auto
from model.acquisition.badge import badge
from model.acquisition.base import Acquisition, Needs, Pool, Rule, Sample, Selection
from model.acquisition.clustered import margin_cluster
from model.acquisition.coreset import coreset
from model.acquisition.disagreement import bald, batch_bald
from model.acquisition.dropquery import dropquery
from model.acquisition.epig import epig
from model.acquisition.herding import uncertainty_herding
from model.acquisition.power import power_bald, power_entropy, power_margin
from model.acquisition.probcover import probcover
from model.acquisition.simple import by_entropy, by_least_confidence, by_margin, uniform
from model.acquisition.typical import typical
from model.acquisition.variance import variance_reduction
from model.checks import check_features
from model.errors import NeedsError, ShapeError
from model.registry import Registry
from model.types import Predictions

__all__ = [
    "ACQUISITIONS",
    "Acquisition",
    "Needs",
    "Pool",
    "Rule",
    "Sample",
    "Selection",
    "require",
    "select",
]

ACQUISITIONS: Registry[Acquisition] = Registry("acquisition")
ACQUISITIONS.register("auto")(Acquisition(auto))  # why: docs/adr/acquisition.md
ACQUISITIONS.register("v-optimal")(Acquisition(variance_reduction))
ACQUISITIONS.register("herding")(Acquisition(uncertainty_herding))
ACQUISITIONS.register("random")(Acquisition(uniform))
ACQUISITIONS.register("typical")(Acquisition(typical))
ACQUISITIONS.register("probcover")(Acquisition(probcover))
ACQUISITIONS.register("coreset")(Acquisition(coreset))
ACQUISITIONS.register("entropy")(Acquisition(by_entropy, Needs.PREDICTIONS))
ACQUISITIONS.register("least-confidence")(Acquisition(by_least_confidence, Needs.PREDICTIONS))
ACQUISITIONS.register("margin")(Acquisition(by_margin, Needs.PREDICTIONS))
ACQUISITIONS.register("margin-cluster")(Acquisition(margin_cluster, Needs.PREDICTIONS))
ACQUISITIONS.register("badge")(Acquisition(badge, Needs.PREDICTIONS))
ACQUISITIONS.register("power-margin")(Acquisition(power_margin, Needs.PREDICTIONS))
ACQUISITIONS.register("power-entropy")(Acquisition(power_entropy, Needs.PREDICTIONS))
ACQUISITIONS.register("dropquery")(Acquisition(dropquery, Needs.PASSES))
ACQUISITIONS.register("bald")(Acquisition(bald, Needs.DISAGREEMENT))
ACQUISITIONS.register("power-bald")(Acquisition(power_bald, Needs.DISAGREEMENT))
ACQUISITIONS.register("batchbald")(Acquisition(batch_bald, Needs.JOINT))
ACQUISITIONS.register("epig")(Acquisition(epig, Needs.JOINT))


def require(name: str, *, passes: int, joint: bool = True) -> None:
    """Refuse a rule that an estimator's passes cannot feed, before anything is trained.

    Args:
        name: one of `ACQUISITIONS`.
        passes: K of the estimator that will be used.
        joint: whether each of them is the same function for all images.

    Raises:
        UnknownNameError: no rule has that name.
        NeedsError: the rule lives from disagreement, and a single pass cannot disagree with itself;
            or from what a pass says of several images, and these passes are made for each anew.
    """
    if ACQUISITIONS[name].needs >= Needs.DISAGREEMENT and passes < 2:
        raise NeedsError(
            f"acquisition '{name}' compares passes and the estimator makes {passes}; "
            "choose an estimator with more, or 'margin' or 'auto'"
        )
    if ACQUISITIONS[name].needs >= Needs.JOINT and not joint:
        raise NeedsError(
            f"acquisition '{name}' compares what a pass says of several images, and this "
            "estimator's passes are made for each image anew; choose the estimator 'softmax', "
            "'mc-dropout', 'ensemble' or 'laplace', or the acquisition 'bald' or 'auto'"
        )


def select(
    name: str,
    *,
    pool: NDArray[np.float32],
    n: int,
    labelled: NDArray[np.float32] | None = None,
    label_counts: NDArray[np.int64] | None = None,
    predictions: Predictions | None = None,
    sample: Sample | None = None,
    seed: int = 0,
) -> Selection:
    """Choose items of the pool, in the order in which they should be labelled.

    Args:
        name: one of `ACQUISITIONS`.
        pool: ``(M, D)`` features of the items without labels.
        n: how many are wanted.
        labelled: ``(L, D)`` features of the items with labels.
        label_counts: ``(C,)`` labels of each class so far.
        predictions: of the live version for the pool, ``M`` of them; rules that need them choose
            typical points without.
        sample: the live version's `Estimator.sample`, for the rules whose `needs` are passes.
        seed: of everything random.

    Returns:
        ``min(n, M)`` distinct indices into `pool`, and how probable each draw was.

    Raises:
        UnknownNameError: no rule has that name.
        ShapeError: the arrays do not belong together.
        NeedsError: there is a version, but its passes are missing or too few for this rule.
        ModelError: a feature is not finite, or beyond 1e15.
    """
    rule = ACQUISITIONS[name]
    _check(pool, labelled, predictions)
    n = min(n, len(pool))
    if n <= 0:
        return Selection(np.zeros(0, np.int64))
    if predictions is None and rule.needs >= Needs.PREDICTIONS:
        rule = ACQUISITIONS["typical"]
    if rule.needs >= Needs.PASSES:
        if sample is None:
            raise NeedsError(f"acquisition '{name}' asks the version for passes; give `sample`")
        require(name, passes=sample(pool[:1]).shape[1])
    has_labelled = labelled is not None and labelled.size > 0
    given = Pool(pool, labelled if has_labelled else None, label_counts, predictions, sample)
    check_features(pool, "features")
    check_features(given.known, "labelled features")
    return rule.choose(given, n, seed=seed)


def _check(
    pool: NDArray[np.float32],
    labelled: NDArray[np.float32] | None,
    predictions: Predictions | None,
) -> None:
    if pool.ndim != 2:
        raise ShapeError("pool", expected="(M, D)", got=pool.shape)
    if labelled is not None and labelled.size and labelled.shape[1:] != pool.shape[1:]:
        raise ShapeError("labelled", expected=f"(L, {pool.shape[1]})", got=labelled.shape)
    if predictions is not None and len(predictions) != len(pool):
        raise ShapeError("predictions", expected=f"({len(pool)},)", got=predictions.label.shape)
