"""One process of the other environment: a request goes in, arrays come back, or the reason why not.

A request is one line of JSON ``{"call": NAME, "from": FILE, "into": FILE}``, arrays in the first
``.npz`` file. The answer is one line: ``{"ok": true, "seconds": S}``, its arrays in the second, or
``{"ok": false, "error": TEXT}``. Nothing else is ever written to that pipe: the worker sends what
libraries print to standard error.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
START_S = 120.0  # importing everything on a busy machine


class PeerError(Exception):
    """A call failed; the message is the library's own."""


class PeerTimeoutError(PeerError):
    """A call took longer than it may."""


def end_workers_when_terminated() -> None:
    """Let SIGTERM unwind like any error, so that no worker goes on computing for nobody."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class PeerProcess:
    """Starts the worker when first asked, and again after it was too slow or died.

    Args:
        command: what starts the worker.
        shared: arrays that every call may need, such as the features; sent once a start.
        environment: added to this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        shared: Arrays | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._shared = shared or {}
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def call(
        self, name: str, arrays: Arrays, *, limit_s: float
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Ask for one thing.

        Returns:
            The arrays of the answer, and the seconds that the library's own code took.

        Raises:
            PeerTimeoutError: no answer within the limit; the worker was ended.
            PeerError: the library raised, or the worker died.
        """
        if self._process is None:
            self._start()
        return self._exchange(name, arrays, limit_s)

    def stop(self) -> None:
        """End the worker, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._exchange("share", self._shared, START_S)

    def _exchange(
        self, name: str, arrays: Arrays, limit_s: float
    ) -> tuple[dict[str, NDArray[Any]], float]:
        assert self._process is not None
        assert self._process.stdin is not None
        sent, into = Path(self._folder.name) / "sent.npz", Path(self._folder.name) / "got.npz"
        np.savez(sent, **arrays)
        request = {"call": name, "from": str(sent), "into": str(into)}
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            self.stop()
            raise PeerError("the worker died before it was asked") from exc
        answer = json.loads(self._read_line(limit_s))
        if not answer["ok"]:
            raise PeerError(answer["error"])
        with np.load(into) as found:
            return dict(found), float(answer["seconds"])

    def _read_line(self, limit_s: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        until = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, until - time.monotonic())
            )
            if not ready:
                self.stop()
                raise PeerTimeoutError(f"no answer within {limit_s:g} s")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                code = self._process.wait()
                self.stop()
                raise PeerError(f"the worker died (exit code {code})")
            line += part
        return line
