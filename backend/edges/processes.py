"""Child processes that end with us: how Valkey, Label Studio and our own processes are started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

# Runs in the child before the program: asks Linux for SIGTERM when the parent dies, lowers the
# priority, and becomes the program. A separate interpreter start (15 ms) because Python code
# between fork and exec (`preexec_fn`) may deadlock in a parent that has threads. Linux weighs
# sessions against each other first (autogroup), so a niceness inside a session of its own counts
# for nothing: the session's has to be set too.
_SHIM = """
import os, signal, sys
parent, nice, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if sys.platform == "linux":
    import ctypes
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        sys.exit(0)
if nice:
    os.nice(nice)
    try:
        with open("/proc/self/autogroup", "w") as group:
            group.write(str(nice))
    except OSError:
        pass
try:
    os.execvpe(program[0], program, os.environ)
except OSError as exc:
    sys.exit(f"{program[0]} cannot be started: {exc.strerror}")
"""


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
    nice: int = 0,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that gets SIGTERM when this thread ends.

    A session of its own, so that Ctrl-C in the terminal reaches only us and the order in which
    things stop is ours. On systems other than Linux nothing stops it when we are killed.

    Args:
        command: program and arguments.
        env: its environment; ours by default.
        cwd: its folder.
        output: where standard output and error go.
        nice: how much less urgent than us it is, 0 to 19.
    """
    shim = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), str(nice), *command]
    return subprocess.Popen(
        shim,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def is_alive(pid: int) -> bool:
    """Whether a process runs under this id; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def process_name() -> str:
    """This process, for `is_gone`: the machine since it was started, the container, the id."""
    return f"{_whereabouts()}:{os.getpid()}"


def is_gone(name: str) -> bool | None:
    """Whether a process has ended that called itself `process_name`.

    Returns:
        None where that cannot be told: on another machine, in another container, by a name of
        another form. An id that was given to another process since counts as alive.
    """
    where, _, number = name.rpartition(":")
    if not where or where != _whereabouts() or not number.isdecimal():
        return None
    return not is_alive(int(number))


def _whereabouts() -> str:
    """Where a process id means one process; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until no process runs under this id; says whether that happened in time."""
    deadline = time.monotonic() + timeout_s
    while is_alive(pid):
        with suppress(ChildProcessError):  # not our child: somebody else collects it
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ask a child to end, and end its whole session when it does not."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    kill_session(process)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a child and its session, at once: also what an rq worker forked."""
    for pid in _session_members(process.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _session_members(session: int) -> list[int]:
    """Processes of a session, whatever their group (Linux; elsewhere none)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(entry.name)) == session:
                found.append(int(entry.name))
    return found


def free_port() -> int:
    """A port on the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_taken(host: str, port: int) -> bool:
    """Whether something listens on the port already, or we may not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    with socket.socket(family) as probe:
        probe.settimeout(1)
        if probe.connect_ex((reachable, port)) == 0:
            return True
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
