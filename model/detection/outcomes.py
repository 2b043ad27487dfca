"""What detections are worth on labelled images, and calibrators fitted to what was found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.metrics import judged
from model.detection.bundle import as_found, detections_of, shown
from model.detection.calibration import SHOWN, BoxCalibration, ImageCalibrator
from model.detection.context import STRENGTH_OF_RATES, Likeness, Seen, Surroundings
from model.detection.evaluate import (
    Matches,
    average_precision,
    detection_ece,
    match,
    outcome,
    recall_of_missed,
    region_error_auroc,
)
from model.detection.head import Kept
from model.detection.maps import ImageMaps, MapStore, StoredMaps
from model.detection.passes import Readings, mean_score
from model.detection.regions import RegionCalibrator
from model.detection.types import BoxLabels, Detections, Floats
from model.detection.views import View, views_for

METRIC = "images right as they are"
FOLDS = 5  # that the strength of a context is chosen by
STRENGTHS = (0.1, 0.3, 1.0)
LEAST_IMAGES = 60  # labelled ones from which on a context is looked for
MOST_IMAGES = 1_000  # that it is fitted to: a minute of one core


@dataclass(frozen=True)
class LabelledImages:
    """What people have drawn so far.

    Attributes:
        maps: of N images; read one by one, so a lazy sequence will do.
        sizes: N times width and height of the upright image in pixels.
        canvases: N times those at which the pyramid looked at it.
        drawn: N.
        random: ``(N,)`` bool, True where the image was drawn uniformly from the pool.
        views: N times other views of the image, which heads are trained on as well; or none at all.
    """

    maps: Sequence[ImageMaps]
    sizes: Sequence[tuple[int, int]]
    canvases: Sequence[tuple[int, int]]
    drawn: Sequence[BoxLabels]
    random: NDArray[np.bool_]
    views: Sequence[Sequence[View]] = ()

    def __len__(self) -> int:
        return len(self.drawn)

    @classmethod
    def stored(
        cls,
        store: MapStore,
        code: str,
        keys: Sequence[str],
        drawn: Sequence[BoxLabels],
        random: NDArray[np.bool_] | None = None,
    ) -> LabelledImages:
        """Images whose maps and views are in the cache.

        Args:
            store: the cache.
            code: see `MapStore.missing`.
            keys: of the N images.
            drawn: see `LabelledImages`.
            random: see `LabelledImages`; None where all were drawn so.

        Raises:
            MissingFeaturesError: an image is not in the cache.
        """
        sides = [store.sides(code, key) for key in keys]
        return cls(
            maps=StoredMaps(store, code, keys),
            sizes=[size for size, _ in sides],
            canvases=[canvas for _, canvas in sides],
            drawn=drawn,
            random=np.ones(len(keys), bool) if random is None else random,
            views=views_for(store, code, keys),
        )


@dataclass(frozen=True)
class OutOfFold:
    """Regions of N labelled images, found by heads that were not fitted to them.

    Attributes:
        kept: N.
        readings: N, the passes of each image's regions.
        data: the labels.
        seen: N, what these regions look like; none where that shall not count.
        seed: of parts of the images.
    """

    kept: Sequence[Kept]
    readings: Sequence[Readings]
    data: LabelledImages
    seen: Sequence[Seen] = ()
    seed: int = 0

    @cached_property
    def mean(self) -> list[Floats]:
        """N times ``(R,)``, score of each region's class over the passes."""
        return [mean_score(k, r) for k, r in zip(self.kept, self.readings, strict=True)]

    @cached_property
    def _matches(self) -> list[Matches]:
        return [
            match(k.boxes, k.label, mean, drawn)
            for k, mean, drawn in zip(self.kept, self.mean, self.data.drawn, strict=True)
        ]

    @cached_property
    def _likeness(self) -> Likeness:
        return Likeness.fit([self.seen[n] for n in self._some], seed=self.seed)

    @cached_property
    def _some(self) -> NDArray[np.int64]:
        """As many images, by chance, as contexts are fitted to."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.kept))
        return np.sort(drawn[:MOST_IMAGES])

    @cached_property
    def strength(self) -> float:
        """How far to trust that regions are right more often in some places than in others.

        Factor of the prior's variances, 0 for not at all: the one whose probabilities say most of
        images that were not fitted to, if it says more than 0 does by its standard error.
        """
        if len(self.seen) < LEAST_IMAGES or not sum(len(one.regions) for one in self.seen):
            return 0.0
        rows = self._some
        plain = self._loss(rows, 0.0)
        best, most = 0.0, 0.0
        for strength in STRENGTHS:
            gained = plain - self._loss(rows, strength)
            error = float(gained.std(ddof=1)) / np.sqrt(len(gained))
            if gained.mean() > max(most, error):
                best, most = strength, float(gained.mean())
        return best

    def _loss(self, rows: NDArray[np.int64], strength: float) -> Floats:
        """``(N,)`` negative log likelihood of each image's regions, fitted to other images."""
        losses = []
        stated, _ = self._cross_fitted(rows, strength)
        for n, p in zip(rows, stated, strict=True):
            known = ~self._matches[n].ignored
            happened = np.where(self._matches[n].right, p, 1 - p)[known]
            losses.append(-float(np.log(happened).sum()))
        return np.array(losses)

    def _cross_fitted(
        self, rows: NDArray[np.int64], strength: float
    ) -> tuple[list[Floats], Floats]:
        """P(right) of the regions of some images, each fitted to the others among them.

        With the doubt that the regions of each image share.
        """
        fold = np.random.default_rng(self.seed).permutation(len(rows)) % FOLDS
        said: list[Floats] = [np.zeros(0)] * len(rows)
        doubt = np.zeros(len(rows))
        for part in range(FOLDS):
            regions = self._regions(rows[fold != part], strength)
            for place in np.flatnonzero(fold == part).tolist():
                n = int(rows[place])
                said[place] = self._p_right(regions, n)
                doubt[place] = regions.doubt(self._seen(n))
        return said, doubt

    def _p_right(self, regions: RegionCalibrator, n: int) -> Floats:
        k = self.kept[n]
        return regions.p_right(self.mean[n], k.quality, k.label, self._seen(n))

    def _seen(self, n: int) -> Seen | None:
        return self.seen[n] if self.seen else None

    def _regions(self, rows: NDArray[np.int64], strength: float) -> RegionCalibrator:
        """Fitted to the regions of some of the images."""
        if strength > 0 and len(rows) > MOST_IMAGES:
            rows = np.random.default_rng(self.seed).permutation(rows)[:MOST_IMAGES]
        parts, seen = [], []
        for n in rows.tolist():
            k, known = self.kept[n], ~self._matches[n].ignored
            right = self._matches[n].right
            parts.append((self.mean[n][known], k.quality[known], k.label[known], right[known]))
            if strength > 0:
                seen.append(self.seen[n].take(known))
        score, quality, label, right = (np.concatenate(p) for p in zip(*parts, strict=True))
        around = Surroundings(seen, self._likeness, strength) if strength > 0 else None
        n_classes = self.kept[0].scores.shape[1]
        return RegionCalibrator.fit(score, quality, label, right, n_classes, around=around)

    def calibrated(self, rows: NDArray[np.int64] | None = None) -> BoxCalibration:
        """Both calibrators, fitted to some of the images, or to all."""
        rows = np.arange(len(self.kept)) if rows is None else rows
        regions = self._regions(rows, self.strength)
        doubt = None
        if self.strength > 0:
            # Of an image it was fitted to a context knows too much.
            stated, doubt = self._cross_fitted(rows, self.strength)
        else:
            stated = [self._p_right(regions, n) for n in rows.tolist()]
        p_right, missed, all_right = [], [], []
        for n, p in zip(rows.tolist(), stated, strict=True):
            k = self.kept[n]
            shows = p >= SHOWN
            one = outcome(k.boxes[shows], k.label[shows], p[shows], self.data.drawn[n])
            p_right.append(p)
            missed.append(one.missed)
            all_right.append(one.right)
        around = None
        if self.strength > 0:
            seen = [self.seen[n] for n in rows.tolist()]
            around = Surroundings(seen, self._likeness.of_rates(), STRENGTH_OF_RATES)
        images = ImageCalibrator.fit(
            p_right, np.array(missed, np.int64), np.array(all_right, bool), around, doubt
        )
        return BoxCalibration(regions, images)

    def measure(self, classes: Sequence[str], *, seed: int) -> dict[str, Any]:
        """Metrics of calibrators that were not fitted to the image they are judged on.

        With it of every image ``right``, ``stated``, and what was ``found``.
        """
        count = len(self.kept)
        half = np.random.default_rng(seed + 1).permutation(count) % 2
        said: list[Detections | None] = [None] * count
        for part in (0, 1):
            others = np.flatnonzero(half != part)
            calibration = self.calibrated(others)
            for n in np.flatnonzero(half == part).tolist():
                kept, readings, size = self.kept[n], self.readings[n], self.data.sizes[n]
                said[n] = detections_of(kept, readings, calibration, size, self._seen(n))[0]
        found = [d for d in said if d is not None]
        pairs = zip(found, self.data.drawn, strict=True)
        right = np.array([outcome(*as_found(shown(d)), truth).right for d, truth in pairs])
        stated = np.array([d.p_all_right for d in found])
        metrics = judge(found, self.data, classes)
        metrics |= {"right": right, "stated": stated, "found": found}
        random = self.data.random
        metrics |= {
            "metric": METRIC,
            **judged(right, stated, random),
            "random": (
                judge(
                    [d for n, d in enumerate(found) if random[n]],
                    _some(self.data, np.flatnonzero(random)),
                    classes,
                )
                if random.any()
                else None
            ),
        }
        return metrics


