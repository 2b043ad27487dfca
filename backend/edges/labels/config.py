"""From a labeling config to what Doubtless predicts: one question about one image."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from backend.errors import MediaError, UnsupportedConfigError

MAX_CONFIG_CHARS = 1_000_000
UNDEFINED_KEY = "$undefined$"  # where Label Studio keeps files uploaded before the config was set
_VARIABLE = re.compile(r"\$([^\s$/{}\[\].]+)")
_NO_CONTROL = frozenset({"filter", "image", "relations"})


@dataclass(frozen=True)
class TaskSpec:
    """What to predict, and how its result is addressed.

    Attributes:
        control: name of the Choices tag.
        object: name of the Image tag.
        value_key: key of the task's data that holds the image reference.
        classes: labels as results spell them (a Choice's alias before its value), config order.
        config_hash: changes when a model of the old config no longer fits; not with the order of
            the choices or the look of the page.
        multiple: an image may have several of the classes, or none.
        required: with `multiple`, none is no answer: Label Studio does not take it.
    """

    control: str
    object: str
    value_key: str
    classes: tuple[str, ...]
    config_hash: str
    multiple: bool = False
    required: bool = False

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
            why = " ".join(self.problems) or "It has no Choices tag."
            raise UnsupportedConfigError(
                f"Nothing in the labeling config can be predicted. {why} Doubtless needs one "
                '<Choices> with choice="single" or choice="multiple" whose toName is an '
                '<Image value="$key">.'
            )
        return self.spec


def parse_config(label_config: str) -> ParsedConfig:
    """Find the first usable Choices tag, before all others one with a single answer; never raises.

    Entities are refused rather than expanded: the config is written by others.
    """
    try:
        root = _root(label_config)
    except ValueError as exc:
        return ParsedConfig(None, (str(exc),))
    images, problems = _images(root)
    usable: list[ElementTree.Element] = []
    for tag in root.iter():
        name, to_name = tag.get("name"), tag.get("toName")
        if tag.tag.lower() in _NO_CONTROL or not to_name:
            continue
        label = f"{tag.tag} '{name or ''}'"
        if tag.tag.lower() != "choices":
            problems.append(f"{label} is left to people: only Choices are predicted.")
            continue
        reason = _unusable(tag, images)
        if reason:
            problems.append(f"{label} {reason}.")
        else:
            usable.append(tag)
    taken = min(usable, key=_is_multiple, default=None)  # the first of its kind
    if taken is None:
        return ParsedConfig(None, tuple(problems))
    for tag in usable:
        if tag is not taken:
            which = f"Choices '{taken.get('name')}' comes first"
            problems.append(f"Choices '{tag.get('name')}' is left to people: {which}.")
    return ParsedConfig(_spec(taken, images), tuple(problems))


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
    """Why a Choices tag cannot be predicted, as the end of a sentence, or ``None``."""
    to_name = (tag.get("toName") or "").strip()
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
    if (tag.get("value") or "").startswith("$"):
        return "takes its choices from the task's data; write them in the config"
    if not _classes(tag):
        return "has no Choice inside"
    return None


def _classes(tag: ElementTree.Element) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_choice_values(tag)))


def _choice_values(tag: ElementTree.Element) -> Iterator[str]:
    for child in tag.iter():
        if child.tag.lower() == "choice":
            value = child.get("alias") or child.get("value")
            if value:
                yield value


def _is_multiple(tag: ElementTree.Element) -> bool:
    return (tag.get("choice") or "single").strip().lower() == "multiple"


def _spec(tag: ElementTree.Element, images: Mapping[str, str]) -> TaskSpec:
    control, image = str(tag.get("name")), str(tag.get("toName")).strip()
    classes, multiple = _classes(tag), _is_multiple(tag)
    required = multiple and (tag.get("required") or "").strip().lower() == "true"
    asked: list[Any] = [control, image, images[image], sorted(classes)]
    if multiple:
        asked.append(["multiple", required])
    digest = hashlib.sha256(json.dumps(asked, ensure_ascii=True).encode()).hexdigest()[:16]
    return TaskSpec(control, image, images[image], classes, digest, multiple, required)
