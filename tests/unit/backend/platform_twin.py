"""A Label Studio in memory with the quirks that `connect` and `doctor` have to cope with."""

from __future__ import annotations

import itertools
from typing import Any

from backend.errors import PlatformError

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="choice" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)
REFUSED = (
    "POST http://ls/api/ml/ answered 403: URL resolves to a reserved network address "
    "(block: 127.0.0.0/8)."
)
DOWN = "POST http://ls/api/ml/ answered 400: Can't connect to ML backend http://x, health check"


class PlatformTwin:
    """One project, 7; what 1.23.2 was seen to do, no more.

    Args:
        guard: ``""``, ``"strict"`` (refuses private addresses) or ``"half"`` (keeps the row of a
            refused backend: only ML_BLOCK_LOCAL_IP is off).
    """

    url = "http://ls.example.org:8080"
    token_kind = "legacy"

    def __init__(self, guard: str = "") -> None:
        self.guard = guard
        self.down = False
        self.ids = itertools.count(1)
        self.settings: dict[str, Any] = {
            "id": 7,
            "title": "Animals",
            "label_config": CONFIG,
            "sampling": "Sequential sampling",
            "show_collab_predictions": True,
            "evaluate_predictions_automatically": False,
            "model_version": "",
            "task_number": 20,
            "maximum_annotations": 1,
            "min_annotations_to_start_training": 0,
        }
        self.rows: dict[int, dict[str, Any]] = {}
        self.hooks: dict[int, dict[str, Any]] = {}
        self.tabs: dict[int, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.unscored = 0
        self.patches: list[dict[str, Any]] = []

    def whoami(self) -> dict[str, Any]:
        return {"id": 1, "email": "owner@example.org"}

    def project(self, project_id: int) -> dict[str, Any]:
        if project_id != 7:
            raise PlatformError("GET /api/projects/8/ answered 404", 404)
        return dict(self.settings)

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        self.patches.append(fields)
        self.settings |= fields
        return dict(self.settings)

    def model_versions(self, project_id: int) -> dict[str, int]:
        return dict(self.versions)

    def unscored_open_tasks(self, project_id: int) -> int:
        return self.unscored

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        return [dict(row) for row in self.rows.values()]

    def create_ml_backend(self, **fields: Any) -> dict[str, Any]:
        if self.guard == "strict":
            raise PlatformError(REFUSED, 403)
        if self.down:
            raise PlatformError(DOWN, 400)
        row = self._row(next(self.ids), fields)
        self.rows[row["id"]] = row
        if self.guard == "half":
            raise PlatformError(REFUSED, 403)
        self.create_webhook(
            project=7, url=f"{fields['url'].rstrip('/')}/webhook", send_for_all_actions=True
        )
        if self.settings["show_collab_predictions"] and not self.settings["model_version"]:
            self.settings["model_version"] = fields["title"]
        return dict(row)

    def update_ml_backend(
        self, backend_id: int, *, url: str, project: int, **fields: Any
    ) -> dict[str, Any]:
        if self.down:
            raise PlatformError(DOWN, 400)
        old = self.rows[backend_id]
        if self.settings["model_version"] == old["title"]:
            self.settings["model_version"] = fields.get("title", old["title"])
        self.rows[backend_id] = {**old, **self._row(backend_id, {"url": url, **fields})}
        return dict(self.rows[backend_id])

    @staticmethod
    def _row(backend_id: int, fields: dict[str, Any]) -> dict[str, Any]:
        shown = {k: v for k, v in fields.items() if k not in ("basic_auth_pass", "project")}
        return {
            "id": backend_id,
            "state": "CO",
            "readable_state": "Connected",
            "basic_auth_pass_is_set": bool(fields.get("basic_auth_pass")),
            **shown,
        }

    def delete_ml_backend(self, backend_id: int) -> None:
        del self.rows[backend_id]  # and its webhook stays

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        return [dict(hook) for hook in self.hooks.values()]

    def create_webhook(self, **fields: Any) -> dict[str, Any]:
        hook = {
            "id": next(self.ids),
            "headers": {},
            "actions": [],
            "send_payload": True,
            "send_for_all_actions": False,
            "is_active": True,
            **fields,
        }
        self.hooks[hook["id"]] = hook
        return dict(hook)

    def update_webhook(self, webhook_id: int, **fields: Any) -> dict[str, Any]:
        self.hooks[webhook_id] |= fields
        return dict(self.hooks[webhook_id])

    def delete_webhook(self, webhook_id: int) -> None:
        self.hooks.pop(webhook_id, None)

    def views(self, project_id: int) -> list[dict[str, Any]]:
        return [dict(tab) for tab in self.tabs.values()]

    def create_view(self, project_id: int, data: dict[str, Any]) -> dict[str, Any]:
        tab = {"id": next(self.ids), "data": dict(data)}
        self.tabs[tab["id"]] = tab
        return dict(tab)

    def update_view(self, view_id: int, project_id: int, data: dict[str, Any]) -> dict[str, Any]:
        self.tabs[view_id]["data"] = dict(data)
        return dict(self.tabs[view_id])

    def delete_view(self, view_id: int) -> None:
        self.tabs.pop(view_id, None)
