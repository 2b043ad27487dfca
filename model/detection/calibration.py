"""From scores to probabilities: of a region being right, and of an image having nothing wrong.

Fitted on images that the head which found the regions was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from model.calibration.base import logit
from model.detection.context import (
    Context,
    ImageEffect,
    Seen,
    Surroundings,
    given,
    rate_effect,
    shrinkage,
)
from model.detection.head import Kept
from model.detection.regions import LEAST, LEAST_SLOPE, MOST, RegionCalibrator
from model.detection.types import Floats

# P(right) from which a region is shown: taking one away costs a fifth of what drawing one costs.
# What is below is expected to be missing.
SHOWN = 1 / 6
CONTEXT, EFFECT = "context.", "effect."  # begin the names of stored arrays
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
# Regions that are taken away in the time in which one object is drawn; see `SHOWN`.
COST_OF_MISSED = (1 - SHOWN) / SHOWN
# Below this chance of having nothing wrong how small it is says nothing any more: crowded images
# are ordered by how much is to be corrected, from half of it up.
LEAST_IMAGE = 1e-3
PRIOR_EMPTY = 2.0  # images without a region that are taken to miss what images miss on average


@dataclass(frozen=True)
class ImageCalibrator:
    """P(nothing is wrong) of an image from its regions and what is likely missing.

    ``logit P = slope * logit(prod p_shown * exp(-missed)) + offset``: were regions independent,
    slope would be 1 and offset 0.

    Attributes:
        slope: see above.
        offset: see above.
        recall: what one unit of P(right) below the threshold stands for, in missed objects.
        unseen: objects an image that no region points to at all, on average.
        unseen_where_empty: the same of images without a region shown; None takes `unseen`. With few
            labels most of them show what was not recognised, and are not those to be trusted most.
        effect: logarithm of a factor of all that is missed, by what kind of image it is.
    """

    slope: float = 1.0
    offset: float = 0.0
    recall: float = 1.0
    unseen: float = 0.0
    unseen_where_empty: float | None = None
    effect: ImageEffect | None = None

    def missed(self, p_right: Floats, seen: Seen | None = None) -> float:
        """Expected number of objects that no shown region covers.

        Args:
            p_right: ``(R,)`` of the image's regions, shown or not.
            seen: what they look like; asked for where there is an effect.
        """
        known = self.unseen
        if self.unseen_where_empty is not None and is_empty(p_right):
            known = self.unseen_where_empty
        expected = self.recall * float(p_right[p_right < SHOWN].sum()) + known
        if self.effect is None:
            return expected
        return expected * float(np.exp(self.effect.of(given(seen))))

    def log_naive(self, p_right: Floats, seen: Seen | None = None, doubt: float = 0.0) -> float:
        """Log of P(nothing is wrong), were all of it independent but for the image's effect.

        Args:
            p_right: see `missed`.
            seen: see `missed`.
            doubt: variance of an effect that all regions of the image share: they are right or
                wrong together.
        """
        log_right = log_all_right(p_right[p_right >= SHOWN], doubt)
        return log_right - self.missed(p_right, seen)

    def p_all_right(self, p_right: Floats, seen: Seen | None = None, doubt: float = 0.0) -> float:
        """P(no shown region is wrong and no object is missed), within (0, 1).

        Never above P(right) of the region that is trusted least. Below `LEAST_IMAGE` it is between
        half of that and that, the less the more there is to correct. Arguments as of `log_naive`.
        """
        z = self.slope * _log_odds(self.log_naive(p_right, seen, doubt)) + self.offset
        most = float(p_right[p_right >= SHOWN].min(initial=MOST))
        p = min(float(expit(z)), most)
        if p < LEAST_IMAGE:
            p = LEAST_IMAGE * (0.5 + 0.5 / (1 + self.corrections(p_right, seen)))
        return min(p, MOST)

    def corrections(self, p_right: Floats, seen: Seen | None = None) -> float:
        """Expected cost of putting an image right, in regions to take away.

        Args:
            p_right: see `missed`.
            seen: see `missed`.
        """
        wrong = float((1 - p_right[p_right >= SHOWN]).sum())
        return wrong + COST_OF_MISSED * self.missed(p_right, seen)

    @classmethod
    def fit(
        cls,
        p_right: Sequence[Floats],
        missed: NDArray[np.int64],
        all_right: NDArray[np.bool_],
        around: Surroundings | None = None,
        doubt: Floats | None = None,
    ) -> ImageCalibrator:
        """Fit to images the head has not seen.

        Args:
            p_right: of N images the regions' P(right), shown or not.
            missed: ``(N,)`` objects that no shown region covers.
            all_right: ``(N,)`` whether nothing was missed and no shown region wrong.
            around: what kinds of images these are; None where that shall not count.
            doubt: ``(N,)`` see `log_naive`; None for none.
        """
        below = np.array([p[p < SHOWN].sum() for p in p_right])
        # Poisson rates with a prior of ten objects' worth on "what is below counts as it says".
        recall = (missed.sum() * (below.sum() > 0) + 10.0) / (below.sum() + 10.0)
        more = missed - recall * below
        empty = np.array([is_empty(p) for p in p_right], bool)
        overall = max(float(more.sum()), 0.0) / (len(more) + 10.0)
        unseen = max(float(more[~empty].sum()), 0.0) / (float((~empty).sum()) + 10.0)
        where_empty = max(float(more[empty].sum()) + PRIOR_EMPTY * overall, 0.0)
        where_empty /= float(empty.sum()) + PRIOR_EMPTY
        plain = cls(recall=float(recall), unseen=unseen, unseen_where_empty=where_empty)
        if around is not None:
            expected = np.array([plain.missed(p) for p in p_right]) + LEAST
            plain = replace(plain, effect=rate_effect(around, missed, expected))
        seen = [None] * len(p_right) if around is None else around.seen
        shared = np.zeros(len(p_right)) if doubt is None else doubt
        x = np.array(
            [
                _log_odds(plain.log_naive(p, s, v))
                for p, s, v in zip(p_right, seen, shared.tolist(), strict=True)
            ]
        )
        wanted = all_right.astype(np.float64)
        middle, width = np.array([1.0, 0.0]), np.array([0.5, 2.0])

        def loss(t: Floats) -> tuple[float, Floats]:
            z = t[0] * x + t[1]
            off = (t - middle) / width
            slack = expit(z) - wanted
            value = float((np.logaddexp(0.0, z) - wanted * z).sum()) + 0.5 * float(off @ off)
            return value, np.array([slack @ x, slack.sum()]) + off / width

        slope, offset = minimize(
            loss, middle, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)]
        ).x
        return replace(plain, slope=float(slope), offset=float(offset))


def log_all_right(p_right: Floats, doubt: float) -> float:
    """Log of P(all regions are right) where their log odds share an effect of that variance.

    Args:
        p_right: ``(R,)``, averages over the effect.
        doubt: 0 for independent regions.

    Source:
        Gauss-Hermite quadrature, as for random effects in Breslow and Clayton 1993.
    """
    if doubt == 0:
        return float(np.log(p_right).sum())
    z = logit(p_right) * shrinkage(doubt)  # what it was before it was averaged
    of_effect = log_expit(z[:, None] + np.sqrt(doubt) * NODES[None, :]).sum(axis=0)
    return float(logsumexp(of_effect, b=WEIGHTS))


def is_empty(p_right: Floats) -> bool:
    """Whether no region of an image is shown."""
    return not bool((p_right >= SHOWN).any())


def _log_odds(log_p: float) -> float:
    """``log(p / (1 - p))`` of a log probability, without losing small ones."""
    log_p = min(log_p, -1e-6)
    return log_p - float(np.log(-np.expm1(log_p)))


@dataclass(frozen=True)
class BoxCalibration:
    """Both calibrators of a version."""

    regions: RegionCalibrator
    images: ImageCalibrator

    @property
    def needs_seen(self) -> bool:
        """Whether it has to be told what an image's regions look like."""
        return self.regions.context is not None or self.images.effect is not None

    def p_all_right(self, p_right: Floats, seen: Seen | None = None) -> float:
        """Of an image whose regions have that P(right)."""
        return self.images.p_all_right(p_right, seen, self.regions.doubt(seen))

    def p_right(self, kept: Kept, mean_score: Floats, seen: Seen | None = None) -> Floats:
        """``(R,)`` of an image's regions, `mean_score` being that of their class over passes."""
        return self.regions.p_right(mean_score, kept.quality, kept.label, seen)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, for storing."""
        r, i = self.regions, self.images
        context = {} if r.context is None else r.context.arrays()
        effect = {} if i.effect is None else i.effect.arrays()
        return {
            **{CONTEXT + name: value for name, value in context.items()},
            **{EFFECT + name: value for name, value in effect.items()},
            "region": np.array([r.slope, r.quality]),
            "offsets": r.offsets,
            "image": np.array(
                [i.slope, i.offset, i.recall, i.unseen]
                + ([] if i.unseen_where_empty is None else [i.unseen_where_empty])
            ),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> BoxCalibration:
        """From what `arrays` gave."""
        slope, quality = arrays["region"].tolist()
        of_regions, of_images = _below(CONTEXT, arrays), _below(EFFECT, arrays)
        context = Context.restore(of_regions) if of_regions else None
        images = ImageCalibrator(*arrays["image"].tolist())
        if of_images:
            images = replace(images, effect=ImageEffect.restore(of_images))
        return cls(RegionCalibrator(slope, quality, arrays["offsets"], context), images)


def _below(mark: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with a mark, by the rest of the name."""
    return {k.removeprefix(mark): v for k, v in arrays.items() if k.startswith(mark)}
