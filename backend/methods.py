"""Which estimator and which acquisition rule a project uses: the installation's, or its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.errors import BadRequestError
from backend.records import Project, Version
from backend.settings import Settings
from model.acquisition import ACQUISITIONS, require
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.passes import BOX_ESTIMATORS
from model.errors import ModelError
from model.uncertainty import ESTIMATORS

ESTIMATOR, ACQUISITION = "estimator", "acquisition"
DEFAULT = "default"  # go back to what the installation uses


@dataclass(frozen=True)
class Methods:
    """What a kind of project may choose from.

    Attributes:
        settings: setting of the installation for each of `ESTIMATOR` and `ACQUISITION`.
        known: names of each, with what stands behind them.
    """

    settings: Mapping[str, str]
    known: Mapping[str, Mapping[str, Any]]


_CHOICES = Methods(
    {ESTIMATOR: "estimator", ACQUISITION: "acquisition"},
    {ESTIMATOR: ESTIMATORS, ACQUISITION: ACQUISITIONS},
)
_BOXES = Methods(
    {ESTIMATOR: "box_estimator", ACQUISITION: "box_acquisition"},
    {ESTIMATOR: BOX_ESTIMATORS, ACQUISITION: BOX_ACQUISITIONS},
)


def methods_of(project: Project) -> Methods:
    """What the project's kind may choose from."""
    spec = parse_config(project.label_config).spec
    return _BOXES if spec is not None and spec.boxes else _CHOICES


def settings_of(settings: Settings, project: Project) -> Settings:
    """The settings with what the project has chosen for itself."""
    names = methods_of(project).settings
    # What was chosen for boxes says nothing once the config asks for choices, and back.
    known = methods_of(project).known
    chosen: dict[str, Any] = {
        names[what]: name for what, name in project.methods.items() if name in known[what]
    }
    return replace(settings, **chosen) if chosen else settings


def in_force(
    settings: Settings, database: Database, project: Project, live: Version | None
) -> dict[str, Any]:
    """The estimator and the acquisition rule of the next version, as plain values.

    With the installation's own, and those of the live version where that is known.
    """
    names, own = methods_of(project).settings, settings_of(settings, project)
    chosen = [] if live is None else database.acquired(project.key, live.number)[:1]
    of_live = {
        ESTIMATOR: None if live is None else live.metrics.get("estimator"),
        ACQUISITION: chosen[0][1] if chosen else None,
    }
    return {
        what: {
            "chosen": getattr(own, name),
            "default": getattr(settings, name),
            "live": of_live[what],
        }
        for what, name in names.items()
    }


def options(project: Project) -> dict[str, list[dict[str, str]]]:
    """Names that the project may choose, and what each is, in a line."""
    return {
        what: [{"name": name, "what": _first_line(entry)} for name, entry in known.items()]
        for what, known in methods_of(project).known.items()
    }


def _first_line(entry: Any) -> str:
    rule = getattr(entry, "choose", entry)
    text = inspect.getdoc(rule if inspect.isfunction(rule) else type(entry)) or ""
    return text.split("\n")[0]


def choose(settings: Settings, project: Project, wanted: Mapping[str, str]) -> dict[str, str]:
    """What a project has chosen once it chooses something more.

    Args:
        settings: of the installation.
        project: whose.
        wanted: name of an `ESTIMATOR`, an `ACQUISITION` or both; `DEFAULT` is the installation's.

    Returns:
        For `Project.methods`.

    Raises:
        BadRequestError: there is no such name for the project's kind, or the rule cannot work with
            the estimator.
    """
    methods, chosen = methods_of(project), dict(project.methods)
    try:
        for what, name in wanted.items():
            if name == DEFAULT:
                chosen.pop(what, None)
            else:
                methods.known[what][name]  # explains an unknown name
                chosen[what] = name
        own = settings_of(settings, replace(project, methods=chosen))
        if methods is _CHOICES:
            family = ESTIMATORS[own.estimator]
            require(own.acquisition, passes=family.passes, joint=family.joint)
    except ModelError as exc:
        raise BadRequestError(str(exc)) from None
    return chosen
