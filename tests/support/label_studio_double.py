"""`FakeLabelStudio` over HTTP: enough of the REST API for real web and worker processes."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.errors import PlatformError
from backend.testing import FakeLabelStudio


class LabelStudioDouble:
    """Serves a `FakeLabelStudio` on a free port of 127.0.0.1 until `stop`."""

    def __init__(self, platform: FakeLabelStudio, files: dict[str, bytes]) -> None:
        self.platform = platform
        self.files = files
        self.image_delay_s = 0.0
        self.import_delay_s = 0.0
        self.lock = threading.Lock()
        routes = [
            Route("/api/projects/{id:int}/", with_body(self.project), methods=["GET", "PATCH"]),
            Route(
                "/api/projects/{id:int}/import/predictions", with_body(self.bulk), methods=["POST"]
            ),
            Route("/api/tasks/", with_body(self.tasks)),
            Route("/api/predictions/", with_body(self.predictions), methods=["GET", "POST"]),
            Route(
                "/api/predictions/{id:int}/",
                with_body(self.one_prediction),
                methods=["PATCH", "DELETE"],
            ),
            Route("/data/{path:path}", with_body(self.media)),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(5)

    def project(self, request: Request) -> Response:
        with self.lock:
            try:
                if request.method == "PATCH":
                    fields = request.scope["body"]
                    return JSONResponse(self.platform.update_project(1, **fields))
                return JSONResponse(self.platform.project(1))
            except PlatformError as exc:
                return JSONResponse({"detail": str(exc)}, status_code=exc.code or 500)

    def media(self, request: Request) -> Response:
        time.sleep(self.image_delay_s)
        content = self.files.get(request.url.path)
        return Response(status_code=404) if content is None else Response(content)

    def tasks(self, request: Request) -> Response:
        query = json.loads(request.query_params["query"])
        chosen = query.get("selectedItems", {}).get("included")
        with self.lock:
            found = [
                body
                for record in self.platform.tasks(1)
                for body in [self._task(record)]
                if (chosen is None or body["id"] in chosen)
                and all(matches(body, f) for f in query.get("filters", {}).get("items", ()))
            ]
        size = int(request.query_params.get("page_size", 100))
        return JSONResponse({"tasks": found[:size], "total": len(found)})

    def _task(self, record) -> dict:
        notes = [
            {
                "id": a.id, "task": record.id, "result": a.result,
                "was_cancelled": a.was_cancelled, "completed_by": a.completed_by,
                "updated_at": a.updated_at,
            }
            for a in record.annotations
        ]  # fmt: skip
        skipped = sum(n["was_cancelled"] for n in notes)
        return {
            "id": record.id, "data": record.data, "annotations": notes,
            "updated_at": record.updated_at, "total_annotations": len(notes) - skipped,
            "cancelled_annotations": skipped,
            "predictions": self.platform.predictions_of(record.id),
        }  # fmt: skip

    def bulk(self, request: Request) -> Response:
        time.sleep(self.import_delay_s)
        with self.lock:
            created = self.platform.import_predictions(1, request.scope["body"])
        return JSONResponse({"created": created}, status_code=201)

    def predictions(self, request: Request) -> Response:
        with self.lock:
            if request.method == "POST":
                made = self.platform.create_prediction(request.scope["body"])
                return JSONResponse({"id": made}, status_code=201)
            task = int(request.query_params["task"])
            return JSONResponse(self.platform.predictions_of(task))

    def one_prediction(self, request: Request) -> Response:
        number = request.path_params["id"]
        with self.lock:
            if request.method == "DELETE":
                self.platform.delete_prediction(number)
                return Response(status_code=204)
            self.platform.update_prediction(number, **request.scope["body"])
        return JSONResponse({})


def matches(task: dict, condition: dict) -> bool:
    """One filter of the Data Manager."""
    value = task[condition["filter"].removeprefix("filter:tasks:")]
    wanted = condition["value"]
    if condition["filter"].endswith("updated_at"):
        value = datetime.fromisoformat(value).timestamp()
        wanted = datetime.fromisoformat(wanted).timestamp()
    operators = {
        "greater": value > wanted, "greater_or_equal": value >= wanted,
        "less_or_equal": value <= wanted, "equal": value == wanted,
    }  # fmt: skip
    return operators[condition["operator"]]


def with_body(handler):
    """Starlette runs plain functions in threads; their JSON body is read before."""

    async def wrapped(request: Request) -> Response:
        raw = await request.body()
        request.scope["body"] = json.loads(raw) if raw else {}
        return await anyio.to_thread.run_sync(handler, request)

    return wrapped
