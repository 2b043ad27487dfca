"""Label propagation beside any estimator: fitted, weighed out of fold, stored with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.base import Agreement, logit
from model.calibration.temperature import fit_temperature, fold_weights, soften
from model.heads.problem import fold_count, stratified_folds
from model.heads.propagation import (
    F32,
    F64,
    READ_NEIGHBOURS,
    Ints,
    knn_graph,
    nearest,
    principal_axes,
    project,
    propagate,
    read_out,
)
from model.heads.roots import signed_root
from model.heads.softmax import normalise
from model.uncertainty.base import Estimator, EstimatorFamily, FittedEstimator, Neighbours

WEIGHTS = (0.0, 0.15, 0.3, 0.5)
LARGE_WEIGHTS = (0.5, 0.7, 0.85)  # looked at where the largest of the others is chosen
DIMENSIONS = 128  # twice as many see no more, and an image would take a fifth longer
MOST_ANCHORS = 10_000
MOST_LABELS = 2_000  # from here on a head knows better than the neighbours, and each costs time
SMOOTHING = 0.1  # of the mean mass: what an image far from all labels keeps of not knowing
BALANCE = 0.5
CAUTION = 1.0
_COLUMNS = 256
_PREFIX = "propagation."
_SIGNATURE = 64


@dataclass(frozen=True)
class ReadOut:
    """What arrived at the pool's images, and how a new image finds its neighbours among them.

    Attributes:
        axes: ``(D, d)`` directions in which neighbours are looked for.
        anchors: ``(M, d)`` rows of length 1; in memory column by column, which is a fifth faster
            to compare with one image.
        values: ``(M, C)`` what arrived at each anchor; 0 for classes without a label.
        seen: ``(C,)`` bool, classes with labels.
        floor: mass that is shared evenly by the classes with labels, so that little means little.
    """

    axes: F32
    anchors: F32
    values: F32
    seen: NDArray[np.bool_]
    floor: float

    def __call__(self, rows: F32) -> F64:
        """``(N, D)`` rows, centred and of length 1, to probabilities ``(N, C)``."""
        short = project(rows, self.axes)
        values = read_out(*nearest(short, self.anchors, READ_NEIGHBOURS), self.values)
        return to_probs(values, self._even)

    @cached_property
    def _even(self) -> F64:
        return evenly(self.floor, self.seen)


def evenly(floor: float, seen: NDArray[np.bool_]) -> F64:
    """``(C,)`` even parts of `floor` for the classes with labels, 0 for the others."""
    each = max(floor, 1e-12) / max(int(seen.sum()), 1)
    return seen.astype(np.float64) * each


def to_probs(values_NC: F32, even_C: F64) -> F64:
    """Masses to probabilities, with an even mass of every class with labels added.

    Example:
        >>> even = evenly(1.0, np.array([True, True, False]))
        >>> to_probs(np.array([[3.0, 0.0, 0.0]], np.float32), even)
        array([[0.875, 0.125, 0.   ]])
    """
    masses = values_NC.astype(np.float64) + even_C
    probs: F64 = masses / masses.sum(axis=1, keepdims=True)
    return probs


def mix(passes_NKC: F64, probs_NC: F64, weight: float) -> F64:
    """Geometric mean of every pass and the propagated probabilities.

    ``softmax((1 - weight) log P_pass + weight log P)``. Classes that propagation cannot know, those
    without a label, keep the share that the pass gives them.

    Args:
        passes_NKC: ``(N, K, C)``.
        probs_NC: ``(N, C)``, 0 for classes without a label.
        weight: 0 gives the passes back.
    """
    if weight == 0.0:
        return passes_NKC
    other = probs_NC[:, None, :]
    known = other > 0
    kept = passes_NKC * known
    mixed = kept ** (1.0 - weight) * other**weight
    share = kept.sum(axis=2, keepdims=True)
    total = mixed.sum(axis=2, keepdims=True)
    scale = share / np.maximum(total, 1e-300)
    result: F64 = np.where(known & (total > 0), mixed * scale, passes_NKC)
    return result


@dataclass(frozen=True)
class PropagatedEstimator:
    """Any estimator, each of its passes mixed with what was read out of the same rows."""

    head: Estimator
    weight: float
    reading: ReadOut

    @property
    def passes(self) -> int:
        """K of the head."""
        return self.head.passes

    def rows(self, features: F32) -> F32:
        """``(N, D)`` features as the head takes them."""
        return self.head.rows(features)

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, K, C)``."""
        return mix(self.head.sample_rows(rows), self.reading(rows), self.weight)

    def sample(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, K, C)``."""
        return self.sample_rows(self.rows(features))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The head's arrays under their own names, and this one's."""
        own: dict[str, NDArray[Any]] = {
            "axes": self.reading.axes,
            "anchors": self.reading.anchors,
            "values": self.reading.values,
            "seen": self.reading.seen.astype(np.uint8),
            "scalars": np.array([self.weight, self.reading.floor]),
        }
        return self.head.arrays() | {_PREFIX + name: array for name, array in own.items()}


