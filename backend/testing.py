"""In-memory twins of the ports: every unit test uses them, and they ship with the package."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from backend.edges.labelstudio_records import AnnotationRecord, TaskRecord, TasksGoneError
from backend.errors import MediaError, PlatformError


@dataclass
class InMemoryQueue:
    """`JobQueue` as a list; `forget` loses everything, as an emptied Redis does."""

    jobs: list[tuple[int, str, int]] = field(default_factory=list)

    def enqueue(self, run_id: int, kind: str, attempt: int) -> None:
        """See `backend.ports.JobQueue`."""
        if not self.holds(run_id, kind, attempt):
            self.jobs.append((run_id, kind, attempt))

    def holds(self, run_id: int, kind: str, attempt: int) -> bool:
        """See `backend.ports.JobQueue`."""
        return (run_id, kind, attempt) in self.jobs

    def take(self) -> int | None:
        """The next run, as a worker would take it."""
        return self.jobs.pop(0)[0] if self.jobs else None

    def forget(self) -> None:
        """Lose everything."""
        self.jobs.clear()

    def depth(self) -> dict[str, int]:
        """See `backend.ports.JobQueue`."""
        return dict(Counter(kind for _, kind, _ in self.jobs))

    def workers(self) -> int:
        """See `backend.ports.JobQueue`."""
        return 1

    def ping(self) -> None:
        """See `backend.ports.JobQueue`."""


class FakeLabelStudio:
    """`Platform` in memory, with the behaviour of Label Studio 1.23.2 that the jobs rely on."""

    def __init__(self, label_config: str, *, title: str = "fake") -> None:
        self.url = "http://label-studio.test"
        self.label_config = label_config
        self.settings: dict[str, Any] = {"title": title, "model_version": "", "sampling": ""}
        self.data: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, AnnotationRecord] = {}
        self.predictions: dict[int, dict[str, Any]] = {}
        self.drafts: set[int] = set()  # tasks with something that is not saved yet
        self.accepted: dict[int, int] = {}  # prediction -> the annotation made of it
        self.updated: dict[int, str] = {}
        self.calls: list[str] = []
        self.fail: dict[str, PlatformError] = {}
        self._ids = itertools.count(1)

    # --- as people use it ---

    def add_task(self, data: dict[str, Any]) -> int:
        """Import one task."""
        task_id = next(self._ids)
        self.data[task_id] = data
        self._touch(task_id)
        return task_id

    def annotate(
        self, task_id: int, result: list[dict[str, Any]], *, cancelled: bool = False, user: int = 1
    ) -> AnnotationRecord:
        """Submit, or skip with `cancelled`."""
        self._touch(task_id)
        record = AnnotationRecord(
            id=next(self._ids),
            task_id=task_id,
            result=result,
            was_cancelled=cancelled,
            completed_by=user,
            updated_at=self.updated[task_id],
            ground_truth=False,
        )
        self.annotations[record.id] = record
        return record

    def delete_task(self, task_id: int) -> None:
        """Delete a task with all that hangs on it."""
        del self.data[task_id]
        self.annotations = {i: a for i, a in self.annotations.items() if a.task_id != task_id}
        self.predictions = {i: p for i, p in self.predictions.items() if p["task"] != task_id}

    def next_task(self, user: int = 1) -> int | None:
        """What the label stream serves: least-solved cluster first, then lowest score."""
        version = self.settings["model_version"]
        mine = {a.task_id for a in self.annotations.values() if a.completed_by == user}
        solved = Counter(self._cluster_of(task) for task in mine)
        done = {a.task_id for a in self.annotations.values()}
        candidates = [
            (solved[p.get("cluster")], p["score"], p["task"])
            for p in self.predictions.values()
            if p["model_version"] == version and p["task"] not in done
        ]
        return min(candidates)[2] if candidates else None

    def live(self) -> dict[int, dict[str, Any]]:
        """Task -> prediction of the project's version."""
        version = self.settings["model_version"]
        return {p["task"]: p for p in self.predictions.values() if p["model_version"] == version}

    def _cluster_of(self, task: int) -> int | None:
        clusters = [p.get("cluster") for p in self.predictions.values() if p["task"] == task]
        return max((c for c in clusters if c is not None), default=None)

    def _touch(self, task_id: int) -> None:
        self.updated[task_id] = datetime.now(UTC).isoformat()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    # --- the port ---

    def project(self, project_id: int) -> dict[str, Any]:
        """See `backend.ports.Platform`."""
        self._called("project")
        skipped = sum(a.was_cancelled for a in self.annotations.values())
        return {
            "id": project_id,
            "created_at": "2026-01-01T00:00:00Z",
            "label_config": self.label_config,
            "task_number": len(self.data),
            "total_annotations_number": len(self.annotations) - skipped,
            "skipped_annotations_number": skipped,
            **self.settings,
        }

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        """See `backend.ports.Platform`; an unknown version is a 400."""
        self._called("update_project")
        version = fields.get("model_version")
        if version and all(p["model_version"] != version for p in self.predictions.values()):
            raise PlatformError(f"model_version {version} does not exist", 400)
        self.settings |= fields
        return self.project(project_id)

    def tasks(
        self,
        project_id: int,
        *,
        updated_since: datetime | None = None,
        only_annotated: bool = False,
        page_size: int = 500,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[TaskRecord]:
        """See `backend.ports.Platform`; all on one page."""
        self._called("tasks")
        for task_id, data in sorted(self.data.items()):
            notes = tuple(a for a in self.annotations.values() if a.task_id == task_id)
            changed = datetime.fromisoformat(self.updated[task_id])
            if (updated_since and changed < updated_since) or (only_annotated and not notes):
                continue
            yield TaskRecord(
                id=task_id, data=data, annotations=notes, updated_at=self.updated[task_id]
            )

    def import_predictions(self, project_id: int, items: list[dict[str, Any]]) -> int:
        """See `backend.ports.Platform`; a task that is gone refuses all, clusters are dropped."""
        self._called("import_predictions")
        gone = [i["task"] for i in items if i["task"] not in self.data]
        if gone:
            raise TasksGoneError(gone, 0)
        for item in items:
            kept = {k: v for k, v in item.items() if k != "cluster"}
            self.predictions[next(self._ids)] = kept
        return len(items)

    def create_prediction(self, item: dict[str, Any]) -> int:
        """See `backend.ports.Platform`."""
        self._called("create_prediction")
        if item["task"] not in self.data:
            raise PlatformError(f"task {item['task']} is gone", 400)
        prediction_id = next(self._ids)
        self.predictions[prediction_id] = dict(item)
        return prediction_id

    def update_prediction(self, prediction_id: int, **fields: Any) -> None:
        """See `backend.ports.Platform`."""
        self._called("update_prediction")
        self.predictions[prediction_id] |= fields

    def delete_prediction(self, prediction_id: int) -> None:
        """See `backend.ports.Platform`."""
        self._called("delete_prediction")
        self.predictions.pop(prediction_id, None)

    def predictions_of(self, task_id: int) -> list[dict[str, Any]]:
        """See `backend.ports.Platform`."""
        return [{"id": i, **p} for i, p in self.predictions.items() if p["task"] == task_id]

    def predictions_of_many(
        self, project_id: int, task_ids: Sequence[int]
    ) -> dict[int, list[dict[str, Any]]]:
        """See `backend.ports.Platform`."""
        return {task_id: self.predictions_of(task_id) for task_id in task_ids}

    def accept_predictions(self, project_id: int, version: str, task_ids: Sequence[int]) -> None:
        """See `backend.ports.Platform`; a prediction that has an annotation is left alone."""
        self._called("accept_predictions")
        for number, item in list(self.predictions.items()):
            wanted = item["task"] in task_ids and item["model_version"] == version
            if wanted and number not in self.accepted:
                record = self.annotate(item["task"], item["result"])
                self.annotations[record.id] = replace(record, made_in_bulk=True)
                self.accepted[number] = record.id

    def tasks_of_many(self, project_id: int, task_ids: Sequence[int]) -> dict[int, TaskRecord]:
        """See `backend.ports.Platform`."""
        self._called("tasks_of_many")
        return {
            task: TaskRecord(
                id=task,
                data=self.data[task],
                annotations=tuple(a for a in self.annotations.values() if a.task_id == task),
                updated_at=self.updated[task],
                has_draft=task in self.drafts,
            )
            for task in task_ids
            if task in self.data
        }

    def delete_annotations_of(
        self, project_id: int, task_ids: Sequence[int], *, author: int, unchanged_after: datetime
    ) -> None:
        """See `backend.ports.Platform`; drafts of the author go with them."""
        self._called("delete_annotations_of")
        for task in task_ids:
            if datetime.fromisoformat(self.updated[task]) <= unchanged_after:
                gone = {
                    i
                    for i, a in self.annotations.items()
                    if a.task_id == task and a.completed_by == author
                }
                self.annotations = {i: a for i, a in self.annotations.items() if i not in gone}
                self.accepted = {p: a for p, a in self.accepted.items() if a not in gone}
                self.drafts.discard(task)
                self._touch(task)

    def delete_annotation(self, annotation_id: int) -> None:
        """See `backend.ports.Platform`."""
        self._called("delete_annotation")
        gone = self.annotations.pop(annotation_id, None)
        self.accepted = {p: a for p, a in self.accepted.items() if a != annotation_id}
        if gone is not None:
            self._touch(gone.task_id)


@dataclass
class FakeMedia:
    """`MediaSource` from a dict: reference -> bytes, or the error to report."""

    files: dict[str, bytes | MediaError]

    def fetch_many(
        self, items: Iterable[tuple[int, str]]
    ) -> Iterator[tuple[int, bytes | MediaError]]:
        """See `backend.ports.MediaSource`."""
        for task_id, reference in items:
            yield task_id, self.files.get(reference, MediaError(f"'{reference}' is not there"))
