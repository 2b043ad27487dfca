"""Label Studio's REST API as far as Doubtless needs it; every call was run against 1.23.2.

Tasks are in `labelstudio_tasks`, with what was measured of reading them; predictions in
`labelstudio_predictions`; everything else is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from backend.edges.labelstudio_client import BULK_TIMEOUT_S
from backend.edges.labelstudio_predictions import PredictionCalls
from backend.edges.labelstudio_queries import changed_until, condition, query_of, selection
from backend.edges.labelstudio_records import Counters, JsonObject, TaskRecord
from backend.errors import PlatformError


class LabelStudio(PredictionCalls):
    """One Label Studio with one credential. Safe to share between threads.

    Args:
        url: its address, with a path prefix if it has one.
        token: personal access token or legacy token; told apart by decoding.
        timeout_s: seconds to wait for one answer; bulk calls wait longer.

    Every method raises `PlatformError` (or its child `TokenError`) with the address, the status, a
    short cause and the fix.
    """

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
            timeout_s=BULK_TIMEOUT_S,
        )
