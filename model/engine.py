"""Labels in, a calibrated version out: the one way the rest of the program fits models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import mean_row
from model.bundle import Bundle
from model.calibration.base import OutOfFold, Rest
from model.calibration.choose import SIMPLEST, Published, choose_calibrator
from model.calibration.families import CALIBRATORS
from model.calibration.metrics import brier, judged, macro_f1, nll
from model.calibration.sets import PublishedSets, calibrate_sets
from model.checks import check_features
from model.errors import ModelError, NotEnoughLabelsError, ShapeError, UnknownNameError
from model.heads.propagated import passes_and_agreement, propagated, unlabelled
from model.heads.roots import mean_root, roots_help, signed_root
from model.types import Labelled, agree, label_counts
from model.uncertainty import DEFAULT_ESTIMATOR, ESTIMATORS
from model.uncertainty.base import FittedEstimator

MIN_LABELS = 2
MOST_CONFUSIONS = 20
REST_ROWS = 1_000  # of the pool: enough for a mean, and a twentieth of a second
PROPAGATION = ("auto", "off")
ACCURACY, SUBSET_ACCURACY = "accuracy", "subset accuracy"

Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What an engineer may choose by name.

    Attributes:
        estimator: one of `model.uncertainty.ESTIMATORS`.
        acquisition: one of `model.acquisition.ACQUISITIONS`.
        propagation: one of `PROPAGATION`. ``auto`` mixes in what the neighbours in the pool are
            labelled, as much as out-of-fold labels speak for it; ``off`` never does, and neither
            is it done where an image may have several classes.
        calibrator: one of `model.calibration.families.CALIBRATORS`, or ``auto``, which picks it by
            the labels at hand (`model.calibration.choose.choose_calibrator`); for several classes
            an image see `model.calibration.sets.calibrate_sets`.
        at_least_one: where an image may have several classes: none of them is no answer.
        seed: of everything random.
    """

    estimator: str = DEFAULT_ESTIMATOR
    acquisition: str = "auto"
    propagation: str = "auto"
    calibrator: str = "auto"
    at_least_one: bool = False
    seed: int = 0


def _silent(share: float, what: str) -> None:
    del share, what


