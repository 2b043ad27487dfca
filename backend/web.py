"""The web process: ``python -m backend.web``. It answers, records and enqueues; it never trains."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.app import App, build
from backend.dashboard.api import Dashboard
from backend.edges.webhooks import WANTED_ACTIONS, parse_event
from backend.errors import BackendError, BadRequestError, TooLargeError, UnauthorizedError
from backend.events import apply_event, apply_ping, take_config
from backend.logs import set_up_logging
from backend.metrics import Metrics
from backend.predictor import Predictor
from backend.records import Project
from backend.scheduler import Scheduler
from backend.service import DoubtlessModel, find_project
from backend.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.25
Handler = Callable[[Request], Awaitable[Response]]


class Web:
    """The routes, and the thread in which the scheduler ticks."""

    def __init__(self, app: App, *, ticking: bool = True) -> None:
        self.app = app
        self.predictor = Predictor(app)
        self.scheduler = Scheduler(app)
        self.metrics = Metrics(app)
        self.ticking = ticking
        self.state: dict[str, str] = {"database": "ok", "redis": "ok"}
        # Predictions get threads of their own: a long one must never keep a webhook waiting.
        self.predicting = ThreadPoolExecutor(2, "predict")
        self.recording = ThreadPoolExecutor(4, "record")
        self.stop = threading.Event()
        self.is_leaving: Callable[[], bool] = self.stop.is_set
        self.dashboard = Dashboard(
            app, count=self.metrics.request, is_leaving=lambda: self.is_leaving()
        )

    def asgi(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._guard("/", self.health)),
            Route("/health", self._guard("/health", self.health)),
            Route("/setup", self._guard("/setup", self.setup), methods=["POST"]),
            Route("/predict", self._guard("/predict", self.predict), methods=["POST"]),
            Route("/webhook", self._guard("/webhook", self.webhook), methods=["POST"]),
            Route("/train", self._guard("/train", self.webhook), methods=["POST"]),
            Route("/versions", self._guard("/versions", self.versions), methods=["GET", "POST"]),
            Route("/metrics", self._guard("/metrics", self.show_metrics)),
            *self.dashboard.routes(),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        ticker = threading.Thread(target=self._tick, name="scheduler", daemon=True)
        if self.ticking:
            ticker.start()
        yield
        self.stop.set()
        self.dashboard.close()
        if self.ticking:
            await anyio.to_thread.run_sync(partial(ticker.join, 5))

    def _tick(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            for name, ping in (
                ("database", self.app.database.ping),
                ("redis", self.app.queue.ping),
            ):
                try:
                    ping()
                    self.state[name] = "ok"
                except Exception as exc:  # whatever the driver raises, it does not answer
                    if self.state[name] == "ok":
                        log.error("%s does not answer: %s", name, exc)
                    self.state[name] = f"down: {type(exc).__name__}"
            if all(state == "ok" for state in self.state.values()):
                try:
                    self.scheduler.tick()
                except Exception:  # the thread must live: the next tick looks again
                    log.exception("the scheduler stumbled; it looks again")
            self.stop.wait(max(0.05, TICK_S - (time.monotonic() - started)))

    def _guard(self, route: str, handler: Handler) -> Handler:
        """Turn every refusal into JSON with its status, and count and time the request."""

        async def guarded(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await handler(request)
            except BackendError as exc:
                headers = {"WWW-Authenticate": "Basic"} if exc.status == 401 else None
                response = JSONResponse(
                    {"error": str(exc)}, status_code=exc.status, headers=headers
                )
            except Exception:  # a client never gets a traceback: the log has it
                log.exception("%s failed", route)
                response = JSONResponse(
                    {"error": "Doubtless could not handle this request; its log says why"},
                    status_code=500,
                )
            self.metrics.request(route, response.status_code, time.perf_counter() - started)
            return response

        return guarded

    # --- routes --------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        """Up as long as webhooks can be taken; what is down is named."""
        return JSONResponse({"status": "UP", "model_class": "Doubtless", "v2": True, **self.state})

    async def setup(self, request: Request) -> Response:
        """Which version answers; called before almost everything Label Studio does."""
        body = await self._body(request)

        def answer() -> dict[str, Any]:
            project = self._project(request, body)
            schema = body.get("schema")
            if isinstance(schema, str) and schema and schema != project.label_config:
                take_config(self.app, project, schema)
            return {"model_version": self.predictor.version_name(project)}

        return JSONResponse(await self._record(answer))

    async def predict(self, request: Request) -> Response:
        """One prediction for each task."""
        body = await self._body(request)
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise BadRequestError("the body has no list 'tasks'; see Label Studio's ML backend API")
        project = await self._record(partial(self._project, request, body))
        model = DoubtlessModel(
            str(body.get("project") or ""),
            body.get("label_config"),
            predictor=self.predictor,
            project=project,
        )
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(
            self.predicting, partial(model.predict, tasks, context)
        )
        version = results[0]["model_version"] if results else model.model_version
        return JSONResponse({"results": results, "model_version": version})

    async def webhook(self, request: Request) -> Response:
        """Record what happened; answered in milliseconds, because an annotator waits for it."""
        body = await self._body(request)

        def record() -> dict[str, Any]:
            project = self._sender(request)
            action = body.get("action")
            if "project" not in body and action in WANTED_ACTIONS:
                outcome = apply_ping(self.app, project, str(action))
                self.metrics.event(str(action), outcome)
                return {"status": outcome}
            event = parse_event(body)
            if project.uid != event.project_uid:
                raise BadRequestError(
                    f"event of project '{event.project_uid}' with the secret of '{project.uid}'; "
                    "run `doubtless connect` for it"
                )
            outcome = apply_event(self.app, project, event)
            self.metrics.event(event.action, outcome)
            return {"status": outcome}

        return JSONResponse(await self._record(record))

    async def versions(self, request: Request) -> Response:
        """Names of the versions of the project that asks."""

        def names() -> list[str]:
            project = self._authenticated(request)
            if project is None:
                raise UnauthorizedError(
                    "/versions names no project; use the password that `doubtless connect` set"
                )
            return [
                v.name
                for v in self.app.database.versions(project.key)
                if v.status in ("live", "superseded")
            ]

        return JSONResponse({"versions": await self._record(names)})

    async def show_metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        text, kind = await self._record(self.metrics.render)
        return Response(text, media_type=kind)

    # --- helpers -------------------------------------------------------------------------

    async def _record(self, function: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.recording, function)

    async def _body(self, request: Request) -> dict[str, Any]:
        limit = self.app.settings.max_body_mb * 1_000_000
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise TooLargeError(
                    f"the body is over {self.app.settings.max_body_mb} MB; "
                    "raise DOUBTLESS_MAX_BODY_MB"
                )
            parts.append(part)
        raw = b"".join(parts)
        try:
            body = (
                json.loads(raw) if size < 100_000 else await self._record(partial(json.loads, raw))
            )
        except (ValueError, RecursionError) as exc:
            raise BadRequestError(f"the body is not JSON: {exc}") from exc
        if not isinstance(body, dict):
            raise BadRequestError(f"the body is a JSON {type(body).__name__}, expected an object")
        return body

    def _project(self, request: Request, body: dict[str, Any]) -> Project:
        """The project of a /setup or /predict: by password if there is one, else by its id."""
        project = self._authenticated(request)
        uid = body.get("project")
        if project is None:
            if self.app.settings.require_auth:
                raise UnauthorizedError(
                    "this Doubtless asks for the project's password; run `doubtless connect`, "
                    "which sets it in Label Studio"
                )
            return find_project(self.app, str(uid or ""))
        if uid is not None and uid != project.uid:
            raise BadRequestError(
                f"project '{uid}' with the password of '{project.uid}'; run `doubtless connect`"
            )
        return project

    def _authenticated(self, request: Request) -> Project | None:
        """The project whose password came with the request; ``None`` without one."""
        header = request.headers.get("authorization", "")
        if not header.lower().startswith("basic "):
            return None
        try:
            key, _, secret = base64.b64decode(header[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise UnauthorizedError("the Authorization header is not valid basic auth") from exc
        return self._by_secret(key, secret)

    def _sender(self, request: Request) -> Project:
        """The project an event comes from: by the webhook's headers, or by password."""
        key = request.headers.get("x-doubtless-key")
        secret = request.headers.get("x-doubtless-secret")
        if key is not None and secret is not None:
            return self._by_secret(key, secret)
        project = self._authenticated(request)
        if project is None:
            raise UnauthorizedError(
                "the event carries no secret; run `doubtless connect`, which sets it in Label "
                "Studio's webhook"
            )
        return project

    def _by_secret(self, key: str, secret: str) -> Project:
        found = [p for p in self.app.database.projects() if p.key == key]
        expected = found[0].secret if found else ""
        # Compared even when the key is unknown, so that the time tells nothing.
        if not hmac.compare_digest(secret.encode(), expected.encode()) or not found:
            raise UnauthorizedError(
                "wrong project key or secret; run `doubtless connect` for the project again"
            )
        return found[0]


async def _http_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, status_code=exc.status_code)


def serve(settings: Settings) -> int:
    """Serve until a signal says stop; returns the exit code."""
    set_up_logging(settings)
    try:
        web = Web(build(settings))
    except BackendError as exc:
        print(f"doubtless web: {exc}", file=sys.stderr)
        return 1
    server = uvicorn.Server(
        uvicorn.Config(
            web.asgi(),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
        )
    )
    # Streams of the dashboard have no end of their own: a stop would wait for all of them.
    web.is_leaving = lambda: server.should_exit
    with contextlib.suppress(KeyboardInterrupt):  # it has stopped in order, and says so again
        server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(serve(Settings.load()))
