"""A small HTTP server on the loopback that a test scripts, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Route = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebServer:
    """Answers by path (without the query); what has no route is a 404."""

    url: str = ""
    routes: dict[str, Route] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def serve(
        self, path: str, body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answer `path` with a fixed body."""

        def route(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.routes[path] = route

    def headers_of(self, path: str) -> list[dict[str, str]]:
        """Headers of every request for `path`."""
        return [headers for _, asked, headers in self.asked if asked.partition("?")[0] == path]


@pytest.fixture
def make_server() -> Iterator[Callable[[], WebServer]]:
    running: list[ThreadingHTTPServer] = []

    def make() -> WebServer:
        web = WebServer()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                web.asked.append((self.command, self.path, dict(self.headers)))
                route = web.routes.get(self.path.partition("?")[0])
                if route is None:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                route(self)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that hang up are part of the tests."""

        server = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        web.url = f"http://127.0.0.1:{server.server_address[1]}"
        return web

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def web(make_server: Callable[[], WebServer]) -> WebServer:
    return make_server()
