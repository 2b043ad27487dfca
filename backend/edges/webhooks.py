"""What Label Studio posts to /webhook, read into one type."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.edges.labelstudio_records import AnnotationRecord
from backend.errors import BadRequestError, PlatformError

START_TRAINING = "START_TRAINING"
ANNOTATION_ACTIONS = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
)
TASK_ACTIONS = frozenset({"TASKS_CREATED", "TASKS_DELETED"})
PROJECT_UPDATED = "PROJECT_UPDATED"
# Asked for at registration; START_TRAINING comes through the backend row, not the webhook.
WANTED_ACTIONS = tuple(sorted(ANNOTATION_ACTIONS | TASK_ACTIONS | {PROJECT_UPDATED}))


@dataclass(frozen=True)
class Event:
    """One event of one project.

    Attributes:
        action: Label Studio's name of it; unknown ones are passed on for the caller to ignore.
        project_id: the project.
        project_uid: ``"id.created"`` as /setup and /predict name the project; it changes when the
            database of Label Studio is made anew and ids begin again at 1.
        annotation_ids: of created, updated or deleted annotations.
        task_ids: their tasks, or the tasks created or deleted; empty for ANNOTATIONS_DELETED,
            which does not say them.
        annotations: whole annotations, skips included; empty for deletions.
        label_config: the project's config at that moment, if the event carries it.
        key: the same for the same event sent twice. START_TRAINING and PROJECT_UPDATED carry
            nothing to tell a repetition by, so each gets a key of its own.
    """

    action: str
    project_id: int
    project_uid: str
    annotation_ids: tuple[int, ...]
    task_ids: tuple[int, ...]
    annotations: tuple[AnnotationRecord, ...]
    label_config: str | None
    key: str


def project_uid(project: Mapping[str, Any]) -> str:
    """``"id.created"`` of a project as the API or a webhook describes it.

    Raises:
        BadRequestError: `id` or `created_at` is missing or of another kind.

    Example:
        >>> project_uid({"id": 4, "created_at": "2026-11-23T20:36:03.500000Z"})
        '4.1795466163'
    """
    try:
        created = datetime.fromisoformat(str(project["created_at"]))
        return f"{_id(project['id'])}.{int(created.timestamp())}"
    except (KeyError, ValueError, OverflowError) as exc:
        raise BadRequestError(f"the project lacks a usable id or created_at ({exc}).") from exc


def parse_event(body: Any) -> Event:
    """Read the body of a webhook.

    Raises:
        BadRequestError: it is no object, or lacks its action, project or ids.
    """
    if not isinstance(body, Mapping):
        raise BadRequestError(f"the event must be a JSON object, got {type(body).__name__}.")
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise BadRequestError("the event has no 'action'.")
    project = body.get("project")
    if not isinstance(project, Mapping):
        raise BadRequestError(f"the event {action} has no 'project' object.")
    uid = project_uid(project)
    annotation_bodies = _objects(action, body, "annotation", "annotations")
    task_bodies = _objects(action, body, "task", "tasks")
    deleted = action.endswith("_DELETED")
    annotations: tuple[AnnotationRecord, ...] = ()
    if not deleted:
        try:
            annotations = tuple(AnnotationRecord.from_json(dict(a)) for a in annotation_bodies)
        except PlatformError as exc:
            raise BadRequestError(f"the event {action} has an unusable annotation: {exc}") from exc
    annotation_ids = tuple(_id(a.get("id")) for a in annotation_bodies)
    task_ids = tuple(_id(t.get("id")) for t in task_bodies) or tuple(
        dict.fromkeys(_id(a.task_id) for a in annotations)
    )
    if action in ANNOTATION_ACTIONS and not annotation_ids:
        raise BadRequestError(f"the event {action} names no annotation.")
    if action in TASK_ACTIONS and not task_ids:
        raise BadRequestError(f"the event {action} names no task.")
    config = project.get("label_config")
    return Event(
        action=action,
        project_id=_id(project.get("id")),
        project_uid=uid,
        annotation_ids=annotation_ids,
        task_ids=task_ids,
        annotations=annotations,
        label_config=config if isinstance(config, str) else None,
        key=_key(action, uid, annotation_bodies or task_bodies),
    )


def _objects(
    action: str, body: Mapping[str, Any], singular: str, plural: str
) -> list[Mapping[str, Any]]:
    """The objects of an event: Label Studio puts one, or a list, under either name."""
    found = body.get(singular, body.get(plural))
    items = [] if found is None else found if isinstance(found, list) else [found]
    for item in items:
        if not isinstance(item, Mapping):
            raise BadRequestError(f"the event {action} has {item!r:.100} where an object belongs.")
    return items


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise BadRequestError(f"the event has {value!r:.100} where an id belongs.")
    return value


def _key(action: str, uid: str, objects: list[Mapping[str, Any]]) -> str:
    if not objects:
        return f"{action}:{uid}:{uuid.uuid4().hex}"
    what = sorted([str(o.get("id")), str(o.get("updated_at"))] for o in objects)
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return f"{action}:{uid}:{digest[:24]}"
