"""The lines that child processes print: read from their pipes, shown in one terminal."""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TextIO, cast

from backend.services import Service

Say = Callable[[str, str], None]  # the name of a process, and a line of its output

COLOURS = {"web": "36", "valkey": "33", "label-studio": "35"}


class Outputs:
    """Copies what services print, line by line.

    Args:
        say: takes the name of the process and the line.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}

    def watch(self, service: Service) -> None:
        """From now on copy what the running process of a service prints."""
        assert service.process is not None
        assert service.process.stdout is not None
        os.set_blocking(service.process.stdout.fileno(), False)
        self._selector.register(service.process.stdout, selectors.EVENT_READ, service)

    def copy(self, timeout_s: float) -> None:
        """Copy what there is, waiting for it so long at most."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            self._read(key.data, cast(IO[bytes], key.fileobj))  # only pipes are registered

    def drain(self, service: Service) -> None:
        """Copy the last of a process that ended, and close its pipe."""
        pipe = service.process.stdout if service.process else None
        if pipe is None or pipe.closed:
            return
        while self._read(service, pipe):
            pass
        if not pipe.closed:  # a grandchild still holds it
            self._selector.unregister(pipe)
            pipe.close()

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()

    def _read(self, service: Service, pipe: IO[bytes]) -> bool:
        """Copy what is there; says whether there may be more."""
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        number = pipe.fileno()
        *lines, rest = (self._partial.pop(number, b"") + data).split(b"\n")
        if data and rest:
            self._partial[number] = rest[-65536:]
        elif rest:
            lines.append(rest)
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                service.last_line = text[-500:]
                self._say(service.name, text)
        if not data:
            self._selector.unregister(pipe)
            pipe.close()
        return bool(data)


def printer(to: TextIO | None = None) -> Say:
    """Print lines with the name of their process before them, in colour on a terminal.

    Args:
        to: standard output by default.
    """
    to = sys.stdout if to is None else to
    colour = to.isatty() and "NO_COLOR" not in os.environ

    def say(name: str, line: str) -> None:
        label = f"{name:<9}"
        if colour:
            label = f"\033[{COLOURS.get(name, '32')}m{label}\033[0m"
        with suppress(BrokenPipeError, ValueError):
            print(f"{label}| {line}", file=to, flush=True)

    return say
