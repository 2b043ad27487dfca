"""From scores to probabilities of a region being right.

Fitted on images that the head which found the regions was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from model.calibration.base import logit
from model.detection.context import Context, Seen, Surroundings, given, shrinkage
from model.detection.types import Floats

LEAST, MOST = 1e-4, 1 - 1e-4
LEAST_SLOPE = 0.05  # a higher score is never trusted less
# Standard deviations of the prior; the middle is the score itself, unchanged.
OF_SLOPE, OF_OFFSET, OF_QUALITY, OF_CLASS = 0.5, 2.0, 0.5, 0.5


@dataclass(frozen=True)
class RegionCalibrator:
    """P(right) of a region from its score, its quality, its class, and where it is.

    ``expit(slope * logit(score) + quality * logit(quality) + offset of class + context)``

    Attributes:
        slope: of the score's log odds.
        quality: of the expected IoU's log odds.
        offsets: ``(C,)``.
        context: what is added for where a region is; None where nothing is known of that.

    Source:
        Platt 1999; for boxes Küppers et al. 2020 (arXiv:2004.13546), without the box's position.
    """

    slope: float
    quality: float
    offsets: Floats
    context: Context | None = None

    def log_odds(self, score: Floats, quality: Floats, label: NDArray[np.int64]) -> Floats:
        """``(R,)`` without the context."""
        z: Floats = self.slope * logit(score) + self.quality * logit(quality) + self.offsets[label]
        return z

    def p_right(
        self,
        score: Floats,
        quality: Floats,
        label: NDArray[np.int64],
        seen: Seen | None = None,
    ) -> Floats:
        """``(R,)`` within (0, 1).

        Args:
            score: ``(R,)`` of the regions of one image.
            quality: ``(R,)``.
            label: ``(R,)``.
            seen: what they look like; asked for where there is a context.
        """
        z = self.log_odds(score, quality, label)
        if self.context is not None:
            seen = given(seen)
            z = z + self.context.log_odds(seen, label)
            z = z / shrinkage(self.doubt(seen))
        return np.clip(expit(z), LEAST, MOST)

    def doubt(self, seen: Seen | None) -> float:
        """Variance of what all regions of an image share in their log odds."""
        return 0.0 if self.context is None or seen is None else self.context.doubt(seen)

    @classmethod
    def fit(
        cls,
        score: Floats,
        quality: Floats,
        label: NDArray[np.int64],
        right: NDArray[np.bool_],
        n_classes: int,
        *,
        around: Surroundings | None = None,
    ) -> RegionCalibrator:
        """Maximum a posteriori; with no region at all the score as it is.

        Args:
            score: ``(R,)`` of regions on images the head has not seen.
            quality: ``(R,)``.
            label: ``(R,)``.
            right: ``(R,)``.
            n_classes: C.
            around: where these R regions are; None fits no context.
        """
        x = np.stack([logit(score), logit(quality)], 1)
        posterior = _Posterior(x, label, right, n_classes, around)
        # By chance, few regions may say that those of low score are right.
        free: tuple[float | None, float | None] = (None, None)
        bounds = [(LEAST_SLOPE, None), *[free] * (len(posterior.middle) - 1)]
        best = minimize(
            posterior.loss, posterior.middle, jac=True, method="L-BFGS-B", bounds=bounds
        ).x
        found = posterior.parts(best)
        slope, of_quality = found.of_score.tolist()
        context = None
        if around is not None:
            p = expit(posterior.log_odds(best))
            told = posterior.by_image(p * (1 - p))
            context = around.context(found.of_image, found.of_region, told)
        return cls(slope, of_quality, found.offset + found.of_class, context)


class _Parts(NamedTuple):
    """Parameters of a `RegionCalibrator`.

    Attributes:
        of_score: ``(2,)`` of score and quality.
        offset: ``(1,)``.
        of_class: ``(C,)``.
        of_image: ``(M,)``, none without a context.
        of_region: ``(C, F)``, no columns without a context.
    """

    of_score: Floats
    offset: Floats
    of_class: Floats
    of_image: Floats
    of_region: Floats


class _Posterior:
    """Negative log posterior of the parameters, given regions that were right or not.

    Args:
        x: ``(R, 2)`` log odds of score and quality.
        label: ``(R,)``.
        right: ``(R,)``.
        n_classes: C.
        around: where the regions are, if that shall count.
    """

    def __init__(
        self,
        x: Floats,
        label: NDArray[np.int64],
        right: NDArray[np.bool_],
        n_classes: int,
        around: Surroundings | None,
    ) -> None:
        count = len(x)
        self._x, self._label, self._classes = x, label, n_classes
        self._right = right.astype(np.float64)
        if around is None:
            self._images, self._regions = np.zeros((1, 0)), np.zeros((count, 0))
            self._image_of = np.zeros(count, np.int64)
        else:
            self._images, self._regions = around.images, around.regions
            self._image_of = around.image_of
        self._by_class = csr_array(
            (np.ones(count), (label, np.arange(count))), shape=(n_classes, count)
        )
        columns = self._regions.shape[1]
        sizes = [2, 1, n_classes, self._images.shape[1], columns, n_classes * columns]
        self._ends = np.cumsum(sizes)[:-1]
        self.middle, self._width = np.zeros(sum(sizes)), np.ones(sum(sizes))
        self.middle[0] = 1.0
        self._width[:3] = [OF_SLOPE, OF_QUALITY, OF_OFFSET]
        self._width[3 : 3 + n_classes] = OF_CLASS

    def parts(self, t: Floats) -> _Parts:
        """The parameters by their meaning."""
        of_score, offset, of_class, of_image, of_all, of_each = np.split(t, self._ends)
        of_region = of_all + of_each.reshape(self._classes, -1)
        return _Parts(of_score, offset, of_class, of_image, of_region)

    def log_odds(self, t: Floats) -> Floats:
        """``(R,)`` of being right."""
        of = self.parts(t)
        z: Floats = self._x @ of.of_score + of.offset + of.of_class[self._label]
        z += (self._images @ of.of_image)[self._image_of]
        z += (self._regions * of.of_region[self._label]).sum(axis=1)
        return z

    def by_image(self, values: Floats) -> Floats:
        """``(N,)`` sums of the regions' values."""
        sums = np.bincount(self._image_of, weights=values, minlength=len(self._images))
        return np.asarray(sums, np.float64)

    def loss(self, t: Floats) -> tuple[float, Floats]:
        """With its gradient."""
        z = self.log_odds(t)
        value = float((np.logaddexp(0.0, z) - self._right * z).sum())
        off = (t - self.middle) / self._width
        slack = expit(z) - self._right
        by_each = np.asarray(self._by_class @ (slack[:, None] * self._regions))
        gradient = np.concatenate(
            [
                slack @ self._x,
                [slack.sum()],
                np.bincount(self._label, weights=slack, minlength=self._classes),
                self.by_image(slack) @ self._images,
                by_each.sum(axis=0),
                by_each.ravel(),
            ]
        )
        return value + 0.5 * float(off @ off), gradient + off / self._width