def restore(family: EstimatorFamily, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
    """Rebuild an estimator of `family`, with propagation where it was stored with it."""
    own = {k.removeprefix(_PREFIX): v for k, v in arrays.items() if k.startswith(_PREFIX)}
    head = family.restore({k: v for k, v in arrays.items() if not k.startswith(_PREFIX)})
    if not own:
        return head
    weight, floor = own["scalars"].tolist()
    reading = ReadOut(
        own["axes"],
        np.asfortranarray(own["anchors"]),
        own["values"],
        own["seen"].astype(bool),
        floor,
    )
    return PropagatedEstimator(head, weight, reading)


@dataclass(frozen=True)
class Flow:
    """How much of each label's seed arrives where: linear, so every fold is a choice of columns.

    Attributes:
        to_labels: ``(L, L)`` what image i reads of a seed at label j.
        to_pool: ``(L,)`` the mean of what the anchors have of it.
    """

    to_labels: F32
    to_pool: F32


def held_out(flow: Flow, labels: Ints, n_classes: int, fold: Ints) -> F64:
    """Probabilities ``(L, C)`` of each label's image when its whole fold had no label.

    Nothing of a held-out label is used: not in the graph, not in the balance of the classes.
    """
    probs = np.empty((len(labels), n_classes))
    for f in np.unique(fold):
        out, kept = fold == f, fold != f
        seeds = seeds_of(labels[kept], n_classes)
        floor = SMOOTHING * float(flow.to_pool[kept] @ seeds.sum(axis=1))
        even = evenly(floor, seeds.max(axis=0, initial=0.0) > 0)
        probs[out] = to_probs(flow.to_labels[np.ix_(out, kept)] @ seeds, even)
    return probs


def seeds_of(labels: Ints, n_classes: int) -> F32:
    """``(L, C)``: each label in its class's column, as its class's count to the power of -1/2."""
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    seeds = np.zeros((len(labels), n_classes), np.float32)
    seeds[np.arange(len(labels)), labels] = counts[labels] ** -BALANCE
    return seeds


def propagated(
    fitted: FittedEstimator,
    features: F32,
    labels: Ints,
    n_classes: int,
    *,
    pool: F32,
    centre: F32,
    seed: int,
    roots: bool = False,
) -> FittedEstimator:
    """Add propagation to a fitted estimator, as far as out-of-fold labels speak for it.

    Args:
        fitted: of any family.
        features: ``(L, D)`` of the labels.
        labels: ``(L,)``.
        n_classes: C.
        pool: ``(M, D)`` of all images; the labelled ones may be among them.
        centre: ``(D,)`` the pool's mean.
        roots: the estimator is given the roots of features and pool, and `centre` is theirs.
        seed: of the folds, and of the sample when the pool has more than 10,000 images.

    Returns:
        The same estimator, with the weight 0 among its facts, when nothing is gained; `neighbours`
        is there in any case. The same without a look with more than 2,000 labels, labels of one
        class, or an empty pool.
    """
    if len(labels) > MOST_LABELS or len(np.unique(labels)) < 2 or not len(pool):
        return fitted
    rng = np.random.default_rng(seed)
    flow, reading = spread(
        features, labels, n_classes, pool=pool, centre=centre, rng=rng, roots=roots
    )
    fold = stratified_folds(labels, fold_count(len(labels)), rng)
    probs = held_out(flow, labels, n_classes, fold)
    weight = choose_weight(fitted.out_of_fold, probs, labels)
    facts = {**fitted.facts, "propagation": weight}
    neighbours = Neighbours(reading, lead_of(fitted.out_of_fold, probs, labels))
    plain = fitted.plain
    if plain is not None:
        one_pass = plain[:, None]
        plain = mix(one_pass, probs, choose_weight(one_pass, probs, labels))[:, 0]
    found = replace(fitted, plain=plain, facts=facts, neighbours=neighbours)
    if weight == 0.0:
        return found
    return replace(
        found,
        estimator=PropagatedEstimator(fitted.estimator, weight, reading),
        out_of_fold=mix(fitted.out_of_fold, probs, weight),
    )


def lead_of(out_of_fold_NKC: F64, probs_NC: F64, labels: Ints) -> float:
    """Log odds by which the passes are right more often than propagation, held-out labels both.

    Labels count as in calibration, and one each way is added.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> right = np.eye(2)[labels]
        >>> round(lead_of(right[:, None], right[[0, 2, 3, 3]], labels), 2)
        0.11
    """
    weights = fold_weights(labels)

    def log_odds(probs: F64) -> float:
        right = weights @ (probs.argmax(axis=1) == labels) + 1.0
        return float(logit(right / (weights.sum() + 2.0)))

    return log_odds(out_of_fold_NKC.mean(axis=1)) - log_odds(probs_NC)


def passes_and_agreement(fitted: FittedEstimator, rows: F32) -> tuple[F64, Agreement | None]:
    """What an estimator says of rows, and how often its head and the neighbours name one class.

    Args:
        fitted: with or without propagation.
        rows: ``(N, D)`` of its estimator's `rows`.

    Returns:
        The passes ``(N, K, C)``, and the agreement; None of no rows, or where nothing was
        propagated.
    """
    estimator, neighbours = fitted.estimator, fitted.neighbours
    if neighbours is None or not len(rows):
        return estimator.sample_rows(rows), None
    head, weight = estimator, 0.0
    if isinstance(estimator, PropagatedEstimator):
        head, weight = estimator.head, estimator.weight
    passes = head.sample_rows(rows)
    read = neighbours.read(rows)
    same = passes.mean(axis=1).argmax(axis=1) == read.argmax(axis=1)
    return mix(passes, read, weight), Agreement(float(same.mean()), neighbours.lead)


def spread(
    features: F32,
    labels: Ints,
    n_classes: int,
    *,
    pool: F32,
    centre: F32,
    rng: np.random.Generator,
    roots: bool = False,
) -> tuple[Flow, ReadOut]:
    """Build the graph over labels and pool, and let every label flow through it on its own."""
    count = len(labels)
    rows = np.concatenate([features, _others(features, pool, rng)])
    rows = normalise(signed_root(rows) if roots else rows, centre)
    axes = principal_axes(rows, DIMENSIONS, rng)
    anchors = project(rows, axes)
    graph = knn_graph(anchors)
    index, cosine = nearest(anchors[:count], anchors, READ_NEIGHBOURS + 1)
    cosine[index == np.arange(count)[:, None]] = 0.0  # as a new image, which is in no graph
    seeds = seeds_of(labels, n_classes)
    values = np.zeros((len(anchors), n_classes), np.float32)
    to_labels = np.empty((count, count), np.float32)
    to_pool = np.empty(count, np.float32)
    for start in range(0, count, _COLUMNS):
        stop = min(start + _COLUMNS, count)
        unit = np.zeros((len(anchors), stop - start), np.float32)
        unit[np.arange(start, stop), np.arange(stop - start)] = 1.0
        flowed = propagate(graph, unit)
        to_labels[:, start:stop] = read_out(index, cosine, flowed)
        to_pool[start:stop] = flowed.mean(axis=0)
        values += flowed @ seeds[start:stop]
    floor = SMOOTHING * float(to_pool @ seeds.sum(axis=1))
    reading = ReadOut(axes, np.asfortranarray(anchors), values, seeds.max(axis=0) > 0, floor)
    return Flow(to_labels, to_pool), reading


def _others(features: F32, pool: F32, rng: np.random.Generator) -> F32:
    """A sample of the pool without the labelled images."""
    room = max(MOST_ANCHORS - len(features), 0)
    order = rng.permutation(len(pool))[: room + len(features)]
    rest = order[unlabelled(pool[order, :_SIGNATURE], features)][:room]
    others: F32 = pool[np.sort(rest)]
    return others


def unlabelled(rows: F32, features: F32) -> NDArray[np.bool_]:
    """Which rows of a pool are not among the labelled ones, going by their first 64 values.

    Args:
        rows: ``(M, D)`` or their first 64 columns.
        features: ``(L, D)`` of the labelled images.
    """
    known = {row.tobytes() for row in features[:, :_SIGNATURE]}
    return np.array([row.tobytes() not in known for row in rows[:, :_SIGNATURE]], bool)


def choose_weight(out_of_fold_NKC: F64, probs_NC: F64, labels: Ints) -> float:
    """The weight with the least Brier score out of fold, each at its own best temperature.

    Of `WEIGHTS` the smallest whose score is within one standard error (paired) of the best; where
    that is the largest of them, of `LARGE_WEIGHTS` likewise. So a head that is good enough keeps
    most of the say, and one that is far too sure of itself gives it away.

    Labels count as in calibration: single labels of a class say nothing.
    """
    counts = fold_weights(labels)
    if counts.sum() <= 0.0:
        return 0.0
    weight = _smallest(WEIGHTS, out_of_fold_NKC, probs_NC, labels, counts)
    if weight == LARGE_WEIGHTS[0]:
        weight = _smallest(LARGE_WEIGHTS, out_of_fold_NKC, probs_NC, labels, counts)
    return weight


def _smallest(
    weights: Sequence[float], out_of_fold_NKC: F64, probs_NC: F64, labels: Ints, counts: F64
) -> float:
    """The first of `weights`, which rise, whose Brier score is as good as the best of them."""
    rows = np.arange(len(labels))
    costs = np.empty((len(weights), len(labels)))
    for number, weight in enumerate(weights):
        mean = mix(out_of_fold_NKC, probs_NC, weight).mean(axis=1)
        probs = soften(mean, fit_temperature(mean, labels, counts))
        costs[number] = (probs**2).sum(axis=1) - 2.0 * probs[rows, labels]
    means = costs @ counts / counts.sum()
    best = int(means.argmin())
    apart = costs - costs[best] - (means - means[best])[:, None]
    errors = np.sqrt((apart**2) @ counts**2) / counts.sum()
    return weights[int(np.flatnonzero(means - means[best] <= CAUTION * errors)[0])]
