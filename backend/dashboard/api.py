"""The dashboard's routes: its files, and the JSON endpoints that every number comes from."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from backend import acceptance, acts, audits, commands
from backend.app import App
from backend.audits import BY
from backend.dashboard import openapi
from backend.dashboard.access import Access, Level
from backend.dashboard.details import details, events
from backend.dashboard.given import body_of, count_of, flag_of, names_of, one_of, promise_of
from backend.dashboard.pictures import thumbnail
from backend.dashboard.stream import MOST_STREAMS, Latest, server_sent
from backend.errors import BackendError, BadRequestError, BusyError
from backend.methods import ACQUISITION, ESTIMATOR
from backend.records import Project
from model.acceptance.plan import Promise

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
ASKED = "asked for on the dashboard"
DOUBTFUL, MOST_DOUBTFUL = 12, 100
EVENTS, MOST_EVENTS = 50, 500
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Handler = Callable[[Request], Awaitable[Response]]
Count = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Endpoint:
    """One route of the API and what a request needs to be answered."""

    method: str
    path: str
    handler: Handler
    needs: Level


class Dashboard:
    """Pages and API.

    Args:
        app: the parts.
        count: called with route, status and seconds of every request.
        is_leaving: whether the process is to stop.
    """

    def __init__(
        self, app: App, *, count: Count, is_leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self.app = app
        self.access = Access(app.settings)
        self.latest = Latest(app)
        self.streams = 0
        self._count = count
        self._is_leaving = is_leaving
        # Threads of their own: a slow page must never keep a webhook waiting.
        self.reading = ThreadPoolExecutor(2, "dashboard")
        self.slow = ThreadPoolExecutor(4, "dashboard-slow")
        self._files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir())}

    def close(self) -> None:
        """Let the threads end."""
        self.reading.shutdown(wait=False, cancel_futures=True)
        self.slow.shutdown(wait=False, cancel_futures=True)

    def endpoints(self) -> list[Endpoint]:
        """Every route of the API."""
        project = "/api/projects/{key}"
        return [
            Endpoint("GET", "/api/openapi.json", self.openapi, Level.NOTHING),
            Endpoint("GET", "/api/session", self.session, Level.READ),
            Endpoint("POST", "/api/session", self.log_in, Level.NOTHING),
            Endpoint("DELETE", "/api/session", self.log_out, Level.NOTHING),
            Endpoint("GET", "/api/status", self.status, Level.READ),
            Endpoint("GET", "/api/stream", self.stream, Level.READ),
            Endpoint("GET", project, self.project, Level.READ),
            Endpoint("GET", f"{project}/events", self.events, Level.READ),
            # It asks Label Studio with the owner's token, and says whose that is.
            Endpoint("GET", f"{project}/doctor", self.doctor, Level.ACT),
            Endpoint("GET", f"{project}/tasks/{{id}}/image", self.image, Level.READ),
            Endpoint("POST", f"{project}/train", self.train, Level.ACT),
            Endpoint("POST", f"{project}/pause", self.pause, Level.ACT),
            Endpoint("POST", f"{project}/resume", self.resume, Level.ACT),
            Endpoint("POST", f"{project}/rollback", self.rollback, Level.ACT),
            Endpoint("POST", f"{project}/methods", self.methods, Level.ACT),
            Endpoint("POST", f"{project}/audit", self.audit, Level.ACT),
            Endpoint("POST", f"{project}/audit/cancel", self.cancel, Level.ACT),
            Endpoint("POST", f"{project}/accept", self.accept, Level.ACT),
            Endpoint("POST", f"{project}/accept/undo", self.undo, Level.ACT),
        ]

    def routes(self) -> list[Route]:
        """For the ASGI application."""
        made = [
            Route(e.path, self._answer(e), methods=[e.method], include_in_schema=False)
            for e in self.endpoints()
        ]
        pages = [Route(path, self._page("index.html")) for path in ("/dashboard", "/dashboard/")]
        files = [Route(f"/dashboard/{name}", self._page(name)) for name in self._files]
        nothing = Route("/api/{rest:path}", self._nothing, methods=METHODS, include_in_schema=False)
        return [*pages, *files, *made, nothing]

    async def _nothing(self, request: Request) -> Response:
        said = f"there is no {request.method} {request.url.path}; /api/openapi.json lists all"
        return JSONResponse({"error": said}, status_code=404, headers=HEADERS)

    def _page(self, name: str) -> Handler:
        content = self._files[name]
        kind = KINDS.get(Path(name).suffix, "text/html")
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = HEADERS | {"Cache-Control": "no-cache", "ETag": tag}

        async def page(request: Request) -> Response:
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            return Response(content, media_type=kind, headers=headers)

        return page

    def _answer(self, endpoint: Endpoint) -> Handler:
        """Check access, turn every refusal into one JSON sentence, count and time the request."""

        async def answered(request: Request) -> Response:
            started = time.perf_counter()
            try:
                self.access.require(request, endpoint.needs)
                response = await endpoint.handler(request)
            except BackendError as exc:
                response = JSONResponse({"error": str(exc)}, status_code=exc.status)
            except Exception:  # a client never gets a traceback: the log has it
                log.exception("%s %s failed", endpoint.method, endpoint.path)
                said = f"Doubtless could not answer {endpoint.path}; the log of `web` says why"
                response = JSONResponse({"error": said}, status_code=500)
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "no-store")
            self._count(endpoint.path, response.status_code, time.perf_counter() - started)
            return response

        return answered

    # --- reading -------------------------------------------------------------------------

    async def openapi(self, _: Request) -> Response:
        """The description of this API."""
        return JSONResponse(openapi.document())

    async def session(self, request: Request) -> Response:
        """What this login may do."""
        return JSONResponse({"may_act": self.access.level(request) is Level.ACT})

    async def status(self, _: Request) -> Response:
        """What ``doubtless status --json`` prints."""
        return JSONResponse(await self._read(self.latest.now))

    async def stream(self, request: Request) -> Response:
        """The status whenever it changed."""
        if self.streams >= MOST_STREAMS:
            raise BusyError(
                f"{self.streams} pages already listen; ask /api/status every few seconds instead"
            )

        async def lines() -> Any:
            self.streams += 1
            try:
                async for line in server_sent(
                    lambda: self._read(self.latest.text),
                    lambda: self.access.level(request) is not Level.NOTHING,
                    self._is_leaving,
                ):
                    yield line
            except (
                Exception
            ):  # the answer has begun: all that is left is to end it and tell the log
                log.exception("a stream of the dashboard broke off; its page asks instead")
            finally:
                self.streams -= 1

        headers = {"X-Accel-Buffering": "no"}  # nginx would collect the lines
        return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)

    async def project(self, request: Request) -> Response:
        """Versions, classes, calibration, histogram, most doubtful tasks.

        How good people are is for those who may act: a shared link goes to many.
        """
        count = count_of(request, "doubtful", DOUBTFUL, MOST_DOUBTFUL)
        of_people = self.access.level(request) is Level.ACT
        return JSONResponse(
            await self._read(
                lambda: details(self.app, self._project(request), count, of_people=of_people)
            )
        )

    async def events(self, request: Request) -> Response:
        """What happened, newest first."""
        limit = count_of(request, "limit", EVENTS, MOST_EVENTS)
        found = await self._read(lambda: events(self.app.database, self._project(request), limit))
        return JSONResponse({"events": found})

    async def doctor(self, request: Request) -> Response:
        """What is wrong in Label Studio, and the fix; asks Label Studio, so it takes a while."""

        def look() -> dict[str, Any]:
            project = self._project(request)
            found = commands.diagnose(self.app.settings, project, self.app.database)
            return {"ok": all(f.ok for f in found), "findings": [asdict(f) for f in found]}

        return JSONResponse(await self._read(look, self.slow))

    async def image(self, request: Request) -> Response:
        """A small picture of a task."""
        given = request.path_params["id"]
        if not given.isascii() or not given.isdigit() or len(given) > 15:
            raise BadRequestError(f"'{given}' is no task id; give a whole number, such as 12")
        data = await self._read(
            lambda: thumbnail(self.app, self._project(request), int(given)), self.slow
        )
        return Response(
            data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"}
        )

    # --- acting --------------------------------------------------------------------------

    async def log_in(self, request: Request) -> Response:
        """Keep a token in a cookie."""
        self.access.require_own_page(request)
        token = (await body_of(request)).get("token")
        if not isinstance(token, str):
            raise BadRequestError("the body has no text 'token'; `doubtless dashboard` prints it")
        level = self.access.level_of(token.strip())
        response = JSONResponse({"may_act": level is Level.ACT})
        self.access.log_in(request, response, token.strip())
        return response

    async def log_out(self, request: Request) -> Response:
        """Forget the cookie."""
        self.access.require_own_page(request)
        response = JSONResponse({"said": "Logged out."})
        self.access.log_out(request, response)
        return response

    async def train(self, request: Request) -> Response:
        """Train now."""
        return await self._act(request, self._train)

    async def pause(self, request: Request) -> Response:
        """Start nothing more."""
        return await self._act(request, self._pause)

    async def resume(self, request: Request) -> Response:
        """Go on after a pause."""
        return await self._act(request, self._resume)

    async def rollback(self, request: Request) -> Response:
        """Publish an earlier version again."""
        name = (await body_of(request)).get("version")
        if not isinstance(name, str) or not name:
            raise BadRequestError("the body has no text 'version'; give a name, such as \"v3\"")
        return await self._act(request, partial(self._roll_back, name))

    async def methods(self, request: Request) -> Response:
        """Choose another estimator or acquisition rule."""
        body = await body_of(request)
        wanted = names_of(body, (ESTIMATOR, ACQUISITION))
        return await self._act(request, partial(self._methods, wanted, flag_of(body, "now")))

    async def audit(self, request: Request) -> Response:
        """Ask for the labels that prove how much may be accepted unseen."""
        body = await body_of(request)
        promise, by = promise_of(body), one_of(body, "by", BY)
        return await self._act(request, partial(self._audit, promise, by))

    async def cancel(self, request: Request) -> Response:
        """Give up an audit."""
        return await self._act(request, self._cancel)

    async def accept(self, request: Request) -> Response:
        """Accept what an audit has proved."""
        return await self._act(request, self._accept)

    async def undo(self, request: Request) -> Response:
        """Take accepted labels back."""
        return await self._act(request, self._undo)

    def _methods(self, wanted: dict[str, str], now: bool, project: Project) -> str:
        settings, database = self.app.settings, self.app.database
        return acts.change_methods(settings, database, project, wanted, now=now, reason=ASKED)

    def _audit(self, promise: Promise, by: str, project: Project) -> str:
        audit = acceptance.propose(self.app.database, project, promise, by=by)
        _, wanted = audits.progress(self.app.database, project, audit)
        return (
            f"{wanted} labels are asked for; they come first in the queue. When they "
            "are there, it shows how much may be accepted."
        )

    def _cancel(self, project: Project) -> str:
        acts.cancel_audit(self.app.database, project, ASKED)
        return "The audit is given up; its labels are trained on like all others."

    def _accept(self, project: Project) -> str:
        acts.accept(self.app.database, project, ASKED)
        return "Annotations are being made of what was proved."

    def _undo(self, project: Project) -> str:
        acts.undo_acceptance(self.app.database, project, ASKED)
        return "Accepted labels are being taken back; those that people changed stay."

    def _train(self, project: Project) -> str:
        acts.train(self.app.database, project, ASKED)
        over = " The pause is over." if project.paused else ""
        return f"A training was asked for; it starts as soon as a worker is free.{over}"

    def _pause(self, project: Project) -> str:
        acts.pause(self.app.database, project)
        return "Paused: labels are still recorded, but no training starts by itself."

    def _resume(self, project: Project) -> str:
        acts.resume(self.app.database, project)
        return "Going on: the next training comes when it is due."

    def _roll_back(self, name: str, project: Project) -> str:
        database = self.app.database
        version = acts.find_version(database, project, name)
        acts.republish(
            self.app.settings, database, project, version, f"rolled back to {version.name}"
        )
        return f"{version.name} is being published again, under a new number."

    async def _act(self, request: Request, act: Callable[[Project], str]) -> Response:
        said = await self._read(lambda: act(self._project(request)))
        return JSONResponse({"said": said}, status_code=202)

    # --- helpers -------------------------------------------------------------------------

    def _project(self, request: Request) -> Project:
        return self.app.database.project(request.path_params["key"])

    async def _read(
        self, function: Callable[[], Any], threads: ThreadPoolExecutor | None = None
    ) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads or self.reading, function)
