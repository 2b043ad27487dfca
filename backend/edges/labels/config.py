"""From a labeling config to what is predicted: boxes on an image, or one question about it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from backend.errors import MediaError, UnsupportedConfigError

MAX_CONFIG_CHARS = 1_000_000
UNDEFINED_KEY = "$undefined$"  # where Label Studio keeps files uploaded before the config was set
_VARIABLE = re.compile(r"\$([^\s$/{}\[\].]+)")
_NO_CONTROL = frozenset({"filter", "image", "relations"})
CHOICES = "choices"
RECTANGLE_LABELS = "rectanglelabels"
ELLIPSE_LABELS = "ellipselabels"
RECTANGLE = "rectangle"  # a Rectangle tag, named by a Labels tag
_LABELS = "labels"
_PREDICTED = "Choices and boxes (RectangleLabels, EllipseLabels, Rectangle with Labels)"
# What to put into a config of which nothing can be predicted.
NEEDED = (
    "one <RectangleLabels>, <EllipseLabels>, or <Rectangle> with <Labels>, or one <Choices> with "
    'choice="single" or choice="multiple", whose toName is an <Image value="$key">'
)


@dataclass(frozen=True)
class TaskSpec:
    """What to predict, and how its result is addressed.

    Attributes:
        control: name of the Choices, RectangleLabels, EllipseLabels or Rectangle tag.
        object: name of the Image tag.
        value_key: key of the task's data that holds the image reference.
        classes: labels as results spell them (an alias before its value), config order.
        config_hash: changes when a model of the old config no longer fits; not with the order of
            the classes or the look of the page.
        multiple: an image may have several of the classes, or none.
        required: with `multiple`, none is no answer: Label Studio does not take it.
        kind: ``choices``, or how boxes are drawn: ``rectanglelabels``, ``ellipselabels`` (the
            ellipse that touches the sides of a box), or ``rectangle`` named by a Labels tag.
        labels_control: name of that Labels tag.
    """

    control: str
    object: str
    value_key: str
    classes: tuple[str, ...]
    config_hash: str
    multiple: bool = False
    required: bool = False
    kind: str = CHOICES
    labels_control: str = ""

    @property
    def boxes(self) -> bool:
        """Whether objects on the image are predicted, not an answer about the whole of it."""
        return self.kind != CHOICES

    def reference(self, data: Mapping[str, Any], task_id: int | None = None) -> str:
        """The image reference in a task's data.

        Raises:
            MediaError: there is none, or it is no text.
        """
        where = "the task" if task_id is None else f"task {task_id}"
        value = data.get(self.value_key, data.get(UNDEFINED_KEY))
        if isinstance(value, str) and value.strip():
            return value.strip()
        if value is None:
            has = ", ".join(sorted(map(str, data))) or "nothing"
            raise MediaError(
                f"{where} has no image under '{self.value_key}' (it has: {has}); check "
                f'value="${self.value_key}" in the labeling config.'
            )
        kind = "an empty text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise MediaError(
            f"{where} has {kind} under '{self.value_key}' where the address of an image belongs."
        )


@dataclass(frozen=True)
class ParsedConfig:
    """What a labeling config holds for us.

    Attributes:
        spec: what Doubtless predicts, or ``None`` when nothing in the config can be predicted.
        problems: one sentence for each tag that is left to people, or is wrong.
    """

    spec: TaskSpec | None
    problems: tuple[str, ...]

    def require_spec(self) -> TaskSpec:
        """The spec.

        Raises:
            UnsupportedConfigError: there is none; the message names the reasons.
        """
        if self.spec is None:
            why = " ".join(self.problems) or "It has no Choices tag and none that draws boxes."
            raise UnsupportedConfigError(
                f"Nothing in the labeling config can be predicted. {why} Doubtless needs {NEEDED}."
            )
        return self.spec


@dataclass(frozen=True)
class _Control:
    """A control tag that can be predicted; `names` is the Labels tag of a Rectangle."""

    tag: ElementTree.Element
    kind: str
    names: ElementTree.Element | None = None

    @property
    def label(self) -> str:
        return _label(self.tag)


def parse_config(label_config: str) -> ParsedConfig:
    """Find what is predicted; never raises.

    Boxes come before Choices, since they are the more work; of several tags for boxes the first is
    taken, of several Choices the first with a single answer or else the first.

    Entities are refused rather than expanded: the config is written by others.
    """
    try:
        root = _root(label_config)
    except ValueError as exc:
        return ParsedConfig(None, (str(exc),))
    images, problems = _images(root)
    naming = _naming(root, images)
    usable: list[_Control] = []
    for tag in root.iter():
        kind = tag.tag.lower()
        if kind in _NO_CONTROL or not tag.get("toName"):
            continue
        if kind not in (CHOICES, RECTANGLE_LABELS, ELLIPSE_LABELS, RECTANGLE, _LABELS):
            problems.append(f"{_label(tag)} is left to people: only {_PREDICTED} are predicted.")
            continue
        reason = _unusable(tag, images)
        names = naming.get(_about(tag))
        if reason is None and kind == RECTANGLE and names is None:
            reason = f"has no usable Labels on '{_about(tag)}' that could name what it draws"
        if reason is None and kind == _LABELS:
            reason = _names_nothing(tag, names, root)
        if reason:
            problems.append(f"{_label(tag)} {reason}.")
        elif kind != _LABELS:
            usable.append(_Control(tag, kind, names if kind == RECTANGLE else None))
    taken = min(usable, key=_rank, default=None)  # the first of its kind
    if taken is None:
        return ParsedConfig(None, tuple(problems))
    for control in usable:
        if control is not taken:
            why = f"{taken.label} comes first"
            if taken.kind != CHOICES and control.kind == CHOICES:
                why = f"the boxes of {taken.label} are predicted"
            problems.append(f"{control.label} is left to people: {why}.")
    return ParsedConfig(_spec(taken, images), tuple(problems))


def _label(tag: ElementTree.Element) -> str:
    return f"{tag.tag} '{tag.get('name') or ''}'"


def _about(tag: ElementTree.Element) -> str:
    return (tag.get("toName") or "").strip()


def _rank(control: _Control) -> int:
    if control.kind != CHOICES:
        return 0
    return 2 if _is_multiple(control.tag) else 1


def _naming(root: ElementTree.Element, images: Mapping[str, str]) -> dict[str, ElementTree.Element]:
    """Image -> the first usable Labels tag on it."""
    found: dict[str, ElementTree.Element] = {}
    for tag in root.iter():
        if tag.tag.lower() == _LABELS and _unusable(tag, images) is None:
            found.setdefault(_about(tag), tag)
    return found


def _names_nothing(
    tag: ElementTree.Element, names: ElementTree.Element | None, root: ElementTree.Element
) -> str | None:
    """Why a usable Labels tag names no rectangle, as the end of a sentence, or ``None``."""
    if names is not None and names is not tag:
        return f"is left to people: {_label(names)} comes first"
    drawn = (t for t in root.iter() if t.tag.lower() == RECTANGLE)
    if any(_about(t) == _about(tag) for t in drawn):
        return None
    return f"is left to people: no Rectangle on '{_about(tag)}' draws what it could name"


def _root(label_config: str) -> ElementTree.Element:
    if not isinstance(label_config, str) or not label_config.strip():
        raise ValueError("The labeling config is empty.")
    if len(label_config) > MAX_CONFIG_CHARS:
        raise ValueError(
            f"The labeling config has {len(label_config)} characters, over {MAX_CONFIG_CHARS}."
        )
    if "<!DOCTYPE" in label_config or "<!ENTITY" in label_config:
        raise ValueError(
            "The labeling config declares XML entities, which is refused; remove them."
        )
    try:
        return ElementTree.fromstring(label_config)
    except (ElementTree.ParseError, ValueError) as exc:
        raise ValueError(f"The labeling config is not valid XML: {exc}.") from exc


def _images(root: ElementTree.Element) -> tuple[dict[str, str], list[str]]:
    """Usable Image tags, name to data key, and a sentence on each of the others."""
    usable: dict[str, str] = {}
    problems: list[str] = []
    for tag in root.iter():
        name = tag.get("name")
        if tag.tag.lower() != "image" or not name:
            continue
        value = (tag.get("value") or "").strip()
        if tag.get("valueList"):
            problems.append(f"Image '{name}' shows several images (valueList); one is supported.")
            continue
        match = _VARIABLE.fullmatch(value)
        if match is None:
            problems.append(
                f'Image \'{name}\' has value="{value}"; only a whole key such as "$image" is '
                "supported."
            )
            continue
        usable[name] = match.group(1)
    return usable, problems


def _unusable(tag: ElementTree.Element, images: Mapping[str, str]) -> str | None:
    """Why a tag cannot be predicted, as the end of a sentence, or ``None``."""
    kind, to_name = tag.tag.lower(), _about(tag)
    classes, inside = ("choices", "Choice") if kind == CHOICES else ("labels", "Label")
    if not tag.get("name"):
        return "has no name"
    for attribute, meaning in (
        ("perRegion", "asks about regions, not images"),
        ("perItem", "asks about the items of a series, not about one image"),
        ("allowNested", "is a tree of choices; use a flat list"),
    ):
        if (tag.get(attribute) or "").strip().lower() == "true":
            return f"{meaning} ({attribute})"
    if tag.get("visibleWhen"):
        return "shows only under a condition (visibleWhen)"
    if "," in to_name:
        return f'is about several objects (toName="{to_name}")'
    if to_name not in images:
        return f"is about '{to_name}', which is no usable Image tag"
    if kind == RECTANGLE:
        return None
    if (tag.get("value") or "").startswith("$"):
        return f"takes its {classes} from the task's data; write them in the config"
    if not _classes(tag):
        return f"has no {inside} inside"
    return None


def _classes(tag: ElementTree.Element) -> tuple[str, ...]:
    """What results call the answers that a tag offers, each once."""
    inside = "choice" if tag.tag.lower() == CHOICES else "label"
    values = (c.get("alias") or c.get("value") for c in tag.iter() if c.tag.lower() == inside)
    return tuple(dict.fromkeys(value for value in values if value))


def _is_multiple(tag: ElementTree.Element) -> bool:
    return (tag.get("choice") or "single").strip().lower() == "multiple"


def _spec(taken: _Control, images: Mapping[str, str]) -> TaskSpec:
    tag, image = taken.tag, _about(taken.tag)
    control, key = str(tag.get("name")), images[image]
    if taken.kind != CHOICES:
        classes = _classes(tag if taken.names is None else taken.names)
        names = "" if taken.names is None else str(taken.names.get("name"))
        digest = _hash([taken.kind, control, names, image, key, sorted(classes)])
        return TaskSpec(control, image, key, classes, digest, kind=taken.kind, labels_control=names)
    classes, multiple = _classes(tag), _is_multiple(tag)
    required = multiple and (tag.get("required") or "").strip().lower() == "true"
    asked: list[Any] = [control, image, key, sorted(classes)]
    if multiple:
        asked.append(["multiple", required])
    return TaskSpec(control, image, key, classes, _hash(asked), multiple, required)


def _hash(asked: list[Any]) -> str:
    return hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()[:16]
