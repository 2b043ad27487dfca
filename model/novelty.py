"""How unlike everything labelled an image is, and which labelled images are most like it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.acquisition.base import BLOCK_ROWS, F32, mean_row, unit_rows
from model.checks import check_features
from model.errors import ModelError, ShapeError

NEAREST = 3
MOST_REFERENCES = 1_000  # drawn of the labelled images: the share is then known within .03


@dataclass(frozen=True)
class Novelty:
    """What is known of N images beside labelled ones.

    Attributes:
        share: ``(N,)`` from 0 to below 1, one minus a conformal p-value: near 0.98 an image is
            farther from its nearest labelled image than 98 % of labelled images are from theirs.
        nearest: ``(N, k)`` rows of the nearest labelled images, nearest first.
        similarity: ``(N, k)`` to each of these, cosine from -1 to 1.
    """

    share: NDArray[np.float64]
    nearest: NDArray[np.int64]
    similarity: NDArray[np.float64]


def novelty_of(
    features: F32,
    rows: NDArray[np.int64],
    labelled: NDArray[np.int64],
    *,
    k: int = NEAREST,
    seed: int = 0,
) -> Novelty:
    """Compare images with all labelled ones, by cosine of centred features as acquisition does.

    An image is as strange as it is far from its nearest labelled image, and its novelty is how many
    labelled images are less strange, each among the others. Were it drawn as these were, novelty
    would reach 1 - a with probability a at most. Whoever computes that p-value in full also counts
    the new image among the neighbours of each labelled one; that changes nothing: it is nearer to
    none of them than to its nearest. Labels chosen to differ are farther from each other than a
    draw is, and novelty reads rather too low then.

    Memory grows with neither the number of images nor of labels: blocks of rows are read, once.

    Args:
        features: ``(P, D)`` of all images, whose mean is the centre.
        rows: ``(N,)`` of the images asked about, none of them labelled.
        labelled: ``(M,)`` rows of labelled images, M at least 1, each once.
        k: nearest labelled images wanted, at least 1; fewer come where fewer are labelled.
        seed: draws the labelled images compared with, where there are more than a thousand.

    Raises:
        ShapeError: not 2-D.
        ModelError: nothing is labelled, k is below 1, an image asked about is labelled, or
            features are not finite.

    Source:
        Laxhammar and Falkman 2011, "Sequential conformal anomaly detection in trajectories based on
        Hausdorff distance" (nearest neighbours); Sun et al. 2022, arXiv:2204.06507 (on features
        of length 1).

    Example:
        >>> angle = np.radians([0, 10, 20, 180, 25])
        >>> found = novelty_of(
        ...     np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        ...     np.array([3, 4]), np.array([0, 1, 2]), k=1
        ... )
        >>> found.share.tolist()
        [0.75, 0.0]
    """
    if features.ndim != 2:
        raise ShapeError("features", expected="(P, D)", got=features.shape)
    if not len(labelled):
        raise ModelError("nothing is labelled: there is nothing to be unlike; label some images")
    if k < 1:
        raise ModelError(f"k is {k}; at least 1 neighbour is needed")
    both = np.intersect1d(rows, labelled)
    if len(both):
        raise ModelError(f"row {both[0]} is labelled itself; ask about images without a label")
    k = min(k, len(labelled))
    if not len(rows):
        return Novelty(np.zeros(0), np.zeros((0, k), np.int64), np.zeros((0, k)))
    rng = np.random.default_rng(seed)
    references = labelled[np.sort(rng.permutation(len(labelled))[:MOST_REFERENCES])]
    centre = mean_row(features)
    nearest, squared = _nearest(features, centre, np.concatenate([rows, references]), labelled, k)
    asked = len(rows)
    usual = np.sort(squared[asked:, 0])
    less = np.searchsorted(usual, squared[:asked, 0], side="left")
    return Novelty(
        share=less / (len(usual) + 1.0),
        nearest=nearest[:asked],
        similarity=np.clip(1.0 - squared[:asked] / 2.0, -1.0, 1.0),
    )


def _nearest(
    features: F32,
    centre: F32,
    queries: NDArray[np.int64],
    labelled: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest of the labelled rows to each query, itself left out.

    Returns:
        ``(Q, k)`` rows, and ``(Q, k)`` squared distances, infinite where there is no other.
    """
    asked = unit_rows(features[queries], centre)
    check_features(asked, "features of images compared with labelled ones")
    cosine = np.full((len(queries), k), -np.inf, np.float32)
    nearest = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(labelled), BLOCK_ROWS):
        block = labelled[start : start + BLOCK_ROWS]
        unit = unit_rows(features[block], centre)
        check_features(unit, "features of labelled images")
        found = asked @ unit.T
        found[queries[:, None] == block] = -np.inf
        best = np.argpartition(found, -min(k, len(block)), axis=1)[:, -min(k, len(block)) :]
        cosine = np.concatenate([cosine, np.take_along_axis(found, best, axis=1)], axis=1)
        nearest = np.concatenate([nearest, block[best]], axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        cosine = np.take_along_axis(cosine, order, axis=1)
        nearest = np.take_along_axis(nearest, order, axis=1)
    squared = np.full(cosine.shape, np.inf)
    for column in range(k):  # exact, so that copies are at 0 and mutual neighbours equally far
        there = np.flatnonzero(np.isfinite(cosine[:, column]))
        gap = asked[there] - unit_rows(features[nearest[there, column]], centre)
        squared[there, column] = np.einsum("qd,qd->q", gap, gap, dtype=np.float64)
    order = np.argsort(squared, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(squared, order, axis=1)
