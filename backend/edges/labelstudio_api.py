"""Label Studio's REST API as far as Doubtless needs it; every call was run against 1.23.2.

What was measured there (SQLite, 3,000 tasks, 600 annotations, 9,000 predictions, busy 2 cores):

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
  pre-annotations are shown. Reading through the list never does; so does `LabelStudio.task` when
  it is told the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from json import dumps
from typing import Any

from backend.edges.labelstudio_http import Transport
from backend.edges.labelstudio_queries import (
    ANNOTATED,
    SKIPPED_ONLY,
    changed_since,
    changed_until,
    condition,
    query_of,
    selection,
)
from backend.edges.labelstudio_records import (
    Counters,
    JsonObject,
    TaskRecord,
    TasksGoneError,
)
from backend.errors import PlatformError

Progress = Callable[[int, int], None]
IMPORT_CHUNK = 5_000
FILES_PER_REQUEST = 100  # Django's DATA_UPLOAD_MAX_NUMBER_FILES; one more is a 500
_IDS_PER_QUERY = 400  # keeps the query string under 8 kB
_BULK_TIMEOUT_S = 300.0


class LabelStudio:
    """One Label Studio with one credential. Safe to share between threads.

    Args:
        url: its address, with a path prefix if it has one.
        token: personal access token or legacy token; told apart by decoding.
        timeout_s: seconds to wait for one answer; bulk calls wait longer.

    Every method raises `PlatformError` (or its child `TokenError`) with the address, the status, a
    short cause and the fix.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 30.0) -> None:
        self._http = Transport(url, token, timeout_s=timeout_s)
        self.url = self._http.url

    @property
    def token_kind(self) -> str:
        """``legacy``, ``refresh`` (a personal access token) or ``access`` (dies in minutes)."""
        return self._http.credentials.kind

    def authorization(self) -> str:
        """The ``Authorization`` header that Label Studio accepts at this moment."""
        return self._http.credentials.header()

    # The installation

    def whoami(self) -> JsonObject:
        """The user the token belongs to; the cheapest proof that the token works."""
        return self._object("GET", "/api/current-user/whoami")

    def version(self) -> str:
        """Release of Label Studio, such as ``1.23.2``."""
        return str(self._object("GET", "/api/version").get("release", "unknown"))

    # Projects

    def project(self, project_id: int) -> JsonObject:
        """All settings and counts of one project."""
        return self._object("GET", f"/api/projects/{project_id}/")

    def projects(self) -> list[JsonObject]:
        """All projects the user may see."""
        return list(self._paged("/api/projects/", {"page_size": 100}))

    def create_project(self, title: str, label_config: str, **fields: Any) -> JsonObject:
        """Create a project; `title` needs 3 to 50 characters."""
        body = {"title": title, "label_config": label_config, **fields}
        return self._object("POST", "/api/projects/", json=body)

    def update_project(self, project_id: int, **fields: Any) -> JsonObject:
        """PATCH settings; sends a PROJECT_UPDATED event to our own webhook too.

        ``model_version`` must be a version that has predictions, or a backend's title.
        """
        return self._object("PATCH", f"/api/projects/{project_id}/", json=fields)

    def delete_project(self, project_id: int) -> None:
        """Delete a project with all it holds; one that is gone is fine."""
        self._http.call("DELETE", f"/api/projects/{project_id}/", ok=(404,), timeout_s=120)

    def counters(self, project_id: int) -> Counters:
        """Counts and the time of the newest change, in two cheap requests."""
        names = (
            "task_number,total_annotations_number,skipped_annotations_number,"
            "total_predictions_number"
        )
        body = self._object("GET", f"/api/projects/{project_id}/", params={"include": names})
        newest = self._task_page(
            project_id, {"ordering": ["-tasks:updated_at"]}, page_size=1, full=False
        )["tasks"]
        return Counters(
            tasks=int(body.get("task_number") or 0),
            annotations=int(body.get("total_annotations_number") or 0),
            skipped=int(body.get("skipped_annotations_number") or 0),
            predictions=int(body.get("total_predictions_number") or 0),
            latest_change=str(newest[0]["updated_at"]) if newest else "",
        )

    def unscored_open_tasks(self, project_id: int) -> int:
        """Tasks without annotation that have no score of ``project.model_version``."""
        items = [
            condition("total_annotations", "equal", "Number", 0),
            condition("predictions_score", "empty", "Number", True),
        ]
        try:
            page = self._task_page(project_id, query_of(items), page_size=1, full=False)
        except PlatformError as exc:
            if exc.code == 500 and "predictions_score" in str(exc):
                return 0  # so Label Studio answers for a project without any task
            raise
        return int(page["total"])

    # Tasks

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
        chunks = (wanted[i : i + _IDS_PER_QUERY] for i in range(0, len(wanted), _IDS_PER_QUERY))
        return {task_id for chunk in chunks for task_id in present(chunk)}

    def import_tasks(self, project_id: int, items: list[JsonObject]) -> JsonObject:
        """Import tasks, each ``{"data": {...}}``, with annotations or predictions if wished.

        Returns:
            Label Studio's counts: ``task_count``, ``annotation_count``, ``prediction_count``.
        """
        return self._object(
            "POST", f"/api/projects/{project_id}/import", json=items, timeout_s=_BULK_TIMEOUT_S
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
                timeout_s=_BULK_TIMEOUT_S,
            )
            created += int(body.get("task_count", 0))
        return created

    def delete_task(self, task_id: int) -> None:
        """Delete a task; one that is gone is fine."""
        self._http.call("DELETE", f"/api/tasks/{task_id}/", ok=(404,))

    # Predictions

    def import_predictions(self, project_id: int, items: list[JsonObject]) -> int:
        """Store predictions in bulk: 3,000 in 2 s, where one by one takes 25 ms each.

        Label Studio answers 201 and drops items that break its validation, so compare the returned
        number with ``len(items)`` and validate before (`labels.choices.check_prediction`). It does
        not keep ``cluster`` and never replaces: sending twice stores twice.

        Returns:
            How many it created.

        Raises:
            TasksGoneError: some tasks no longer exist.
        """
        created = 0
        for start in range(0, len(items), IMPORT_CHUNK):
            chunk = items[start : start + IMPORT_CHUNK]
            try:
                body = self._object(
                    "POST",
                    f"/api/projects/{project_id}/import/predictions",
                    json=chunk,
                    timeout_s=_BULK_TIMEOUT_S,
                )
            except PlatformError as exc:
                if exc.code != 400:
                    raise
                sent = {int(item["task"]) for item in chunk}
                gone = sorted(sent - self.existing_tasks(project_id, sent))
                if not gone:
                    raise
                raise TasksGoneError(gone, created) from exc
            created += int(body.get("created", 0))
        return created

    def create_prediction(self, item: JsonObject) -> int:
        """Store one prediction, keeping its ``cluster``; 25 ms, not validated. Returns its id."""
        return int(self._object("POST", "/api/predictions/", json=item)["id"])

    def update_prediction(self, prediction_id: int, **fields: Any) -> None:
        """PATCH one prediction, for example its ``cluster``; 25 ms."""
        self._http.call("PATCH", f"/api/predictions/{prediction_id}/", json=fields)

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction (50 ms); one that is gone is fine."""
        self._http.call("DELETE", f"/api/predictions/{prediction_id}/", ok=(404,))

    def predictions_of(self, task_id: int) -> list[JsonObject]:
        """All stored predictions of one task, over all versions; 60 ms."""
        found = self._http.call("GET", "/api/predictions/", params={"task": task_id})
        return list(found)

    def predictions_of_many(
        self, project_id: int, task_ids: Sequence[int]
    ) -> dict[int, list[JsonObject]]:
        """`predictions_of` for many tasks: 20 tasks in one request of 0.2 s."""
        found: dict[int, list[JsonObject]] = {}
        for start in range(0, len(task_ids), _IDS_PER_QUERY):
            ids = list(task_ids[start : start + _IDS_PER_QUERY])
            page = self._task_page(project_id, selection(ids), page_size=len(ids), full=True)
            found |= {int(task["id"]): list(task["predictions"]) for task in page["tasks"]}
        return found

    def accept_predictions(self, project_id: int, version: str, task_ids: Sequence[int]) -> None:
        """Make annotations of a version's predictions, in bulk; this user is their author.

        A prediction that has an annotation already is left alone, so sending twice is harmless.
        """
        self._http.call(
            "POST",
            "/api/dm/actions/",
            params={"id": "predictions_to_annotations", "project": project_id},
            json={**selection(task_ids), "project": str(project_id), "model_version": version},
            timeout_s=_BULK_TIMEOUT_S,
        )

    def tasks_of_many(self, project_id: int, task_ids: Sequence[int]) -> dict[int, TaskRecord]:
        """Tasks with their annotations; one that is gone is left out."""
        found: dict[int, TaskRecord] = {}
        for start in range(0, len(task_ids), _IDS_PER_QUERY):
            ids = list(task_ids[start : start + _IDS_PER_QUERY])
            page = self._task_page(project_id, selection(ids), page_size=len(ids), full=True)
            found |= {int(task["id"]): TaskRecord.from_json(task) for task in page["tasks"]}
        return found

    def delete_annotations_of(
        self, project_id: int, task_ids: Sequence[int], *, author: int, unchanged_after: datetime
    ) -> None:
        """Delete all annotations, and drafts, that one user has on tasks, in one request.

        Args:
            project_id: of the tasks.
            task_ids: of these.
            author: the user.
            unchanged_after: a task that was changed later is left as it is.
        """
        self._http.call(
            "POST",
            "/api/dm/actions/",
            params={"id": "delete_tasks_annotations", "project": project_id},
            json={
                **query_of([changed_until(unchanged_after)]),
                **selection(task_ids),
                "project": str(project_id),
                "annotator": str(author),
            },
            timeout_s=_BULK_TIMEOUT_S,
        )

    def model_versions(self, project_id: int) -> dict[str, int]:
        """Stored predictions of each version."""
        found = self._object("GET", f"/api/projects/{project_id}/model-versions/")
        return {str(version): int(count) for version, count in found.items()}

    def delete_model_version(self, project_id: int, version: str) -> int:
        """Delete a version's predictions in one request, which holds SQLite for 15 ms a row.

        Also empties ``project.model_version`` when that is this version or a backend's title.
        """
        body = self._http.call(
            "DELETE",
            f"/api/projects/{project_id}/model-versions/",
            json={"model_version": version},
            timeout_s=_BULK_TIMEOUT_S,
        )
        return int((body or {}).get("deleted_predictions", 0))

    # Backends, webhooks, tabs

    def ml_backends(self, project_id: int) -> list[JsonObject]:
        """ML backends of a project; Label Studio asks each for /health and /setup meanwhile."""
        return list(self._http.call("GET", "/api/ml/", params={"project": project_id}))

    def create_ml_backend(self, **fields: Any) -> JsonObject:
        """Add an ML backend; needs ``url``, ``project`` and ``title``."""
        return self._object("POST", "/api/ml/", json=fields)

    def update_ml_backend(
        self, backend_id: int, *, url: str, project: int, **fields: Any
    ) -> JsonObject:
        """PATCH an ML backend; without `url` and `project` Label Studio answers 500."""
        body = {"url": url, "project": project, **fields}
        return self._object("PATCH", f"/api/ml/{backend_id}", json=body)

    def delete_ml_backend(self, backend_id: int) -> None:
        """Remove an ML backend; its webhook and its predictions stay behind."""
        self._http.call("DELETE", f"/api/ml/{backend_id}", ok=(404,))

    def webhooks(self, project_id: int) -> list[JsonObject]:
        """Webhooks of a project, without those of the whole organization."""
        return list(self._http.call("GET", "/api/webhooks/", params={"project": project_id}))

    def create_webhook(self, **fields: Any) -> JsonObject:
        """Add a webhook; needs ``project`` and ``url``."""
        return self._object("POST", "/api/webhooks/", json=fields)

    def update_webhook(self, webhook_id: int, **fields: Any) -> JsonObject:
        """PATCH a webhook."""
        return self._object("PATCH", f"/api/webhooks/{webhook_id}/", json=fields)

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook; one that is gone is fine."""
        self._http.call("DELETE", f"/api/webhooks/{webhook_id}/", ok=(404,))

    def views(self, project_id: int) -> list[JsonObject]:
        """Tabs of the Data Manager."""
        return list(self._http.call("GET", "/api/dm/views/", params={"project": project_id}))

    def create_view(self, project_id: int, data: JsonObject) -> JsonObject:
        """Add a tab; ``title``, ``ordering`` and ``filters`` sit inside `data`."""
        return self._object("POST", "/api/dm/views/", json={"project": project_id, "data": data})

    def update_view(self, view_id: int, project_id: int, data: JsonObject) -> JsonObject:
        """Replace what a tab shows."""
        body = {"project": project_id, "data": data}
        return self._object("PATCH", f"/api/dm/views/{view_id}/", json=body)

    def delete_view(self, view_id: int) -> None:
        """Remove a tab; one that is gone is fine."""
        self._http.call("DELETE", f"/api/dm/views/{view_id}/", ok=(404,))

    # What a person does

    def next_task(self, project_id: int) -> TaskRecord | None:
        """The task "Label All Tasks" opens for this user, now locked to them; ``None`` at the end.

        The same task comes again until it is submitted or skipped.
        """
        found = self._http.call("GET", f"/api/projects/{project_id}/next", ok=(404,))
        return None if found is None else TaskRecord.from_json(found)

    def submit(
        self, task_id: int, result: list[JsonObject], *, lead_time: float = 1.0
    ) -> JsonObject:
        """Submit an annotation as this user."""
        body = {"result": result, "lead_time": lead_time}
        return self._object("POST", f"/api/tasks/{task_id}/annotations/", json=body)

    def skip(self, task_id: int) -> JsonObject:
        """Skip a task as this user: stored as a cancelled annotation."""
        body = {"result": [], "lead_time": 1.0, "was_cancelled": True}
        return self._object("POST", f"/api/tasks/{task_id}/annotations/", json=body)

    def update_annotation(self, annotation_id: int, result: list[JsonObject]) -> JsonObject:
        """Replace the regions of an annotation."""
        return self._object("PATCH", f"/api/annotations/{annotation_id}/", json={"result": result})

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation; one that is gone is fine."""
        self._http.call("DELETE", f"/api/annotations/{annotation_id}/", ok=(404,))

    # Inside

    def _object(self, method: str, path: str, **kwargs: Any) -> JsonObject:
        body = self._http.call(method, path, **kwargs)
        if not isinstance(body, dict):
            raise PlatformError(
                f"{method} {self.url}{path} answered {type(body).__name__} instead of an object. "
                "Check that this is the address of Label Studio."
            )
        return body

    def _paged(self, path: str, params: JsonObject) -> Iterator[JsonObject]:
        page = 1
        while True:
            body = self._object("GET", path, params={**params, "page": page})
            yield from body.get("results", [])
            if not body.get("next"):
                return
            page += 1

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
        body = self._object("GET", "/api/tasks/", params=params, timeout_s=_BULK_TIMEOUT_S)
        if not isinstance(body.get("tasks"), list):
            raise PlatformError(f"GET {self.url}/api/tasks/ answered no list of tasks.")
        return body
