"""What differs between sets with labels and sets with boxes when they are replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from backend.simulate.source import Source
from model.acquisition import require
from model.backbones import BACKBONES, Backbone
from model.backbones.pyramid import PYRAMIDS, Pyramid
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.maps import MapStore
from model.detection.passes import BOX_ESTIMATORS
from model.features import FeatureStore
from model.heads.plain import PLAIN_BACKBONE
from model.simulation.boxes import box_set
from model.simulation.data import LabelledSet, Listing, compute_features, labelled_set
from model.simulation.detection import DetectionSet, compute_maps, compute_views
from model.simulation.replay import Playable
from model.uncertainty import ESTIMATORS

# Made of these networks side by side, in this order: the first one's features need no second pass.
_STARTS_WITH_PLAIN = f"{PLAIN_BACKBONE}+"
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Names:
    """What was asked for by name, or the settings' choice.

    Attributes:
        rules: to compare.
        uncertainty: the estimator.
        backbone: the network.
        code: its hash.
    """

    rules: Sequence[str]
    uncertainty: str
    backbone: str
    code: str


class Task(Protocol):
    """One kind of set, with the names for it; made anew for each replay.

    Making one raises UnknownNameError, or NeedsError where a rule and the estimator do not fit.
    """

    names: Names

    def outline(self, name: str, listing: Listing) -> Playable:
        """The set without what networks see; raises DataError where it is of no use."""

    def compute(self, source: Source, keys: Sequence[str], step: Step) -> dict[str, str]:
        """Fill the caches; gives the reason for each key that cannot be read."""

    def assemble(self, name: str, listing: Listing) -> Playable:
        """The set as it is played, all of it in the caches."""


class LabelTask:
    """Classification, with one label an image or several; see `Task`.

    Args:
        rules: names of `ACQUISITIONS`.
        uncertainty: one of `ESTIMATORS`.
        backbone: one of `BACKBONES`.
        features: cache of features.
        load: gives a backbone.
    """

    def __init__(
        self,
        rules: Sequence[str],
        uncertainty: str,
        backbone: str,
        *,
        features: FeatureStore,
        load: Callable[[str], Backbone],
    ) -> None:
        self.names = Names(rules, uncertainty, backbone, BACKBONES[backbone].hash)
        family = ESTIMATORS[uncertainty]
        for rule in rules:
            require(rule, passes=family.passes, joint=family.joint)
        self._features, self._load = features, load
        # The first of networks side by side is the plain head's own.
        self._shared = backbone == PLAIN_BACKBONE or backbone.startswith(_STARTS_WITH_PLAIN)

    def outline(self, name: str, listing: Listing) -> LabelledSet:
        """See `Task`."""
        return labelled_set(name, listing, np.zeros((len(listing.keys), 0), np.float32))

    def compute(self, source: Source, keys: Sequence[str], step: Step) -> dict[str, str]:
        """See `Task`."""
        backbone = self.names.backbone
        broken: dict[str, str] = {}
        for name in [backbone] if self._shared else [backbone, PLAIN_BACKBONE]:
            broken |= compute_features(
                source.read,
                keys,
                backbone=name,
                store=self._features,
                load=self._load,
                progress=partial(step, f"{name} features"),
            )
        return broken

    def assemble(self, name: str, listing: Listing) -> LabelledSet:
        """See `Task`."""
        features = self._features.load(self.names.code, listing.keys)
        plain = features
        if self.names.backbone != PLAIN_BACKBONE:
            spec = BACKBONES[PLAIN_BACKBONE]
            plain = (
                features[:, : spec.dim]
                if self._shared
                else self._features.load(spec.hash, listing.keys)
            )
        return labelled_set(name, listing, features, plain)


class BoxTask:
    """Detection; see `Task`.

    Args:
        rules: names of `BOX_ACQUISITIONS`.
        uncertainty: one of `BOX_ESTIMATORS`.
        backbone: one of `PYRAMIDS`.
        maps: cache of maps.
        features: cache of their means.
        load: gives a pyramid.
    """

    def __init__(
        self,
        rules: Sequence[str],
        uncertainty: str,
        backbone: str,
        *,
        maps: MapStore,
        features: FeatureStore,
        load: Callable[[str], Pyramid],
    ) -> None:
        self.names = Names(rules, uncertainty, backbone, PYRAMIDS[backbone].hash)
        BOX_ESTIMATORS[uncertainty]
        for rule in rules:
            BOX_ACQUISITIONS[rule]
        self._maps, self._features, self._load = maps, features, load

    def outline(self, name: str, listing: Listing) -> DetectionSet:
        """See `Task`."""
        return DetectionSet.of(box_set(name, listing))

    def compute(self, source: Source, keys: Sequence[str], step: Step) -> dict[str, str]:
        """See `Task`."""
        backbone = self.names.backbone
        broken = compute_maps(
            source.read,
            keys,
            pyramid=backbone,
            maps=self._maps,
            features=self._features,
            load=self._load,
            progress=lambda done, total: step(f"{backbone} maps", done, total),
        )
        compute_views(
            source.read,
            [key for key in keys if key not in broken],
            pyramid=backbone,
            maps=self._maps,
            load=self._load,
            progress=lambda done, total: step("other views of images", done, total),
        )
        return broken

    def assemble(self, name: str, listing: Listing) -> DetectionSet:
        """See `Task`."""
        return self.outline(name, listing).with_maps(self._maps, self._features, self.names.code)
