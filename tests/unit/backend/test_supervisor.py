"""The supervisor with small stand-in programs, and with the real Valkey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from backend.commands import with_running_stack
from backend.edges.processes import free_port, is_alive, wait_gone
from backend.edges.valkey import start_valkey
from backend.errors import LaunchError
from backend.services import Service, environment, restart_wait_s
from backend.settings import Settings
from backend.stack_home import STATED, read_state
from backend.supervisor import Stack, run_stack

HEALTHY = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *a): pass
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def service(name: str, command: Sequence[str], **kwargs: object) -> Service:
    return Service(name, command, dict(os.environ), **kwargs)  # type: ignore[arg-type]


class Lines(list[tuple[str, str]]):
    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=str(tmp_path / "home"), port=free_port())


def run(
    settings: Settings,
    extra: Sequence[Service],
    act: Callable[[Stack], int],
    said: Lines | None = None,
) -> int:
    """Run the stack without web and workers, and do something while it runs."""
    said = Lines() if said is None else said
    return run_stack(settings, web=False, workers=0, extra=extra, on_ready=act, say=said)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_valkey_runs_as_long_as_the_stack_and_its_address_is_in_the_state_file(
    settings: Settings,
) -> None:
    seen = {}

    def act(_: Stack) -> int:
        state = read_state(settings.home_path)
        assert state is not None
        seen.update(state)
        with redis.Redis.from_url(state["redis_url"]) as client:
            client.ping()
        return 7

    assert run(settings, [], act) == 7
    assert seen["pid"] == os.getpid()
    assert not is_alive(seen["processes"]["valkey"])
    assert read_state(settings.home_path) is None


def test_commands_tell_of_what_runs_whatever_their_own_terminal_says(settings: Settings) -> None:
    changed = replace(settings, pyramid="efficientnet-lite2-pyramid", retrain_after=7, quiet_s=3.5)
    seen: list[Settings] = []

    def act(_: Stack) -> int:
        seen.append(with_running_stack(settings))
        return 0

    run(changed, [], act)
    (found,) = seen
    assert found.redis_url
    assert {name: getattr(found, name) for name in STATED} == {
        name: getattr(changed, name) for name in STATED
    }
    own = replace(settings, redis_url="redis://elsewhere")
    assert with_running_stack(own) == own
    assert with_running_stack(settings) == settings  # it runs no more


def test_a_redis_of_ones_own_replaces_the_embedded_one(tmp_path: Path) -> None:
    own = start_valkey(tmp_path / "own")
    try:
        run(Settings(home=str(tmp_path), redis_url=own.url), [], lambda stack: 0)
    finally:
        own.stop()
    assert not (tmp_path / "redis").exists()


def test_nothing_starts_without_the_redis_that_is_named(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), redis_url="redis://:secret@127.0.0.1:1/0")
    child = service("child", python("print('started')"))
    with pytest.raises(LaunchError, match="no Redis answers at") as refused:
        run(settings, [child], lambda stack: 0)
    assert "secret" not in str(refused.value)
    assert child.process is None


def test_it_is_ready_when_health_answers_and_copies_every_line(settings: Settings) -> None:
    port, said = free_port(), Lines()
    child = service("child", python(HEALTHY, port), health_url=f"http://127.0.0.1:{port}/health")
    assert run(settings, [child], lambda stack: 0, said) == 0
    assert ("child", "listening") in said
    assert child.process is not None
    assert not is_alive(child.process.pid)


def test_what_dies_is_started_again(settings: Settings) -> None:
    child = service("child", python("import time; print('up', flush=True); time.sleep(60)"))
    said = Lines()

    def act(stack: Stack) -> int:
        first = child.process
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: child.process not in (None, first) and child.is_running)
        state = read_state(settings.home_path)
        assert state is not None
        assert child.process is not None
        until(
            lambda: (
                (read_state(settings.home_path) or {})["processes"].get("child")
                == child.process.pid
            )
        )
        return 0

    assert run(settings, [child], act, said) == 0
    assert any("child ended (signal 9)" in line for _, line in said)


def test_valkey_is_started_again_at_the_same_address(settings: Settings) -> None:
    def act(stack: Stack) -> int:
        assert stack.valkey is not None
        before = stack.valkey
        with redis.Redis.from_url(before.url) as client:
            client.set("kept", "yes")
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: stack.valkey is not before)
        assert stack.valkey.url == before.url
        with redis.Redis.from_url(before.url) as client:
            assert client.get("kept") == b"yes"
        return 0

    assert run(settings, [], act) == 0


def test_the_grandchildren_of_a_killed_process_end_too(settings: Settings, tmp_path: Path) -> None:
    """An rq worker forks a process with a group of its own for every job."""
    if sys.platform != "linux":
        pytest.skip("only Linux lists the processes of a session")
    note = tmp_path / "pid"
    code = (
        "import os, sys, time, pathlib\n"
        "if os.fork() == 0:\n"
        "    os.setpgrp()\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    child = service("child", python(code, note))

    def act(stack: Stack) -> int:
        until(lambda: note.exists() and note.read_text())
        grandchild = int(note.read_text())
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGKILL)
        until(lambda: not is_alive(grandchild))
        return 0

    assert run(settings, [child], act) == 0


def test_one_that_ignores_sigterm_is_cut_off(settings: Settings) -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN)\n"
        "print('deaf', flush=True); time.sleep(60)"
    )
    child, said = service("child", python(code), stop_s=0.3), Lines()

    def act(stack: Stack) -> int:
        until(lambda: ("child", "deaf") in said)
        return 0

    started = time.monotonic()
    run(settings, [child], act, said)
    assert time.monotonic() - started < 15
    assert any("still busy" in line for _, line in said)
    assert child.process is not None
    assert not is_alive(child.process.pid)


def test_a_service_that_never_comes_up_ends_the_stack_with_its_last_line(
    settings: Settings,
) -> None:
    child = service(
        "web",
        python("import sys; sys.exit('the database is of a newer version')"),
        health_url=f"http://127.0.0.1:{free_port()}/health",
    )
    with pytest.raises(LaunchError, match=r"web ended three times .* database is of a newer"):
        run(settings, [child], lambda stack: 0)
    assert read_state(settings.home_path) is None


def test_a_taken_port_is_one_sentence_with_the_option(settings: Settings) -> None:
    code = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print(1, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(python(code, settings.port), stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        with holder.stdout:
            holder.stdout.readline()
        with pytest.raises(LaunchError, match=rf"port {settings.port} .*--port"):
            run_stack(settings, web=True, workers=0, say=Lines())
    finally:
        holder.kill()
        holder.wait()
    assert not (settings.home_path / "redis").exists(), "nothing was started"


def test_a_second_stack_on_the_same_home_is_refused(settings: Settings) -> None:
    def act(stack: Stack) -> int:
        with pytest.raises(LaunchError, match=rf"already runs on .*process {os.getpid()}.*--home"):
            run_stack(settings, web=False, workers=0, say=Lines())
        assert read_state(settings.home_path) is not None, "the first one's file is untouched"
        return 0

    assert run(settings, [], act) == 0


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"cannot be written .*--home"):
        run_stack(Settings(home=str(tmp_path / "file/home")), web=False, workers=0, say=Lines())


def test_the_state_file_is_ours_alone(settings: Settings) -> None:
    def act(stack: Stack) -> int:
        assert (settings.home_path / "stack.json").stat().st_mode & 0o077 == 0
        return 0

    assert run(settings, [], act) == 0


def test_a_damaged_state_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    assert read_state(tmp_path) is None
    (tmp_path / "stack.json").write_text(json.dumps({"pid": 1}))
    assert read_state(tmp_path) is None


def test_children_get_every_setting(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), workers=3, threads=2, require_auth=True, quiet_s=1.5)
    env = environment(settings)
    assert Settings.load({k: v for k, v in env.items() if k.startswith("DOUBTLESS_")}) == settings
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """In a process of its own, because pytest needs its signals itself."""
    code = (
        "import sys, os; from backend.supervisor import *; from backend.settings import Settings\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = Service('child', sleep, dict(os.environ))\n"
        "sys.exit(run_stack(Settings(home=sys.argv[1]), web=False, workers=0, extra=[child]))\n"
    )
    stack = subprocess.Popen(python(code, tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        assert stack.stdout is not None
        with stack.stdout:
            assert "ready" in stack.stdout.readline()
            state = read_state(tmp_path)
            assert state is not None
            stack.send_signal(number)
            assert stack.wait(15) == 0
    finally:
        stack.kill()
        stack.wait()
    assert not any(is_alive(pid) for pid in state["processes"].values())
    assert read_state(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_nothing_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, os; from backend.supervisor import *; from backend.settings import Settings\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = Service('child', sleep, dict(os.environ))\n"
        "run_stack(Settings(home=sys.argv[1]), web=False, workers=0, extra=[child])\n"
    )
    stack = subprocess.Popen(python(code, tmp_path), stdout=subprocess.PIPE, text=True)
    assert stack.stdout is not None
    with stack.stdout:
        assert "ready" in stack.stdout.readline()
    state = read_state(tmp_path)
    assert state is not None
    stack.kill()
    stack.wait()
    for pid in state["processes"].values():
        assert wait_gone(pid, 10)
    # The state file is left behind; the next start takes the home over.
    settings = Settings(home=str(tmp_path))
    assert run(settings, [], lambda stack: 0) == 0


def test_another_thread_can_stop_it(settings: Settings) -> None:
    def act(stack: Stack) -> int:
        threading.Timer(0.1, stack.request_stop, [3]).start()
        stack.stopping.wait(10)
        return 0

    assert run(settings, [], act) == 3


def test_what_the_companion_raises_is_raised_after_everything_has_stopped(
    settings: Settings,
) -> None:
    def act(stack: Stack) -> int:
        raise LaunchError("it does not work")

    with pytest.raises(LaunchError, match="it does not work"):
        run(settings, [], act)
    assert read_state(settings.home_path) is None


@pytest.mark.parametrize(("doublings", "seconds"), [(0, 0.5), (3, 4.0), (6, 30.0), (5000, 30.0)])
def test_whatever_keeps_ending_is_started_again_later_and_later(
    doublings: int, seconds: float
) -> None:
    assert restart_wait_s(doublings) == seconds