def judge(
    found: Sequence[Detections], data: LabelledImages, classes: Sequence[str]
) -> dict[str, Any]:
    """What detections, regions below the threshold included, are worth on labelled images.

    Returns:
        ``n_labels`` images; ``class_counts`` objects of each class; ``ap50``, ``map``,
        ``ap50_per_class``; ``region_ece`` and ``region_error_auroc`` of the regions shown;
        ``regions`` shown, ``missed_images`` with an object that no shown region covers,
        ``missed_expected`` and ``missed_objects``, and ``missed_recall``: the share of these images
        among the fifth that is expected to miss most.
    """
    truths = list(data.drawn)
    stated, happened, missed = shown_regions(found, truths)
    expected = np.array([d.missed for d in found])
    precision = average_precision(
        [as_found(d) for d in found], truths, [d.size for d in found], len(classes)
    )
    counts = np.bincount(np.concatenate([t.labels for t in truths]), minlength=len(classes))
    return {
        "n_labels": len(truths),
        "class_counts": {name: int(n) for name, n in zip(classes, counts, strict=True)},
        "ap50": precision["ap50"],
        "map": precision["map"],
        "ap50_per_class": dict(zip(classes, precision["ap50_per_class"], strict=True)),
        "regions": len(stated),
        "region_ece": detection_ece(stated, happened),
        "region_error_auroc": region_error_auroc(stated, happened, threshold=SHOWN),
        "missed_objects": int(missed.sum()),
        "missed_expected": float(expected.sum()),
        "missed_images": int((missed > 0).sum()),
        "missed_recall": recall_of_missed(np.argsort(-expected, kind="stable"), missed > 0),
    }


def shown_regions(
    found: Sequence[Detections], truths: Sequence[BoxLabels]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """P(right) and truth of every region shown in N images, and ``(N,)`` objects missed in each.

    Regions of which it is not known whether they are right are left out.
    """
    p_right, right, gone = [np.zeros(0)], [np.zeros(0, bool)], []
    for one, truth in zip(found, truths, strict=True):
        visible = shown(one)
        matches = match(visible.boxes, visible.label, visible.p_right, truth)
        p_right.append(visible.p_right[~matches.ignored])
        right.append(matches.right[~matches.ignored])
        gone.append(len(truth) - int(matches.right.sum()))
    return np.concatenate(p_right), np.concatenate(right), np.array(gone, np.int64)


def _some(data: LabelledImages, rows: NDArray[np.int64]) -> LabelledImages:
    return replace(
        data,
        maps=[],
        sizes=[data.sizes[n] for n in rows],
        drawn=[data.drawn[n] for n in rows],
        random=data.random[rows],
        views=(),
    )
