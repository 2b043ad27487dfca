"""What Label Studio's API tells, as records: read once, checked once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backend.errors import PlatformError

JsonObject = dict[str, Any]


@contextmanager
def _reading(what: str, body: JsonObject) -> Iterator[None]:
    """Turn a field that is missing or of another type into one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise PlatformError(
            f"{what} of Label Studio cannot be read ({exc!r}): {body!r:.200}"
        ) from exc


@dataclass(frozen=True)
class AnnotationRecord:
    """One person's answer to one task.

    Attributes:
        result: regions as Label Studio stores them; empty for a skip.
        was_cancelled: the person skipped the task.
        completed_by: id of the person, or ``None`` when the user is deleted.
        updated_at: ISO time, UTC.
        ground_truth: starred; annotations imported with their tasks are starred by Label Studio.
        made_in_bulk: from a prediction, by nobody who had the task open.
        lead_time: seconds somebody had it open; None where nobody had.
    """

    id: int
    task_id: int
    result: list[JsonObject]
    was_cancelled: bool
    completed_by: int | None
    updated_at: str
    ground_truth: bool
    made_in_bulk: bool = False
    lead_time: float | None = None

    @classmethod
    def from_json(cls, body: JsonObject, task_id: int | None = None) -> AnnotationRecord:
        """Read an annotation of the API or of a webhook.

        Raises:
            PlatformError: a field is missing or of another type.
        """
        with _reading("An annotation", body):
            author = body.get("completed_by")
            task: Any = body.get("task", task_id)  # None is a TypeError
            return cls(
                id=int(body["id"]),
                task_id=int(task["id"] if isinstance(task, dict) else task),
                result=[r for r in body.get("result") or [] if isinstance(r, dict)],
                was_cancelled=bool(body.get("was_cancelled", False)),
                completed_by=author.get("id") if isinstance(author, dict) else author,
                updated_at=str(body.get("updated_at") or ""),
                ground_truth=bool(body.get("ground_truth", False)),
                made_in_bulk=bool(body.get("parent_prediction")) and not body.get("lead_time"),
                lead_time=None if body.get("lead_time") is None else float(body["lead_time"]),
            )


@dataclass(frozen=True)
class TaskRecord:
    """One task; its stored predictions are left out.

    Attributes:
        data: the task's data with raw references, as imported.
        annotations: all of them, skips included.
        updated_at: ISO time, UTC.
        is_labeled: Label Studio serves the task to nobody any more.
        total_predictions: how many predictions it has, over all versions.
        has_draft: this user has begun something there that is not saved yet.
    """

    id: int
    data: JsonObject
    annotations: tuple[AnnotationRecord, ...]
    updated_at: str
    is_labeled: bool = False
    total_predictions: int = field(default=0, compare=False)
    has_draft: bool = field(default=False, compare=False)

    @classmethod
    def from_json(cls, body: JsonObject) -> TaskRecord:
        """Read a task of the API.

        Raises:
            PlatformError: a field is missing or of another type.
        """
        with _reading("A task", body):
            task_id = int(body["id"])
            return cls(
                id=task_id,
                data=dict(body["data"]),
                annotations=tuple(
                    AnnotationRecord.from_json(a, task_id) for a in body.get("annotations") or []
                ),
                updated_at=str(body.get("updated_at") or ""),
                is_labeled=bool(body.get("is_labeled", False)),
                total_predictions=int(body.get("total_predictions") or 0),
                has_draft=bool(body.get("drafts")),
            )


@dataclass(frozen=True)
class Counters:
    """What a project holds; compare with what we know to see that something was missed."""

    tasks: int
    annotations: int
    skipped: int
    predictions: int
    latest_change: str


class TasksGoneError(PlatformError):
    """Predictions were sent for tasks that are no longer there; that request stored nothing.

    Attributes:
        task_ids: the tasks that are gone.
        created: predictions that earlier requests of the same call stored.
    """

    def __init__(self, task_ids: Sequence[int], created: int) -> None:
        super().__init__(
            f"{len(task_ids)} tasks are gone from Label Studio, among them {list(task_ids[:5])}; "
            "leave them out and import the rest again.",
            400,
        )
        self.task_ids = tuple(task_ids)
        self.created = created