def fit(
    data: Labelled,
    classes: Sequence[str],
    *,
    pool: NDArray[np.float32] | None = None,
    config: EngineConfig | None = None,
    progress: Progress = _silent,
) -> Bundle:
    """Fit, calibrate and measure one version.

    Everything measured is out of fold: no label is predicted by a head that was fitted on it.

    Args:
        data: the labels.
        classes: all classes of the project, also those without labels.
        pool: ``(M, D)`` features of all images, for centring and label propagation; the labelled
            ones serve for the first without, and the second is left out.
        config: the choices; the defaults without.
        progress: called with a share from 0 to 1 and what is being done.

    Returns:
        A version whose `metrics` hold: ``n_labels``, ``n_random``, ``class_counts``,
        ``oof_accuracy`` (all labels: pessimistic when they were chosen for being doubtful),
        ``random_accuracy`` with ``random_accuracy_interval`` (95 %, on the random share, None
        without one), ``ece``, ``brier``, ``nll``, ``error_auroc`` (None when nothing or everything
        is wrong) with ``random_ece`` on the random share, ``calibrator``, ``l2``, ``propagation``
        (its weight, 0 to 0.85), ``agreement`` (how often it and the head name one class, None
        where it is unknown), ``roots`` (whether of the features), ``seconds``.
        Where an image may have several classes all of these are about whole sets, so ``accuracy``
        is subset accuracy (``metric`` says which it is), and ``macro_f1`` is the mean over the
        classes that occur of the F1 score out of fold.
        Where an image has one class, ``confusions`` are the pairs of classes mixed up most.
        With labels of one class only it predicts that class, and says how little it knows.

    Raises:
        NotEnoughLabelsError: fewer than 2 labels.
        ShapeError: arrays that do not belong together.
        ModelError: a label outside the classes, features that are not finite or beyond 1e15, or
            weights that are not finite and above 0.
        UnknownNameError: no estimator has that name, or no way to propagate.
    """
    config = config or EngineConfig()
    begin = time.perf_counter()
    _check(data, classes, pool)
    family = ESTIMATORS[config.estimator]
    if config.propagation not in PROPAGATION:
        raise UnknownNameError("propagation", config.propagation, PROPAGATION)
    everything = data.features if pool is None or not len(pool) else pool
    check_features(everything, "features of the pool")
    centre = mean_row(everything)
    root_centre = mean_root(everything)
    roots = roots_help(
        data.features,
        data.labels,
        len(classes),
        centre=centre,
        root_centre=root_centre,
        seed=config.seed,
    )
    centre = root_centre if roots else centre
    fitted = family.fit(
        signed_root(data.features) if roots else data.features,
        data.labels,
        len(classes),
        centre=centre,
        seed=config.seed,
        progress=progress,
        weights=data.weights,
    )
    progress(0.8, "propagating")
    if pool is not None and config.propagation == "auto" and data.labels.ndim == 1:
        fitted = propagated(
            fitted,
            data.features,
            data.labels.astype(np.int64, copy=False),
            len(classes),
            pool=pool,
            centre=centre,
            seed=config.seed,
            roots=roots,
        )
    progress(0.9, "calibrating")
    mean = fitted.out_of_fold.mean(axis=1)
    published = _calibrated(
        mean, data, config, lambda: rest_of_pool(fitted, data, everything, roots, config.seed)
    )
    probs, p_right = published.probs(mean), published.p_right(mean)
    said = published.decide(probs)
    right = agree(said, data.labels)
    metrics = _measure(data, classes, probs, right, p_right)
    if data.labels.ndim == 2:
        metrics["macro_f1"] = macro_f1(said.astype(bool), data.labels.astype(bool))
    else:
        metrics["confusions"] = confusions(data.labels, said, classes)
    metrics |= {"propagation": 0.0, "roots": roots, **fitted.facts, **published.facts}
    metrics["seconds"] = time.perf_counter() - begin
    progress(1.0, "fitted")
    return Bundle(
        classes=tuple(classes),
        estimator_name=config.estimator,
        estimator=fitted.estimator,
        published=published,
        dim=data.features.shape[1],
        roots=roots,
        metrics=metrics,
        out_of_fold_right=right,
        out_of_fold_p_right=p_right,
        out_of_fold_probs=_evenly_calibrated(mean, data, published),
        out_of_fold_plain=_plain(fitted, data, published),
    )


def _calibrated(
    mean: NDArray[np.float64], data: Labelled, config: EngineConfig, rest: Callable[[], Rest]
) -> Published | PublishedSets:
    if data.labels.ndim == 2:
        return calibrate_sets(
            mean,
            data.labels.astype(bool),
            data.random,
            name=config.calibrator,
            at_least_one=config.at_least_one,
        )
    labels = data.labels.astype(np.int64, copy=False)
    evidence = OutOfFold.of(mean, labels, data.random, rest=rest())
    return choose_calibrator(evidence, name=config.calibrator, seed=config.seed)


def _evenly_calibrated(
    mean: NDArray[np.float64], data: Labelled, published: Published | PublishedSets
) -> NDArray[np.float64]:
    """``(N, C)`` with one temperature, whatever calibrates what is published.

    Most calibrators move the largest probability and divide the rest; after that it no longer
    shows how improbable the given label was, and label errors are found less well. Where an image
    may have several classes it is the published probability of each.
    """
    if data.labels.ndim == 2:
        return published.probs(mean)
    evidence = OutOfFold.of(mean, data.labels.astype(np.int64, copy=False), data.random)
    return CALIBRATORS[SIMPLEST].fit(evidence).probs(mean)


def _plain(
    fitted: FittedEstimator, data: Labelled, published: Published | PublishedSets
) -> NDArray[np.float64] | None:
    if fitted.plain is None or data.labels.ndim == 2:
        return None
    return _evenly_calibrated(fitted.plain, data, published)


