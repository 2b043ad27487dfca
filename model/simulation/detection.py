"""Sets annotated with boxes: their maps, and how a rule plays them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.acquisition import select
from model.backbones.pyramid import PYRAMIDS, Pyramid
from model.detection.acquisition import (
    BOX_ACQUISITIONS,
    PoolBuilder,
    select_images,
)
from model.detection.bundle import BoxBundle, shown
from model.detection.engine import BoxConfig, fit
from model.detection.extract import cache_maps
from model.detection.maps import MapStore, StoredMaps
from model.detection.outcomes import LabelledImages, judge, shown_regions
from model.detection.passes import BOX_ESTIMATORS
from model.detection.types import BoxLabels
from model.detection.views import cache_views, missing_views
from model.errors import BundleError, MissingFeaturesError, NotEnoughLabelsError
from model.features import FeatureStore
from model.simulation.boxes import BoxSet
from model.simulation.data import Counted, Read, items_of
from model.simulation.replay import BoxCheckpoint, Choice, Ints, Judged, Plan, Seconds

SET_FILE = "boxes.json"
MOST_WITH_VIEWS = 1_000  # images; six views of each take minutes
COLD = "auto"  # picks while nothing is fitted, as a new project's first queue is made


def compute_maps(
    read: Read,
    keys: Sequence[str],
    *,
    pyramid: str,
    maps: MapStore,
    features: FeatureStore,
    load: Callable[[str], Pyramid],
    progress: Counted = lambda done, total: None,
) -> dict[str, str]:
    """Compute what the caches lack, in one pass over the set.

    Args:
        read: the set.
        keys: SHA-256 of the files wanted.
        pyramid: its name.
        maps: the cache of maps.
        features: the cache of their means.
        load: gives the pyramid; called only when something has to be computed.
        progress: called with (computed so far, to be computed).

    Returns:
        The reason for each key that cannot be read as an image.
    """
    code = PYRAMIDS[pyramid].hash
    wanted = {*maps.missing(code, keys), *features.missing(code, keys)}
    problems: dict[str, str] = {}
    if not wanted:
        return problems
    done = 0
    progress(0, len(wanted))
    items = items_of(read, wanted)
    for names, errors in cache_maps(load(pyramid), items, code=code, maps=maps, features=features):
        problems |= errors
        done += len(names) + len(errors)
        progress(done, len(wanted))
    features.compact(code)
    return problems


def compute_views(
    read: Read,
    keys: Sequence[str],
    *,
    pyramid: str,
    maps: MapStore,
    load: Callable[[str], Pyramid],
    progress: Counted = lambda done, total: None,
) -> None:
    """Compute other views of images, as the product does of those that are labelled.

    Which will be asked for nobody knows before, so of all; of more than 1,000 images, which would
    take longer than it tells, of none.

    Args:
        read: the set.
        keys: SHA-256 of the files.
        pyramid: its name.
        maps: the cache of maps.
        load: gives the pyramid; called only when something has to be computed.
        progress: called with (images done, images to be done).
    """
    code = PYRAMIDS[pyramid].hash
    wanted = missing_views(maps, code, keys) if len(keys) <= MOST_WITH_VIEWS else []
    if not wanted:
        return
    progress(0, len(wanted))
    items = items_of(read, set(wanted))
    for done, _ in enumerate(cache_views(load(pyramid), items, code=code, maps=maps), 1):
        progress(done, len(wanted))


@dataclass(frozen=True)
class DetectionSet(BoxSet):
    """A set annotated with boxes, and where its maps are; see `replay.Playable`.

    Attributes:
        features: ``(N, D)`` means of the maps.
        maps: folder of the `MapStore`.
        code: hash of the pyramid.
        heads: folder for what several rules fit alike, if there is one.
    """

    features: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 0), np.float32), repr=False
    )
    maps: Path = Path()
    code: str = ""
    heads: Path | None = None

    @classmethod
    def of(cls, found: BoxSet) -> DetectionSet:
        """Without maps: enough to plan a replay, not to play it."""
        return cls(**vars(found))

    def with_maps(self, maps: MapStore, features: FeatureStore, code: str) -> DetectionSet:
        """The same with what `compute_maps` has kept.

        Raises:
            MissingFeaturesError: it has not.
        """
        absent = maps.missing(code, self.keys)
        if absent:
            raise MissingFeaturesError(
                f"{len(absent)} of {len(self.keys)} images have no maps of pyramid {code}, such as "
                f"{absent[0]}; compute them first (`compute_maps`)"
            )
        return replace(
            self,
            features=features.load(code, self.keys),
            maps=maps.root,
            code=code,
        )

    @property
    def task(self) -> str:
        """See `Playable`."""
        return "detection"

    @property
    def metric(self) -> str:
        """See `Playable`."""
        return BoxCheckpoint.METRIC

    def kinds(self, row: int) -> tuple[str, ...]:
        """See `Playable`."""
        return tuple(self.classes[n] for n in np.unique(self.boxes[row].labels))

    def require_estimator(self, name: str) -> None:
        """See `Playable`."""
        BOX_ESTIMATORS[name]

    def player(self, plan: Plan, acquisition: str, seed: int) -> Detector:
        """See `Playable`."""
        return Detector(self, plan, acquisition, seed)

    def full(self, uncertainty: str, *, training_steps: int | None = None) -> dict[str, float]:
        """See `Playable`."""
        config = BoxConfig(estimator=uncertainty, steps=training_steps)
        data = self.take(self.pool)
        bundle = fit(data, self.classes, config=config)
        test = self.take(np.flatnonzero(self.test))
        found = judge([bundle.look(maps)[0] for maps in test.maps], test, self.classes)
        return {name: found[name] or 0.0 for name in ("ap50", "map")}

    def take(self, rows: Ints, is_random: NDArray[np.bool_] | None = None) -> LabelledImages:
        """Some of the images, as the engine reads them."""
        store, keys = MapStore(self.maps), [self.keys[n] for n in rows]
        return LabelledImages.stored(
            store, self.code, keys, [self.boxes[n] for n in rows], is_random
        )

    def save(self, folder: Path) -> None:
        """See `Playable`; the maps stay where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "features.npy", self.features, allow_pickle=False)
        np.save(folder / "test.npy", self.test, allow_pickle=False)
        facts = {
            "name": self.name,
            "classes": self.classes,
            "keys": self.keys,
            "boxes": [{k: v.tolist() for k, v in vars(one).items()} for one in self.boxes],
            "maps": str(self.maps),
            "code": self.code,
        }
        (folder / SET_FILE).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> DetectionSet:
        """Read what `save` wrote, without names, digest and split; what is fitted is shared."""
        facts = json.loads((folder / SET_FILE).read_text(encoding="utf-8"))
        return cls(
            name=facts["name"],
            classes=tuple(facts["classes"]),
            keys=tuple(facts["keys"]),
            boxes=tuple(BoxLabels.of(**one) for one in facts["boxes"]),
            test=np.load(folder / "test.npy", allow_pickle=False),
            features=np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False),
            maps=Path(facts["maps"]),
            code=facts["code"],
            heads=folder / "heads",
        )


