"""The status, computed once for all who look, and pushed to browsers when it changed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from backend.app import App
from backend.status import overview

FRESH_S = 0.9
LOOK_S = 0.25  # how soon a stream notices that the process wants to stop
EVERY_S = 1.0
HEARTBEAT_S = 15.0
MOST_STREAMS = 64


class Latest:
    """The present status as text; however many ask, it is computed once in `FRESH_S`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._text = ""
        self._at = -1e9

    def now(self) -> dict[str, Any]:
        """The status of this moment, as ``doubtless status --json`` has it."""
        return overview(self._app.settings, self._app.database, self._app.queue)

    def text(self) -> str:
        """The same as JSON, up to `FRESH_S` old."""
        with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                self._text = json.dumps(self.now(), default=str)
                self._at = time.monotonic()
            return self._text


async def server_sent(
    text: Callable[[], Awaitable[str]],
    may_go_on: Callable[[], bool],
    is_leaving: Callable[[], bool],
) -> AsyncIterator[str]:
    """Lines of an event stream: ``status`` when it changed, a comment when nothing did for long.

    Args:
        text: gives the status.
        may_go_on: whether whoever listens still may.
        is_leaving: whether the process is to stop, which must not wait for listeners.
    """
    before, said_at, next_look = "", time.monotonic(), 0.0
    yield "retry: 2000\n\n"
    while not is_leaving():
        now = time.monotonic()
        if now >= next_look:
            next_look = now + EVERY_S
            if not may_go_on():
                return
            found = await text()
            if found != before:
                before, said_at = found, now
                yield f"event: status\ndata: {found}\n\n"
            elif now - said_at >= HEARTBEAT_S:
                said_at = now
                yield ": still here\n\n"
        await asyncio.sleep(LOOK_S)
