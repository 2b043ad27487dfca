"""Answers ``/predict``: one prediction for each task, whatever a single task does."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from backend.app import App
from backend.edges.labels import answers
from backend.edges.labels.config import TaskSpec
from backend.edges.labels.results import to_result
from backend.errors import MediaError
from backend.jobs.sync import reference_of
from backend.kinds import kind_of
from backend.kinds.base import Model
from backend.ordering import UNREADABLE, published_score
from backend.records import Project, Score, Version
from model.errors import ModelError

log = logging.getLogger(__name__)

NO_VERSION = "v0"
# Bundles kept in memory: the least recently used one goes first.
KEPT = 8


class Predictor:
    """Predictions of live versions, from stored scores where there are any."""

    def __init__(self, app: App, *, budget_s: float = 60.0) -> None:
        """Label Studio gives up after 100 s, so images beyond `budget_s` stay for the workers."""
        self.app = app
        self.budget_s = budget_s
        self._bundles: OrderedDict[tuple[str, int], Model] = OrderedDict()
        self._lock = threading.Lock()
        self._network = threading.Lock()

    def version_name(self, project: Project) -> str:
        """Name of the live version; ``/setup`` and ``/predict`` must agree on it."""
        if project.live_version is None:
            return NO_VERSION
        return self.app.database.version(project.key, project.live_version).name

    def predict(self, project: Project, tasks: Sequence[Any]) -> list[dict[str, Any]]:
        """One prediction a task, in order, all of one version.

        A task that cannot be predicted gets an empty result and stands last in the queue; its
        reason is in the log and, for unreadable images, in ``doubtless status``.
        """
        version = (
            None
            if project.live_version is None
            else self.app.database.version(project.key, project.live_version)
        )
        name = NO_VERSION if version is None else version.name
        spec = self.app.spec(project)
        if version is None or spec is None:
            return [_empty(name) for _ in tasks]
        ids = [_id(t) for t in tasks if _id(t) >= 0]
        said = self.app.database.scores(project.key, version.number, ids)
        missing = [
            t
            for t in tasks
            if _id(t) >= 0 and _id(t) not in said and isinstance(t.get("data"), dict)
        ]
        usable = version.is_of(version.config_hash, self.app.backbone_name(project))
        if missing and version.bundle is not None and usable:
            try:
                said |= self._compute(project, version, spec, missing)
            except Exception:  # one bad batch must not cost the tasks that have stored scores
                log.exception("predicting %d tasks of %s failed", len(missing), project.key)
        return [self._answer(spec, name, said.get(_id(task))) for task in tasks]

    def _answer(self, spec: TaskSpec, name: str, row: Score | None) -> dict[str, Any]:
        if row is None:
            return _empty(name)
        # What somebody is to check blind is told nobody who may come upon it.
        known = answers.is_prediction(spec, row.label) and not row.hidden
        return {
            "result": to_result(spec, str(row.label), row.p_right, row.probs) if known else [],
            "score": row.score,
            "model_version": name,
        }

    def _bundle(self, project: Project, version: Version) -> Model:
        key = (project.key, version.number)
        with self._lock:
            if key in self._bundles:
                self._bundles.move_to_end(key)
                return self._bundles[key]
        kind = kind_of(self.app.spec(project))
        bundle = kind.load(self.app.versions_folder(project.key) / str(version.bundle))
        with self._lock:
            self._bundles[key] = bundle
            while len(self._bundles) > KEPT:
                self._bundles.popitem(last=False)
        return bundle

    def _compute(
        self,
        project: Project,
        version: Version,
        spec: TaskSpec,
        tasks: Sequence[Mapping[str, Any]],
    ) -> dict[int, Score]:
        """Predict tasks the version has no stored score of; nothing is published from here."""
        bundle = self._bundle(project, version)
        deadline = time.monotonic() + self.budget_s
        references = {int(t["id"]): reference_of(spec, dict(t["data"])) for t in tasks}
        kind = kind_of(spec)
        owners: dict[str, list[int]] = {}
        fresh: list[tuple[str, bytes]] = []
        for task_id, got in self.app.media_for(project).fetch_many(references.items()):
            if isinstance(got, MediaError):
                log.warning("task %s: %s", task_id, got)
            else:
                key = hashlib.sha256(got).hexdigest()
                owners.setdefault(key, []).append(task_id)
                if len(owners[key]) == 1:
                    fresh.append((key, got))
            if time.monotonic() > deadline:
                log.warning(
                    "%d tasks asked for at once: the rest is left to the workers", len(tasks)
                )
                break
        # One at a time: the feature store is for one thread, and two networks would only compete.
        with self._network:
            cached = {key for key, _ in fresh} - set(kind.missing(self.app, list(owners)))
            fresh = [(key, data) for key, data in fresh if key not in cached]
            with closing(kind.read(self.app, iter(fresh))) as batches:
                for _, errors in batches:
                    for key, why in errors.items():
                        log.warning("tasks %s: %s", owners.pop(key), why)
                    if time.monotonic() > deadline:
                        break
            absent = set(kind.missing(self.app, list(owners)))
            usable = [key for key in owners if key not in absent]
            features = self.app.features.load(kind.code(self.app), usable)
        if not usable:
            return {}
        try:
            said = kind.say(
                self.app,
                bundle,
                spec,
                keys=usable,
                features=features,
                progress=lambda share, what: None,
            )
        except ModelError as exc:
            log.error("version %s of %s: %s", version.name, project.key, exc)
            return {}
        return {
            task_id: Score(
                task_id=task_id,
                label=said.label[n],
                score=published_score(float(said.p_right[n])),
                p_right=float(said.p_right[n]),
                probs=said.probs[n],
            )
            for n, key in enumerate(usable)
            for task_id in owners[key]
        }


def _id(task: Any) -> int:
    found = task.get("id") if isinstance(task, dict) else None
    return found if type(found) is int else -1  # True is an int as well


def _empty(version: str) -> dict[str, Any]:
    return {"result": [], "score": UNREADABLE, "model_version": version}
