"""A child process that a supervisor keeps running: its environment, its health, its restarts."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import backend
from backend.edges.processes import kill_session, spawn
from backend.errors import LaunchError
from backend.settings import PREFIX, Settings

HEALTH_TIMEOUT_S = 120.0
RESTART_S = (0.5, 30.0)
STABLE_S = 60.0


@dataclass
class Service:
    """A child process that is kept running.

    Attributes:
        name: before each of its lines.
        command: program and arguments.
        env: its whole environment.
        nice: how much less urgent than the others it is.
        stop_s: seconds it gets to end by itself.
        health_url: answers 200 when it is ready; empty when there is nothing to ask.
        health_timeout_s: seconds it may take for that.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    nice: int = 0
    stop_s: float = 10.0
    health_url: str = ""
    health_timeout_s: float = HEALTH_TIMEOUT_S
    process: subprocess.Popen[bytes] | None = None
    healthy: bool = False
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float = 0.0
    last_line: str = ""

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start its process, whose output is then to be read."""
        self.process = spawn(self.command, env=self.env, output=subprocess.PIPE, nice=self.nice)
        self.started_at, self.healthy = time.monotonic(), not self.health_url

    def became_healthy(self) -> bool:
        """Ask at its address, unless it has answered already; says whether it now did.

        Raises:
            LaunchError: it has been silent for too long.
        """
        if self.healthy or not self.is_running:
            return False
        if answers(self.health_url):
            self.healthy, self.deaths = True, 0
            return True
        if time.monotonic() - self.started_at > self.health_timeout_s:
            raise LaunchError(
                f"{self.name} does not answer at {self.health_url} after "
                f"{self.health_timeout_s:.0f} s; its last line was: {self.last_line}"
            )
        return False

    def bury(self, now: float) -> str:
        """End what is left of a process that ended, and set when it is started again.

        Args:
            now: by the monotonic clock.

        Returns:
            One sentence for people.

        Raises:
            LaunchError: it has never been ready, and ended for the third time.
        """
        assert self.process is not None
        code = self.process.returncode
        kill_session(self.process)
        self.process = None
        if now - self.started_at > STABLE_S:
            self.deaths = 0
        self.deaths += 1
        if self.health_url and not self.healthy and self.deaths >= 3:
            raise LaunchError(
                f"{self.name} ended three times before it was ready; its last line "
                f"was: {self.last_line or f'none (exit code {code})'}"
            )
        wait = restart_wait_s(self.deaths - 1)
        self.restart_at = now + wait
        return f"{self.name} ended ({_why(code)}); again in {wait:g} s"


def restart_wait_s(doublings: int) -> float:
    """Seconds before something that ended is started again."""
    first, most = RESTART_S
    # Whatever keeps ending for hours has more doublings than a float.
    return min(first * 2.0 ** min(doublings, 10), most)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of our own processes: every setting, and where the packages are."""
    threads = str(settings.thread_count())
    values = {PREFIX + name.upper(): _text(value) for name, value in asdict(settings).items()}
    values |= {
        PREFIX + "HOME": str(settings.home_path),
        PREFIX + "THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        # ONNX Runtime's Linux builds report their use to its maker unless told not to.
        "ORT_DISABLE_TELEMETRY": "1",
    }
    root = str(Path(backend.__file__).resolve().parent.parent)
    values["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **values}


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET of the address gives 200."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            url, timeout=timeout_s
        ) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _why(code: int | None) -> str:
    if code is None:
        return "unknown"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
