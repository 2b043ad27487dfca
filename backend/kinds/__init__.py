"""What differs between projects that ask for choices and projects that ask for boxes.

Everything else, from webhooks to publishing, is the same for both. A new kind is a new file.
"""

from __future__ import annotations

from backend.edges.labels.config import TaskSpec, parse_config
from backend.kinds.base import Fitted, Kind, Said
from backend.kinds.boxes import Boxes
from backend.kinds.choices import Choices
from backend.records import Project
from backend.settings import Settings

__all__ = ["Fitted", "Kind", "Said", "backbone_of", "kind_of"]

_CHOICES, _BOXES = Choices(), Boxes()


def kind_of(spec: TaskSpec | None) -> Kind:
    """The kind of a project; choices where nothing can be predicted."""
    return _BOXES if spec is not None and spec.boxes else _CHOICES


def backbone_of(settings: Settings, project: Project) -> str:
    """Name of the network that reads a project's images."""
    return kind_of(parse_config(project.label_config).spec).backbone(settings)
