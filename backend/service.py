"""The model as label-studio-ml knows it; the only file that imports that package.

Two lines of it are in use and both must load this class: the release on PyPI (1.0.9:
``fit(tasks, workdir, **kwargs)``) and the repository's 2.x (``fit(event, data, **kwargs)``).
Its servers are never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from backend.app import App, build
from backend.errors import BadRequestError, UnknownProjectError
from backend.events import request_training
from backend.predictor import Predictor
from backend.records import Project
from backend.settings import Settings


@contextmanager
def _torch_hidden() -> Iterator[None]:
    """Both lines import torch, if it is there, only to set multiprocessing's start method.

    That costs the web process 3 s and 200 MB, and would change how every library forks.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an ImportError is what the lines below are to see
    try:
        yield
    finally:
        del sys.modules["torch"]


with _torch_hidden():
    from label_studio_ml.model import LabelStudioMLBase


@lru_cache(maxsize=1)
def _default() -> Predictor:
    return Predictor(build(Settings.load()))


class DoubtlessModel(LabelStudioMLBase):  # type: ignore[misc]  # the package is untyped
    """One project's model, made anew for a request; everything kept is in the stores.

    Args:
        project_id: the whole ``"id.created"`` string that Label Studio sends.
        label_config: the project's labeling config.
        predictor: what answers; made from the settings when another server loads this class.
        project: the connected project, if the caller knows it already.
    """

    def __init__(
        self,
        project_id: str | None = None,
        label_config: str | None = None,
        *,
        predictor: Predictor | None = None,
        project: Project | None = None,
        **kwargs: Any,
    ) -> None:
        # The base classes of the two lines share no constructor: 1.0.9's reads environment
        # variables, 2.x's opens a cache.db in the current folder. Neither holds state we need.
        self.project_id = project_id or str(kwargs.get("project") or "")
        self.hostname = str(kwargs.get("hostname") or "")
        self.access_token = ""
        self._label_config = label_config
        self._predictor = predictor
        self._project = project

    @property
    def predictor(self) -> Predictor:
        """What answers."""
        if self._predictor is None:
            self._predictor = _default()
        return self._predictor

    @property
    def project(self) -> Project:
        """The connected project this model is for.

        Raises:
            UnknownProjectError: it is not connected.
        """
        if self._project is None:
            self._project = find_project(self.predictor.app, self.project_id)
        return self._project

    @property
    def model_version(self) -> str:
        """Name of the live version."""
        return self.predictor.version_name(self.project)

    @property
    def label_config(self) -> str:
        """The labeling config in force."""
        return self._label_config or self.project.label_config

    def get(self, key: str) -> Any:
        """What the 2.x server asks the cache of its base class for; ours is the database."""
        return {"model_version": self.model_version, "label_config": self.label_config}.get(key)

    def has(self, key: str) -> bool:
        """Whether `get` knows that key."""
        return key in ("model_version", "label_config")

    def setup(self) -> None:
        """Nothing to load: versions are read when first asked for."""

    def set_extra_params(self, extra_params: Any) -> None:
        """Accepted and not used; settings are the server's."""

    def predict(
        self, tasks: Sequence[Any], context: Any = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One prediction a task, in order."""
        return self.predictor.predict(self.project, tasks)

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Ask for a training in a worker; never trains here, where a person is waiting."""
        event = kwargs.get("event") or next((a for a in args if isinstance(a, str)), "fit")
        request_training(self.predictor.app.database, self.project, f"asked for by {event}")
        return {"status": "queued", "model_version": self.model_version}


def find_project(app: App, uid: str) -> Project:
    """The connected project of that ``"id.created"`` string.

    Raises:
        UnknownProjectError: it is not connected.
        BadRequestError: two Label Studios have a project of that id and second.
    """
    # The server of the 2.x line cuts the creation time off and passes the bare id.
    bare = int(uid) if uid.isdecimal() else None
    found = app.database.find_projects(uid=uid if bare is None else None, platform_id=bare)
    if not found:
        number = uid.partition(".")[0] or "ID"
        raise UnknownProjectError(
            f"project '{uid}' is not connected to Doubtless; run `doubtless connect --url URL "
            f"--token TOKEN --project {number}`"
        )
    if len(found) > 1:
        raise BadRequestError(
            f"project '{uid}' exists on {', '.join(p.host for p in found)}; run "
            "`doubtless connect` for both, so that each sends its own password"
        )
    return found[0]
