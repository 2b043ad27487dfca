"""Label Studio's JSON export as a labelled set: its answers, and where its images lie on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.edges.export_boxes import SHAPES, box_tags, boxes_of, merged_boxes
from backend.edges.export_images import ImageIndex, looks_like_image, short_name
from backend.edges.labels.choices import TYPE
from backend.edges.labels.merge import majority, majority_of_each
from backend.edges.media import Fetcher
from backend.errors import ExportError, MediaError
from backend.settings import Settings
from model.datasets import Box, Item

_GEOMETRY = frozenset(("x", "y", "points", "vertices", "rle", "start", "end"))
CLASSIFICATION, DETECTION = "classification", "detection"


@dataclass(frozen=True)
class LeftOut:
    """An image that is not replayed, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class _Labelled:
    name: str
    reference: str
    label: str | None
    labels: tuple[str, ...] | None
    boxes: tuple[Box, ...] | None
    path: Path | None


@dataclass(frozen=True)
class _Contents:
    """What the annotations hold: how many answers of each tag, and regions of other types."""

    annotations: int
    choices: Counter[str]
    boxes: Counter[str]
    others: Counter[str]


class LabelStudioExport:
    """A JSON export, read and matched with its images.

    Skips and cancelled annotations count as no answer; several annotators are merged as the loop
    does, by majority and the newest among equals. Where one annotation gives several choices at
    once the question is one with several answers, and no choice is an answer too.

    With boxes it is a set for detection, all tags' boxes together; an annotation without any says
    that there is no object.

    Args:
        path: what Label Studio's Export > JSON gave.
        settings: limits of images inside the export.
        images: folder the images lie in, at any depth; that of the export without.
        control: name of a Choices tag, or of a tag that labels boxes. Without, all boxes where
            there are any, and else the Choices tag with the most answers.
        task: where there are boxes and choices and no tag is named, ``classification`` or
            ``multilabel`` takes the choices.

    Attributes:
        name: of the export's file.
        task: ``classification`` or ``detection``.
        unlabelled: tasks without an answer.
        left_out: answered tasks that cannot be replayed.
        notes: sentences on what was assumed.

    Raises:
        ExportError: it is no such export, has no usable answer, or none of its images is there.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        images: Path | None = None,
        control: str | None = None,
        task: str = "",
    ) -> None:
        self.name = path.stem
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []
        self._path = path
        self._fetcher = Fetcher(None, settings)
        tasks = _tasks(path)
        contents = _contents(tasks)
        self._require_answers(contents, len(tasks))
        self.task = self._choose_task(contents, control, task)
        self._box_tag: str | None = None
        self._control = ""
        if self.task == DETECTION:
            self._box_tag = self._choose_box_tag(contents, control)
        else:
            self._control = self._choose_control(contents, control)
        self._several = any(
            len(set(region["value"]["choices"])) > 1
            for task in tasks
            for annotation in _answers(task)
            for region in self._regions(annotation)
        )
        if self._several:
            self.notes.append(
                f"'{self._control}' has several answers an image: sets of labels are replayed, and "
                "an annotation without one counts as none of them"
            )
        key = self._image_key(tasks)
        self._index = ImageIndex(images or path.resolve().parent)
        self._advice = "give the folder of the images with --images"
        if images is not None:
            self._advice = "give --images the folder that has them"
        self._lost: list[LeftOut] = []
        self.unlabelled = 0
        self._items = [item for task in tasks if (item := self._read(task, key)) is not None]
        self._require_items()

    def read(self) -> Iterator[Item]:
        """The answered tasks whose image is there, in the export's order."""
        for item in self._items:
            if item.path is None:
                data = self._fetcher.fetch(item.reference)
            else:
                try:
                    data = item.path.read_bytes()
                except OSError as exc:
                    raise ExportError(
                        f"{item.path} of {self._path} cannot be read: {exc.strerror or exc}"
                    ) from exc
            yield Item(item.name, data, item.label, "", item.labels, item.boxes)

    def _require_answers(self, contents: _Contents, tasks: int) -> None:
        if not contents.annotations:
            raise ExportError(
                f"{self._path} has {tasks} tasks and no annotation that was submitted; label "
                "some, then export again"
            )
        if not contents.choices and not contents.boxes:
            kinds = ", ".join(sorted(contents.others)) or "nothing"
            raise ExportError(
                f"the annotations of {self._path} hold {kinds}; simulate needs the answers of a "
                "Choices tag, or boxes"
            )

    def _choose_task(self, contents: _Contents, wanted: str | None, task: str) -> str:
        if wanted is not None and wanted not in contents.choices | contents.boxes:
            if contents.boxes:
                known = ", ".join(sorted({*contents.choices, *contents.boxes}))
                raise ExportError(
                    f"no tag '{wanted}' has answers or boxes in {self._path}; {known} has"
                )
            known = ", ".join(sorted(contents.choices))
            raise ExportError(f"no Choices tag '{wanted}' has answers in {self._path}; {known} has")
        boxed = bool(contents.boxes) if wanted is None else wanted in contents.boxes
        if wanted is None and contents.choices and task in ("classification", "multilabel"):
            boxed = False
        return DETECTION if boxed else CLASSIFICATION

    def _choose_box_tag(self, contents: _Contents, wanted: str | None) -> str | None:
        """The tag whose boxes are taken; None for all of them."""
        if wanted is None and contents.choices:
            names = ", ".join(sorted(contents.choices))
            self.notes.append(f"boxes are replayed; --control takes choices instead: {names}")
        if wanted is None and len(contents.boxes) > 1:
            names = ", ".join(sorted(contents.boxes))
            self.notes.append(f"boxes of all tags are replayed; --control takes one of: {names}")
        if contents.others:
            kinds = ", ".join(sorted(contents.others))
            self.notes.append(f"regions that are no boxes are not replayed: {kinds}")
        return wanted

    def _choose_control(self, contents: _Contents, wanted: str | None) -> str:
        control = wanted or contents.choices.most_common(1)[0][0]
        rest = sorted(set(contents.choices) - {control})
        if rest and wanted is None:
            self.notes.append(
                f"answers of '{control}' are replayed; --control takes another: {', '.join(rest)}"
            )
        return control

    def _image_key(self, tasks: Sequence[Mapping[str, Any]]) -> str:
        """The key of the tasks' data that holds the image: the export does not say."""
        found: Counter[str] = Counter()
        for task in tasks:
            found.update(key for key, value in task["data"].items() if looks_like_image(value))
        if not found:
            keys = sorted({key for task in tasks[:100] for key in task["data"]})
            raise ExportError(
                f"no task of {self._path} refers to an image; their data has: "
                f"{', '.join(keys) or 'nothing'}"
            )
        key, count = found.most_common(1)[0]
        rest = sorted(name for name, n in found.items() if name != key and n == count)
        if rest:
            self.notes.append(f"images are taken from '{key}', not from {', '.join(rest)}")
        return key

    def _read(self, task: Mapping[str, Any], key: str) -> _Labelled | None:
        label: str | None = None
        labels: tuple[str, ...] | None = None
        boxes: tuple[Box, ...] | None = None
        reason = ""
        if self.task == DETECTION:
            boxes, reason = self._read_boxes(task)
        else:
            label, labels, reason = self._read_choices(task)
        reference = str(task["data"].get(key) or "").strip()
        name = f"task {task.get('id', '?')}: {short_name(reference)}"
        if label is None and labels is None and boxes is None:
            if reason:
                self.left_out.append(LeftOut(name, reason))
            else:
                self.unlabelled += 1
            return None
        try:
            path = self._index.resolve(reference)
            if path is None:
                self._fetcher.fetch(reference)  # now, so that a broken one is only left out
        except MediaError as exc:
            self._lost.append(LeftOut(name, str(exc)))
            self.left_out.append(self._lost[-1])
            return None
        return _Labelled(name, reference, label, labels, boxes, path)

    def _read_choices(
        self, task: Mapping[str, Any]
    ) -> tuple[str | None, tuple[str, ...] | None, str]:
        """The label, or the labels, of a task; or why there are none, if it was answered."""
        given = [
            [str(c) for region in self._regions(annotation) for c in region["value"]["choices"]]
            for annotation in _answers(task)
        ]
        if self._several:
            agreed = majority_of_each([set(c) for c in given]) if given else None
            return None, None if agreed is None else tuple(sorted(agreed)), ""
        label = majority(choices[0] for choices in given if len(set(choices)) == 1)
        counts = [len(choices) for choices in given if len(set(choices)) > 1]
        reason = f"'{self._control}' has {counts[-1]} answers; one counts" if counts else ""
        return label, None, reason

    def _read_boxes(self, task: Mapping[str, Any]) -> tuple[tuple[Box, ...] | None, str]:
        """The boxes of a task; or why there are none, if it was answered."""
        given: list[list[Box]] = []
        reason = ""
        for annotation in _answers(task):
            try:
                given.append(boxes_of(annotation["result"], self._box_tag))
            except ValueError as exc:
                reason = str(exc)
        return (merged_boxes(given), "") if given else (None, reason)

    def _regions(self, annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What an annotation answers to the control."""
        return [
            region
            for region in annotation["result"]
            if _is_choice(region) and region.get("from_name") == self._control
        ]

    def _require_items(self) -> None:
        if self._items or not self.left_out:
            return
        first = (self._lost or self.left_out)[0]
        advice = f"; {self._advice}" if self._lost else ""
        raise ExportError(
            f"none of the {len(self.left_out)} answered tasks of {self._path} can be replayed, "
            f"such as {first.image}: {first.reason}{advice}"
        )


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise ExportError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ExportError(f"{path} is not JSON ({exc}); use Label Studio's Export > JSON") from exc
    if isinstance(body, dict) and isinstance(body.get("data"), dict):
        body = [body]
    if not isinstance(body, list) or not all(isinstance(task, dict) for task in body):
        raise ExportError(f"{path} is no list of tasks; use Label Studio's Export > JSON")
    if not body:
        raise ExportError(f"{path} has no tasks; label some, then export again")
    for task in body:
        if not isinstance(task.get("data"), dict):
            raise ExportError(
                f"{path} has no 'data' in its tasks; use Label Studio's Export > JSON, not JSON-MIN"
            )
    return body


def _answers(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Submitted annotations, oldest first; their results are lists of objects."""
    given = [
        a
        for a in task.get("annotations") or task.get("completions") or []
        if isinstance(a, dict) and not a.get("was_cancelled")
    ]
    given.sort(key=lambda a: (str(a.get("updated_at") or ""), str(a.get("id") or "").zfill(20)))
    return [
        {**a, "result": [r for r in a.get("result") or [] if isinstance(r, dict)]} for a in given
    ]


def _contents(tasks: Sequence[Mapping[str, Any]]) -> _Contents:
    annotations = 0
    choices: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for task in tasks:
        for annotation in _answers(task):
            annotations += 1
            result = annotation["result"]
            boxes = list(box_tags(result))
            drawn.update(boxes)
            for region in result:
                kind = str(region.get("type"))
                if _is_choice(region):
                    choices[str(region.get("from_name"))] += 1
                elif kind == TYPE:
                    others["choices that are no list of answers, or of a region"] += 1
                elif kind not in SHAPES and not (kind == "labels" and boxes):
                    others[kind] += 1
    return _Contents(annotations, choices, drawn, others)


def _is_choice(region: Mapping[str, Any]) -> bool:
    """Whether it answers a question about the whole image."""
    value = region.get("value")
    return (
        region.get("type") == TYPE
        and isinstance(value, dict)
        and isinstance(value.get("choices"), list)
        and bool(value["choices"])
        and not _GEOMETRY & value.keys()
    )
