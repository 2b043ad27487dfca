"""Tasks over Label Studio's API: read in pages, imported, deleted.

What was measured of 1.23.2 (SQLite, 3,000 tasks, 600 annotations, 9,000 predictions, busy 2 cores):

- Reading. ``GET /api/tasks`` with ``fields=all`` carries annotations and all stored predictions:
  1.9 s for 500 tasks with three versions. Without it neither comes: 1.0 s. ``/export`` is as fast
  but leaves two files on Label Studio's disk at every call, so it is no way to poll.
- What changed. Creating, updating, skipping and deleting an annotation, by the editor or by a Data
  Manager action, moves the ``updated_at`` of its task; so do creating, patching and deleting one
  prediction. Bulk import of predictions, deleting a version and saving a draft do not. An empty
  poll costs 0.07 s. The filter takes only ``2026-11-23T20:24:30.123456Z``; an offset is a 500.
- What vanished. Deleted annotations are just absent from their task; deleted tasks from the list.
  `LabelStudio.counters` costs 0.06 s and shows that something was missed.
- ``GET /api/tasks/ID`` makes Label Studio call the ML backend when the task has no prediction and
  pre-annotations are shown. Reading through the list never does; so does `TaskCalls.task` when
  it is told the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from json import dumps

from backend.edges.labelstudio_client import BULK_TIMEOUT_S, IDS_PER_QUERY, Client
from backend.edges.labelstudio_queries import (
    ANNOTATED,
    SKIPPED_ONLY,
    changed_since,
    condition,
    query_of,
    selection,
)
from backend.edges.labelstudio_records import JsonObject, TaskRecord
from backend.errors import PlatformError

Progress = Callable[[int, int], None]
FILES_PER_REQUEST = 100  # Django's DATA_UPLOAD_MAX_NUMBER_FILES; one more is a 500


class TaskCalls(Client):
    """Reads and writes the tasks of projects."""

    def tasks(
        self,
        project_id: int,
        *,
        updated_since: datetime | None = None,
        only_annotated: bool = False,
        page_size: int = 500,
        progress: Progress | None = None,
    ) -> Iterator[TaskRecord]:
        """Tasks with their annotations, by ascending id in each pass.

        Pages go by the last id, not by number, so that tasks deleted meanwhile shift nothing.
        Predictions are not asked for, except with the tasks that have annotations, where Label
        Studio offers no way around. An annotated task comes with all its annotations: replace what
        is known of it.

        Args:
            project_id: the project.
            updated_since: only tasks changed at or after this time (naive means UTC). Also finds
                tasks whose annotations were deleted; never finds deleted tasks.
            only_annotated: only tasks with an annotation or a skip.
            page_size: tasks a request.
            progress: called with (read so far, total of this pass).
        """
        changed = [] if updated_since is None else [changed_since(updated_since)]
        if only_annotated:
            yield from self._scan(project_id, [*changed, ANNOTATED], True, page_size, progress)
            yield from self._scan(project_id, [*changed, *SKIPPED_ONLY], True, page_size, progress)
        elif changed:
            yield from self._scan(project_id, changed, True, page_size, progress)
        else:
            yield from self._scan(project_id, [], False, page_size, progress)

    def task(self, task_id: int, project_id: int | None = None) -> TaskRecord:
        """One task with its annotations.

        Args:
            task_id: the task.
            project_id: its project, if known: then Label Studio cannot call the ML backend.
        """
        if project_id is None:
            params = {"resolve_uri": "false"}
            return TaskRecord.from_json(
                self._object("GET", f"/api/tasks/{task_id}/", params=params)
            )
        found = self._task_page(project_id, selection([task_id]), page_size=1, full=True)["tasks"]
        if not found:
            raise PlatformError(f"Project {project_id} has no task {task_id}.", 404)
        return TaskRecord.from_json(found[0])

    def tasks_of_many(self, project_id: int, task_ids: Sequence[int]) -> dict[int, TaskRecord]:
        """Tasks with their annotations; one that is gone is left out."""
        found: dict[int, TaskRecord] = {}
        for start in range(0, len(task_ids), IDS_PER_QUERY):
            ids = list(task_ids[start : start + IDS_PER_QUERY])
            page = self._task_page(project_id, selection(ids), page_size=len(ids), full=True)
            found |= {int(task["id"]): TaskRecord.from_json(task) for task in page["tasks"]}
        return found

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Which of `task_ids` are still there: one count a few hundred ids, halving at a miss."""

        def present(ids: list[int]) -> list[int]:
            if not ids:
                return []
            page = self._task_page(project_id, selection(ids), page_size=1, full=False)
            if page["total"] == len(ids):
                return ids
            if page["total"] == 0:
                return []
            half = len(ids) // 2
            return present(ids[:half]) + present(ids[half:])

        wanted = sorted(set(task_ids))
        chunks = (wanted[i : i + IDS_PER_QUERY] for i in range(0, len(wanted), IDS_PER_QUERY))
        return {task_id for chunk in chunks for task_id in present(chunk)}

    def import_tasks(self, project_id: int, items: list[JsonObject]) -> JsonObject:
        """Import tasks, each ``{"data": {...}}``, with annotations or predictions if wished.

        Returns:
            Label Studio's counts: ``task_count``, ``annotation_count``, ``prediction_count``.
        """
        return self._object(
            "POST", f"/api/projects/{project_id}/import", json=items, timeout_s=BULK_TIMEOUT_S
        )

    def upload_files(self, project_id: int, files: Sequence[tuple[str, bytes]]) -> int:
        """Upload image files, each becoming a task ``/data/upload/…``; returns how many tasks."""
        created = 0
        for start in range(0, len(files), FILES_PER_REQUEST):
            parts = [
                (name, (name, data)) for name, data in files[start : start + FILES_PER_REQUEST]
            ]
            body = self._http.call(
                "POST",
                f"/api/projects/{project_id}/import",
                files=parts,
                timeout_s=BULK_TIMEOUT_S,
            )
            created += int(body.get("task_count", 0))
        return created

    def delete_task(self, task_id: int) -> None:
        """Delete a task; one that is gone is fine."""
        self._http.call("DELETE", f"/api/tasks/{task_id}/", ok=(404,))

    # Inside

    def _scan(
        self,
        project_id: int,
        filters: list[JsonObject],
        full: bool,
        page_size: int,
        progress: Progress | None,
    ) -> Iterator[TaskRecord]:
        last, done, total = 0, 0, None
        while True:
            items = [*filters, condition("id", "greater", "Number", last)]
            page = self._task_page(project_id, query_of(items), page_size=page_size, full=full)
            bodies = page["tasks"]
            total = int(page["total"]) if total is None else total
            if not bodies:
                return
            low, last = last, int(bodies[-1]["id"])
            annotated = {} if full else self._annotated(project_id, bodies, low, last, page_size)
            for body in bodies:
                record = annotated.get(int(body["id"])) or TaskRecord.from_json(body)
                yield record
            done += len(bodies)
            if progress is not None:
                progress(done, max(done, total))
            if len(bodies) < page_size and done >= total:
                return

    def _annotated(
        self, project_id: int, bodies: list[JsonObject], low: int, high: int, page_size: int
    ) -> dict[int, TaskRecord]:
        """The tasks of a light page that have annotations, read again in full."""
        found: dict[int, TaskRecord] = {}
        between = [
            condition("id", "greater", "Number", low),
            condition("id", "less_or_equal", "Number", high),
        ]
        for count, filters in (
            ("total_annotations", [ANNOTATED]),
            ("cancelled_annotations", SKIPPED_ONLY),
        ):
            if any(body.get(count) for body in bodies):
                page = self._task_page(
                    project_id, query_of([*between, *filters]), page_size=page_size, full=True
                )
                found |= {int(body["id"]): TaskRecord.from_json(body) for body in page["tasks"]}
        return found

    def _task_page(
        self, project_id: int, query: JsonObject, *, page_size: int, full: bool
    ) -> JsonObject:
        params = {
            "project": project_id,
            "page_size": page_size,
            "resolve_uri": "false",
            "query": dumps(query, separators=(",", ":")),
        }
        if full:
            params["fields"] = "all"
        body = self._object("GET", "/api/tasks/", params=params, timeout_s=BULK_TIMEOUT_S)
        if not isinstance(body.get("tasks"), list):
            raise PlatformError(f"GET {self.url}/api/tasks/ answered no list of tasks.")
        return body
