"""What the middle of the backend needs of the world; `backend.testing` has in-memory twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from backend.edges.labelstudio_records import TaskRecord
from backend.errors import MediaError


class JobQueue(Protocol):
    """Where runs wait for a worker. It may lose everything at any moment."""

    def enqueue(self, run_id: int, kind: str, attempt: int) -> None:
        """Hand a run to the workers; twice the same attempt is harmless."""

    def holds(self, run_id: int, kind: str, attempt: int) -> bool:
        """Whether that attempt is waiting or being worked on."""

    def depth(self) -> dict[str, int]:
        """Waiting jobs by queue."""

    def workers(self) -> int:
        """Workers alive."""

    def ping(self) -> None:
        """Raise when the queue does not answer."""


class Platform(Protocol):
    """The part of Label Studio the jobs use."""

    url: str

    def project(self, project_id: int) -> dict[str, Any]:
        """The project's settings and counters."""

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        """Change settings of the project."""

    def tasks(
        self,
        project_id: int,
        *,
        updated_since: datetime | None = None,
        only_annotated: bool = False,
        page_size: int = 500,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[TaskRecord]:
        """Tasks with all their annotations; all, those touched since, those with annotations.

        `progress` is called with (read so far, total of this pass) after each page.
        """

    def import_predictions(self, project_id: int, items: list[dict[str, Any]]) -> int:
        """Import predictions in one request; returns how many Label Studio took."""

    def create_prediction(self, item: dict[str, Any]) -> int:
        """Create one prediction, with its cluster; returns its id."""

    def update_prediction(self, prediction_id: int, **fields: Any) -> None:
        """Change fields of one prediction."""

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction; a missing one is fine."""

    def predictions_of(self, task_id: int) -> list[dict[str, Any]]:
        """Predictions of a task, of every version."""

    def predictions_of_many(
        self, project_id: int, task_ids: Sequence[int]
    ) -> dict[int, list[dict[str, Any]]]:
        """The same for many tasks."""

    def accept_predictions(self, project_id: int, version: str, task_ids: Sequence[int]) -> None:
        """Make annotations of a version's predictions; twice is harmless."""

    def tasks_of_many(self, project_id: int, task_ids: Sequence[int]) -> dict[int, TaskRecord]:
        """Tasks with their annotations; one that is gone is left out."""

    def delete_annotations_of(
        self, project_id: int, task_ids: Sequence[int], *, author: int, unchanged_after: datetime
    ) -> None:
        """Delete what one user has on tasks that were not changed after a moment."""

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete one annotation; a missing one is fine."""


class MediaSource(Protocol):
    """Where the bytes of images come from."""

    def fetch_many(
        self, items: Iterable[tuple[int, str]]
    ) -> Iterator[tuple[int, bytes | MediaError]]:
        """Fetch the images of tasks in parallel, in the order they arrive."""
