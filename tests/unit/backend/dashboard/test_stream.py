from __future__ import annotations

import asyncio
import threading
import time

import pytest
import requests
import uvicorn

from backend.dashboard import stream
from backend.dashboard.stream import Latest, server_sent


def listen(texts, monkeypatch, *, heartbeat=1e9, allowed=None, leaving=lambda: False):
    """What comes out while the status is each of `texts` in turn; the listener leaves then."""
    monkeypatch.setattr(stream, "LOOK_S", 0.0)
    monkeypatch.setattr(stream, "EVERY_S", 0.0)
    monkeypatch.setattr(stream, "HEARTBEAT_S", heartbeat)
    rest = list(texts)

    async def text():
        return rest.pop(0)

    async def collect():
        found = server_sent(text, allowed or (lambda: bool(rest)), leaving)
        return [line async for line in found]

    return asyncio.run(asyncio.wait_for(collect(), 5))


def test_only_changes_are_pushed(monkeypatch):
    assert listen(["a", "a", "b", "b", "a"], monkeypatch) == [
        "retry: 2000\n\n", "event: status\ndata: a\n\n", "event: status\ndata: b\n\n",
        "event: status\ndata: a\n\n",
    ]  # fmt: skip


def test_silence_is_broken_by_comments(monkeypatch):
    said = listen(["a", "a", "a"], monkeypatch, heartbeat=0.0)
    assert said[2:] == [": still here\n\n"] * 2


def test_a_login_that_ended_ends_the_stream(monkeypatch):
    assert listen(["a"], monkeypatch, allowed=lambda: False) == ["retry: 2000\n\n"]


def test_a_process_that_stops_ends_the_stream(monkeypatch):
    assert listen(["a"], monkeypatch, leaving=lambda: True) == ["retry: 2000\n\n"]


def test_the_status_is_computed_once_for_all_who_look(world, monkeypatch):
    latest = Latest(world.app)
    looks = []
    monkeypatch.setattr(latest, "now", lambda: looks.append(1) or {"n": len(looks)})
    assert {latest.text() for _ in range(5)} == {'{"n": 1}'}
    monkeypatch.setattr(stream, "FRESH_S", 0.0)
    assert latest.text() == '{"n": 2}'


def test_too_many_listeners_are_told_to_ask_instead(web, owner):
    web.dashboard.streams = stream.MOST_STREAMS
    answer = owner.get("/api/stream")
    assert answer.status_code == 503
    assert "/api/status" in answer.json()["error"]


@pytest.fixture
def address(web, tokens):
    """The same over a real connection: a test client cannot hang up."""
    config = uvicorn.Config(web.asgi(), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    web.stop.set()
    server.should_exit = True
    thread.join(5)


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listening(address, tokens):
    return requests.get(
        f"{address}/api/stream", headers={"Authorization": f"Bearer {tokens.full}"}, stream=True,
        timeout=5,
    )  # fmt: skip


def test_whoever_hangs_up_makes_room(web, address, tokens):
    answers = [listening(address, tokens) for _ in range(3)]
    wait_for(lambda: web.dashboard.streams == 3)
    answers.pop().close()
    wait_for(lambda: web.dashboard.streams == 2)
    for answer in answers:
        answer.close()
    wait_for(lambda: web.dashboard.streams == 0)


def test_a_stream_that_cannot_go_on_ends_and_says_so_in_the_log(
    web, address, tokens, monkeypatch, caplog
):
    monkeypatch.setattr(web.dashboard.latest, "now", lambda: 1 / 0)
    assert listening(address, tokens).text == "retry: 2000\n\n"
    assert "broke off" in caplog.text
