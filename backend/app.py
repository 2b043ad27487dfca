"""Composition root: from settings to the parts; only here things are wired."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from backend.annotators import one_label_each
from backend.edges.database import Database
from backend.edges.labels.answers import is_known
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.media import Fetcher
from backend.edges.rq_queue import RqQueue
from backend.errors import SettingError
from backend.kinds import kind_of_project
from backend.methods import settings_of
from backend.model_names import check_model_names
from backend.ports import JobQueue, MediaSource, Platform
from backend.records import Project
from backend.settings import Settings
from backend.tabs import ensure_piles, ensure_tab
from model.backbones import Backbone, backbone_hash, load_backbone
from model.backbones.pyramid import Pyramid, load_pyramid
from model.detection.maps import MapStore
from model.features import FeatureStore

log = logging.getLogger(__name__)


@dataclass
class App:
    """Everything a job, a request or a command needs."""

    settings: Settings
    database: Database
    queue: JobQueue
    features: FeatureStore
    platform_for: Callable[[Project], Platform]
    media_for: Callable[[Project], MediaSource]
    backbone_for: Callable[[str], Backbone]
    pyramid_for: Callable[[str], Pyramid]
    maps: MapStore
    backbone_hash: Callable[[str], str] = backbone_hash
    # Called after a project's first publication: Label Studio makes no tab by score before.
    first_published: Callable[[Project], None] = lambda project: None
    # Called when the piles of a project have other bounds: from which P(right) on its predictions
    # may be accepted, or None.
    piles_changed: Callable[[Project, float | None], None] = lambda project, accept_from: None
    _backbones: dict[str, Backbone] = field(default_factory=dict)
    _pyramids: dict[str, Pyramid] = field(default_factory=dict)

    def of_project(self, key: str) -> App:
        """The same parts, with the settings that a project has chosen for itself."""
        return replace(self, settings=settings_of(self.settings, self.database.project(key)))

    def backbone(self) -> Backbone:
        """The backbone of the settings, loaded once a process."""
        name = self.settings.backbone
        if name not in self._backbones:
            self._backbones[name] = self.backbone_for(name)
        return self._backbones[name]

    def pyramid(self) -> Pyramid:
        """The pyramid of the settings, loaded once a process."""
        name = self.settings.pyramid
        if name not in self._pyramids:
            self._pyramids[name] = self.pyramid_for(name)
        return self._pyramids[name]

    def backbone_name(self, project: Project) -> str:
        """Name of the network that reads a project's images."""
        return kind_of_project(project).backbone(self.settings)

    def spec(self, project: Project) -> TaskSpec | None:
        """What of the project's labeling config Doubtless predicts."""
        return parse_config(project.label_config).spec

    def labels(self, project: str, spec: TaskSpec) -> dict[int, str]:
        """Task -> its one answer, as a text that `spec` knows."""
        found = one_label_each(self.database, project, spec)
        return {i: text for i, text in found.items() if is_known(spec, text)}

    def versions_folder(self, project: str) -> Path:
        """Folder of a project's trained bundles."""
        return self.settings.artifacts / "versions" / project


def build(settings: Settings, *, database: Database | None = None) -> App:
    """Wire the real parts.

    Raises:
        SettingError: no Redis address is known, or a name of the model side cannot be used.
    """
    check_model_names(settings)
    if not settings.redis_url:
        raise SettingError(
            "DOUBTLESS_REDIS_URL is not set and no `doubtless up` runs on this home; start "
            "`doubtless up` (it brings its own Valkey) or set DOUBTLESS_REDIS_URL"
        )

    @lru_cache(maxsize=64)
    def platform(host: str, token: str) -> LabelStudio:
        # Shared: each new one would exchange the personal token again.
        return LabelStudio(host, token)

    def first_published(project: Project) -> None:
        ensure_tab(platform(project.host, project.token), project.platform_id)

    def piles_changed(project: Project, accept_from: float | None) -> None:
        connection = platform(project.host, project.token)
        ensure_piles(connection, project.platform_id, accept_from=accept_from)

    return App(
        settings=settings,
        database=database or Database(settings.database),
        queue=RqQueue(settings.redis_url, job_timeout_s=settings.job_timeout_s),
        features=FeatureStore(settings.artifacts / "features"),
        maps=MapStore(settings.artifacts / "maps"),
        platform_for=lambda project: platform(project.host, project.token),
        media_for=lambda project: Fetcher(platform(project.host, project.token), settings),
        first_published=first_published,
        piles_changed=piles_changed,
        backbone_for=lambda name: load_backbone(
            name, settings.cache_path, threads=settings.thread_count()
        ),
        pyramid_for=lambda name: load_pyramid(
            name, settings.cache_path, threads=settings.thread_count()
        ),
    )
