"""What differs between projects that ask for choices and projects that ask for boxes.

Everything else, from webhooks to publishing, is the same for both. A new kind is a new file.
"""

from __future__ import annotations

from backend.edges.labels.config import TaskSpec, parse_config
from backend.kinds.base import Fitted, Kind, Said
from backend.kinds.boxes import Boxes
from backend.kinds.choices import Choices
from backend.records import Project

__all__ = ["Fitted", "Kind", "Said", "kind_of", "kind_of_project"]

_CHOICES, _BOXES = Choices(), Boxes()


def kind_of(spec: TaskSpec | None) -> Kind:
    """The kind of a project; choices where nothing can be predicted."""
    return _BOXES if spec is not None and spec.boxes else _CHOICES


def kind_of_project(project: Project) -> Kind:
    """The kind that a project's labeling config asks for."""
    return kind_of(parse_config(project.label_config).spec)
