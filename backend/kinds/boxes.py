"""Projects that ask for boxes: maps of every image, and a head that finds objects in them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels import boxes as drawings
from backend.edges.labels.config import TaskSpec
from backend.kinds.base import Fitted, Model, Progress, Said, Together
from backend.settings import Settings
from model.acquisition import Selection
from model.annotators.drawings import weigh_drawings
from model.backbones.pyramid import LARGE, PYRAMIDS
from model.detection.acquisition import PoolBuilder, select_images
from model.detection.bundle import BoxBundle, shown
from model.detection.engine import BoxConfig, fit
from model.detection.evaluate import outcome
from model.detection.extract import cache_maps
from model.detection.maps import StoredMaps
from model.detection.outcomes import LabelledImages
from model.detection.shape import SMALL
from model.detection.types import BoxLabels
from model.detection.views import cache_views, images_to_view, missing_views
from model.label_errors.boxes import BoxErrors, find_box_errors

if TYPE_CHECKING:
    from backend.app import App

# A larger pyramid is worth its time from so many labelled images on, such a share of small
# objects, and images so many times as long as they are looked at (docs/adr/detection.md).
ENOUGH_LABELS, MANY_SMALL, MUCH_SMALLER = 50, 0.1, 1.3
MOST_NAMED = 3  # things that are wrong with the boxes of an image


class Boxes:
    """See `backend.kinds.base.Kind`."""

    def backbone(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.pyramid

    def quiet_s(self, settings: Settings) -> float:
        """See `Kind`."""
        return settings.box_quiet_s

    def estimator(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.box_estimator

    def acquisition(self, settings: Settings) -> str:
        """See `Kind`."""
        return settings.box_acquisition

    def backbone_variable(self) -> str:
        """See `Kind`."""
        return "DOUBTLESS_PYRAMID"

    def advice(self, settings: Settings, metrics: Mapping[str, Any]) -> list[str]:
        """See `Kind`: objects that are too small at the size at which images are looked at."""
        share, smaller = metrics.get("small_objects", 0.0), metrics.get("made_smaller", 1.0)
        enough = metrics.get("n_labels", 0) >= ENOUGH_LABELS
        larger = settings.pyramid + LARGE
        # Otherwise the setting was changed after this version, perhaps by this very advice.
        is_of_it = metrics.get("backbone") == settings.pyramid
        if not (is_of_it and enough and larger in PYRAMIDS):
            return []
        if share < MANY_SMALL or smaller < MUCH_SMALLER:
            return []
        return [
            f"{share:.0%} of the drawn objects are hardly ever found: they are below "
            f"{SMALL:.0f} pixels once images are made {smaller:.1f} times smaller; "
            f"{self.backbone_variable()}={larger} looks at twice the pixels: all images are read "
            "again, and everything takes twice the time and disk"
        ]

    def code(self, app: App) -> str:
        """See `Kind`."""
        return PYRAMIDS[app.settings.pyramid].hash

    def missing(self, app: App, keys: Sequence[str]) -> list[str]:
        """See `Kind`."""
        code = self.code(app)
        lost = {*app.features.missing(code, keys), *app.maps.missing(code, keys)}
        return [key for key in dict.fromkeys(keys) if key in lost]

    def read(
        self, app: App, items: Iterable[tuple[str, bytes]]
    ) -> Generator[tuple[list[str], dict[str, str]], None, None]:
        """See `Kind`."""
        yield from cache_maps(
            app.pyramid(),
            items,
            code=self.code(app),
            maps=app.maps,
            features=app.features,
            max_megapixels=app.settings.max_image_megapixels,
        )

    def missing_views(self, app: App, keys: Sequence[str]) -> list[str]:
        """See `Kind`."""
        return missing_views(app.maps, self.code(app), images_to_view(keys))

    def read_views(self, app: App, items: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """See `Kind`."""
        yield from cache_views(
            app.pyramid(),
            items,
            code=self.code(app),
            maps=app.maps,
            max_megapixels=app.settings.max_image_megapixels,
        )

    def fit(
        self,
        app: App,
        spec: TaskSpec,
        *,
        keys: Sequence[str],
        texts: Sequence[str],
        random: NDArray[np.bool_],
        pool: NDArray[np.float32],
        progress: Progress,
        weights: NDArray[np.float64] | None = None,
    ) -> Fitted:
        """See `Kind`."""
        del pool, weights
        code = self.code(app)
        drawn = [drawings.to_box_labels(text, spec.classes) for text in texts]
        data = LabelledImages.stored(app.maps, code, keys, drawn, random)
        config = BoxConfig(estimator=app.settings.box_estimator)
        return Fitted(fit(data, spec.classes, config=config, progress=progress), random)

    def contradictions(
        self, model: Model, spec: TaskSpec, texts: Sequence[str]
    ) -> list[tuple[float, str]]:
        """See `Kind`."""
        assert isinstance(model, BoxBundle)
        if model.out_of_fold_found is None:
            return []
        drawn = [drawings.to_box_labels(text, model.classes) for text in texts]
        found = find_box_errors(model.out_of_fold_found, drawn)
        return [(one.score, _in_words(one, truth, model.classes)) for one, truth in
                zip(found, drawn, strict=True)]  # fmt: skip

    def class_probs(self, model: Model, spec: TaskSpec) -> NDArray[np.float64] | None:
        """See `Kind`; an image has a drawing, and no class."""
        del model, spec
        return None

    def together(
        self, model: Model, spec: TaskSpec, rows: Sequence[int], votes: Sequence[Mapping[int, str]]
    ) -> Together | None:
        """See `Kind`."""
        assert isinstance(model, BoxBundle)
        found = model.out_of_fold_found
        if found is None:
            return None
        flat = [(n, who, text) for n, given in enumerate(votes) for who, text in given.items()]
        crowd = weigh_drawings(
            [found[row] for row in rows],
            np.array([n for n, _, _ in flat], np.int64),
            np.array([who for _, who, _ in flat], np.int64),
            [drawings.to_box_labels(text, model.classes) for *_, text in flat],
        )
        if crowd.why is not None:
            return None
        texts = [drawings.of_box_labels(one, model.classes) for one in crowd.drawn]
        return Together(texts, crowd.p_right, crowd.annotators)

    def is_right(self, spec: TaskSpec, said: str, answer: str) -> bool:
        """See `Kind`; as out of fold: every region shown is right and no object is missed."""
        regions = drawings.decode_prediction(said)
        if regions is None or any(r.label not in spec.classes for r in regions.regions):
            return False
        truth = drawings.to_box_labels(answer, spec.classes)
        return outcome(
            np.array([r.box for r in regions.regions], np.float64).reshape(-1, 4),
            np.array([spec.classes.index(r.label) for r in regions.regions], np.int64),
            np.array([r.p for r in regions.regions], np.float64),
            truth,
        ).right

    def load(self, folder: Path) -> BoxBundle:
        """See `Kind`."""
        return BoxBundle.load(folder)

    def say(
        self,
        app: App,
        model: Model,
        spec: TaskSpec,
        *,
        keys: Sequence[str],
        features: NDArray[np.float32],
        progress: Progress,
    ) -> Said:
        """See `Kind`."""
        del features
        assert isinstance(model, BoxBundle)
        code = self.code(app)
        counts = np.array(list(model.metrics["class_counts"].values()), np.int64)
        ap50 = list(model.metrics["ap50_per_class"].values())
        images = StoredMaps(app.maps, code, keys, coarsest=True)
        builder = PoolBuilder(counts, ap50, images=images)
        texts: list[str | None] = []
        p_right = np.zeros(len(keys))
        nats = np.zeros((3, len(keys)))
        for n, maps in enumerate(app.maps.load_many(code, keys)):
            found, _ = model.look(maps)
            visible = shown(found)
            builder.add(found, visible)
            fits = spec.boxes and set(model.classes) <= set(spec.classes)
            texts.append(drawings.from_detections(model.classes, visible) if fits else None)
            p_right[n] = found.p_all_right
            nats[:, n] = [v.sum() for v in (visible.total, visible.aleatoric, visible.epistemic)]
            progress((n + 1) / len(keys), f"{n + 1} of {len(keys)} images")
        pool = builder.pool()
        rule = app.settings.box_acquisition

        def choose(
            rows: NDArray[np.int64],
            n: int,
            known: NDArray[np.int64],
            counts: NDArray[np.int64],
            seed: int,
        ) -> Selection:
            del counts
            return Selection(
                select_images(rule, pool.take(rows), n, known=pool.take(known), seed=seed)
            )

        total, aleatoric, epistemic = nats
        return Said(texts, p_right, total, aleatoric, epistemic, [None] * len(keys), rule, choose)


def _in_words(found: BoxErrors, drawn: BoxLabels, classes: Sequence[str]) -> str:
    """The likeliest things that are wrong with the boxes of an image."""
    parts = []
    for one in found.findings[:MOST_NAMED]:
        what = f"{classes[one.label]} {one.kind}"
        if one.kind == "swapped" and one.drawn is not None:
            what = f"{classes[int(drawn.labels[one.drawn])]} is probably {classes[one.label]}"
        parts.append(f"{what} ({one.probability:.0%})")
    more = len(found.findings) - len(parts)
    return "; ".join([*parts, *([f"{more} more"] if more > 0 else [])]) or "not clear"