class Detector:
    """See `model.simulation.replay.Player`."""

    def __init__(self, data: DetectionSet, plan: Plan, acquisition: str, seed: int) -> None:
        BOX_ACQUISITIONS[acquisition]
        self._data, self._acquisition = data, acquisition
        self._config = BoxConfig(estimator=plan.uncertainty, steps=plan.training_steps, seed=seed)
        self._rows = data.pool
        self._test = data.take(np.flatnonzero(data.test))
        self._bundle: BoxBundle | None = None

    def choose(self, wanted: int, *, left: Ints, taken: Ints, known: Ints, seed: int) -> Choice:
        """See `Player`; as the product does, without a version among typical images."""
        begin = time.perf_counter()
        if self._bundle is None:
            features = self._data.features[self._rows]
            picked = select(
                COLD, pool=features[left], n=wanted, labelled=features[taken], seed=seed
            )
            return Choice(picked.rows, 0.0, time.perf_counter() - begin)
        metrics = self._bundle.metrics
        counts = np.array(list(metrics["class_counts"].values()), np.int64)
        code, store = self._data.code, MapStore(self._data.maps)
        keys = [self._data.keys[n] for n in self._rows[np.concatenate([left, known])]]
        ap50 = list(metrics["ap50_per_class"].values())
        images = StoredMaps(store, code, keys, coarsest=True)
        builder = PoolBuilder(counts, ap50, images=images)
        for maps in store.load_many(code, keys):
            found, _ = self._bundle.look(maps)
            builder.add(found, shown(found))
        middle = time.perf_counter()
        pool = builder.pool()
        rows = select_images(
            self._acquisition,
            pool.take(np.arange(len(left))),
            wanted,
            known=pool.take(np.arange(len(left), len(pool))),
            seed=seed,
        )
        return Choice(rows, middle - begin, time.perf_counter() - middle)

    def learn(self, labelled: Ints, is_random: NDArray[np.bool_]) -> float:
        """See `Player`; what cannot be fitted yet leaves it without a version.

        The first version of a seed is the same for all rules that begin with the same images, so
        it is fitted once; what it took counts for each.
        """
        rows = self._rows[labelled]
        shared = self._shared(rows, is_random) if self._bundle is None else None
        if shared is not None:
            with suppress(BundleError):
                self._bundle = BoxBundle.load(shared)
                return float(self._bundle.metrics["seconds"])
        begin = time.perf_counter()
        try:
            data = self._data.take(rows, is_random)
            self._bundle = fit(data, self._data.classes, config=self._config)
        except NotEnoughLabelsError:
            return time.perf_counter() - begin
        if shared is not None:
            with suppress(BundleError, OSError):  # another process was first, or there is no room
                self._bundle.save(shared)
        return float(self._bundle.metrics["seconds"])

    def _shared(self, rows: Ints, is_random: NDArray[np.bool_]) -> Path | None:
        if self._data.heads is None:
            return None
        facts = (self._config, rows.tolist(), is_random.tolist())
        return self._data.heads / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def look(self, labelled: Ints, seconds: Seconds) -> Judged:
        """See `Player`."""
        drawn = [self._data.boxes[n] for n in self._rows[labelled]]
        facts: dict[str, Any] = {
            "labels": len(labelled),
            "objects": sum(map(len, drawn)),
            "score_pool_s": seconds.score_pool,
            "acquire_s": seconds.acquire,
            "fit_s": seconds.fit,
        }
        test, classes = self._test, self._data.classes
        if self._bundle is None:
            return Judged(_nothing(test, classes, facts), np.zeros(0), np.zeros(0, bool))
        found = [self._bundle.look(maps)[0] for maps in test.maps]
        said = judge(found, test, classes)
        p_right, right, _ = shown_regions(found, test.drawn)
        point = BoxCheckpoint(
            ap50=said["ap50"] or 0.0,
            map=said["map"] or 0.0,
            ap50_per_class=said["ap50_per_class"],
            ece=said["region_ece"],
            error_auroc=said["region_error_auroc"],
            missed_recall=said["missed_recall"],
            regions=said["regions"],
            missed_objects=said["missed_objects"],
            **facts,
        )
        return Judged(point, p_right, right)


def _nothing(test: LabelledImages, classes: Sequence[str], facts: dict[str, Any]) -> BoxCheckpoint:
    """Of a round after which there was nothing to fit: no region is shown, all is missed."""
    labels = np.concatenate([one.labels for one in test.drawn])
    there = np.bincount(labels, minlength=len(classes)) > 0
    return BoxCheckpoint(
        ap50=0.0,
        map=0.0,
        ap50_per_class={
            name: 0.0 if is_there else None for name, is_there in zip(classes, there, strict=True)
        },
        ece=None,
        error_auroc=None,
        missed_recall=None,
        regions=0,
        missed_objects=len(labels),
        **facts,
    )
