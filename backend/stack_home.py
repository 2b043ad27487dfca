"""One stack on a home: the lock that refuses a second one, and what the first says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from backend.errors import LaunchError
from backend.settings import Settings

STATE_FILE = "stack.json"
# What decides when is trained, and on what: commands in another terminal tell of what runs.
STATED = (
    "backbone", "pyramid", "estimator", "acquisition", "box_estimator", "box_acquisition",
    "retrain_after", "retrain_growth", "quiet_s", "box_quiet_s",
)  # fmt: skip


class StackHome:
    """The home of the settings, while one stack runs on it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock: IO[str] | None = None

    def take(self) -> None:
        """Keep every other stack away.

        Raises:
            LaunchError: another stack runs there, or the folder cannot be written.
        """
        home = self._settings.home_path
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = (home / "stack.lock").open("a+", encoding="utf-8")
        except OSError as exc:
            raise LaunchError(
                f"{home} cannot be written ({exc.strerror or exc}); choose another folder with "
                "--home (DOUBTLESS_HOME)"
            ) from exc
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no fcntl on Windows, where workers cannot fork either
            return
        except OSError:
            self._lock.close()
            self._lock = None
            other = read_state(home)
            who = f"process {other['pid']}, {other['url']}" if other else "another process"
            raise LaunchError(
                f"Doubtless already runs on {home} ({who}); stop it first, or use another folder "
                "with --home (DOUBTLESS_HOME)"
            ) from None

    def release(self) -> None:
        """Let the next stack in."""
        (self._settings.home_path / STATE_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def write_state(self, redis_url: str, processes: Mapping[str, int]) -> None:
        """Replace what `read_state` reads.

        Args:
            redis_url: where the queue is.
            processes: the ids of what runs, by name.
        """
        path = self._settings.home_path / STATE_FILE
        state = {
            "pid": os.getpid(),
            "url": self._settings.reachable_url,
            "host": self._settings.host,
            "port": self._settings.port,
            "redis_url": redis_url,
            "processes": dict(processes),
            "settings": {name: getattr(self._settings, name) for name in STATED},
        }
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)  # it carries the password of the Valkey
        temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
        temporary.replace(path)


def read_state(home: Path) -> dict[str, Any] | None:
    """What ``stack.json`` says of the stack that runs on a home; ``None`` without one."""
    with suppress(OSError, ValueError):
        state = json.loads((home / STATE_FILE).read_text(encoding="utf-8"))
        if isinstance(state, dict) and {"pid", "url", "redis_url", "processes"} <= state.keys():
            return state
    return None