def rest_of_pool(
    fitted: FittedEstimator, data: Labelled, pool: NDArray[np.float32], roots: bool, seed: int
) -> Rest:
    """What the fitted estimator says of a sample of the pool's unlabelled images."""
    chosen = np.random.default_rng(seed).permutation(len(pool))[:REST_ROWS]
    new = chosen[unlabelled(pool[chosen], data.features)]
    count = len(pool) * len(new) / len(chosen)
    sample = pool[np.sort(new)]
    rows = fitted.estimator.rows(signed_root(sample) if roots else sample)
    passes, agreement = passes_and_agreement(fitted, rows)
    return Rest(passes.mean(axis=1), count, agreement)


def confusions(
    labels: NDArray[Any], said: NDArray[Any], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Which class is predicted for which, out of fold: at most 20 pairs, the most frequent first.

    Args:
        labels: ``(N,)`` int64.
        said: ``(N,)`` int64.
        classes: their names.

    Example:
        >>> confusions(np.array([0, 0, 1]), np.array([1, 1, 1]), ("cat", "dog"))
        [{'label': 'cat', 'said': 'dog', 'count': 2}]
    """
    wrong = labels != said
    pairs, counts = np.unique(
        np.stack([labels[wrong], said[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:MOST_CONFUSIONS]
    return [
        {"label": classes[a], "said": classes[b], "count": int(n)}
        for (a, b), n in zip(pairs[order].tolist(), counts[order], strict=True)
    ]


def _measure(
    data: Labelled,
    classes: Sequence[str],
    probs: NDArray[np.float64],
    right: NDArray[np.bool_],
    p_right: NDArray[np.float64],
) -> dict[str, Any]:
    counts = label_counts(data.labels, len(classes))
    return {
        "metric": ACCURACY if data.labels.ndim == 1 else SUBSET_ACCURACY,
        "n_labels": len(data.labels),
        "class_counts": {name: int(n) for name, n in zip(classes, counts, strict=True)},
        **judged(right, p_right, data.random),
        "brier": brier(probs, data.labels),
        "nll": nll(probs, data.labels),
    }


def _check(data: Labelled, classes: Sequence[str], pool: NDArray[np.float32] | None) -> None:
    features, labels = data.features, data.labels
    if labels.ndim not in (1, 2):
        raise ShapeError("labels", expected="(N,) or (N, C)", got=labels.shape)
    if features.ndim != 2 or len(features) != len(labels):
        raise ShapeError("features", expected=f"({len(labels)}, D)", got=features.shape)
    if data.random.shape != labels.shape[:1]:
        raise ShapeError("random", expected=str(labels.shape[:1]), got=data.random.shape)
    if data.weights is not None:
        if data.weights.shape != labels.shape[:1]:
            raise ShapeError("weights", expected=str(labels.shape[:1]), got=data.weights.shape)
        if not np.isfinite(data.weights).all() or (data.weights <= 0.0).any():
            raise ModelError("weights of labels have to be finite and above 0; leave labels out")
    if len(labels) < MIN_LABELS:
        raise NotEnoughLabelsError(
            f"{len(labels)} labels are too few to fit anything; label at least {MIN_LABELS} images"
        )
    if pool is not None and len(pool) and pool.shape[1:] != features.shape[1:]:
        raise ShapeError("pool", expected=f"(M, {features.shape[1]})", got=pool.shape)
    if len(set(classes)) != len(classes):
        raise ModelError(f"a class is named twice among {list(classes)}")
    if labels.ndim == 2:
        _check_sets(labels, classes)
    elif labels.min() < 0 or labels.max() >= len(classes):
        raise ModelError(
            f"label {int(labels.max() if labels.min() >= 0 else labels.min())} is outside the "
            f"{len(classes)} classes"
        )
    check_features(features, "features")


def _check_sets(labels: NDArray[Any], classes: Sequence[str]) -> None:
    if not len(classes):
        raise ModelError("there is no class to predict; name at least one")
    if labels.shape[1] != len(classes):
        raise ShapeError("labels", expected=f"(N, {len(classes)})", got=labels.shape)
    if labels.dtype != np.bool_:
        raise ModelError(
            f"labels of several classes an image are {labels.dtype}; give bool, True where an "
            "image has the class"
        )
