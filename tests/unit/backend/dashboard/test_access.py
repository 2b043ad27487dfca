"""Who may look and who may act."""

from __future__ import annotations

import json
import stat

import pytest

from backend.dashboard.access import FILE, address, read_tokens
from backend.errors import BackendError

READ = ("/api/status", "/api/session", "/api/stream", "/api/projects/{key}",
        "/api/projects/{key}/events", "/api/projects/{key}/doctor",
        "/api/projects/{key}/tasks/1/image")  # fmt: skip
ACT = tuple(f"/api/projects/{{key}}/{name}" for name in ("train", "pause", "resume", "rollback"))
OWN = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}


def log_in(client, token, headers=OWN):
    return client.post("/api/session", json={"token": token}, headers=headers)


def test_tokens_are_made_once_for_the_owners_eyes_only(tmp_path):
    first = read_tokens(tmp_path / "home")
    assert read_tokens(tmp_path / "home") == first
    assert first.full != first.read_only
    assert stat.S_IMODE((tmp_path / "home" / FILE).stat().st_mode) == 0o600
    assert [p.name for p in (tmp_path / "home").iterdir()] == [FILE]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"full": "", "read_only": ""}', "\xff"])
def test_a_file_without_usable_tokens_is_named_and_opens_nothing(tmp_path, content):
    """An empty token must never be one that fits an empty cookie."""
    (tmp_path / FILE).write_text(content, encoding="latin-1")
    with pytest.raises(BackendError, match="delete it"):
        read_tokens(tmp_path)


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "},
                {"Cookie": "doubtless_testserver=wrong"}, {"Cookie": "doubtless_testserver="}],
)  # fmt: skip
def test_nothing_is_shown_without_a_token(world, anyone, path, headers):
    answer = anyone.get(path.format(key=world.key), headers=headers)
    assert answer.status_code == 401
    assert "doubtless dashboard" in answer.json()["error"]
    # A browser would ask for a password of its own, over the page.
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("path", ACT)
def test_nothing_is_done_without_a_token(world, anyone, path):
    answer = anyone.post(path.format(key=world.key), json={}, headers=OWN)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ACT)
def test_a_shared_link_reads_and_cannot_act(trained, anyone, tokens, path):
    assert log_in(anyone, tokens.read_only).json() == {"may_act": False}
    assert anyone.get("/api/status").status_code == 200
    assert anyone.get("/api/session").json() == {"may_act": False}
    answer = anyone.post(path.format(key=trained.key), json={"version": "v2"}, headers=OWN)
    assert answer.status_code == 403
    assert "read-only" in answer.json()["error"]
    assert not trained.project.paused
    assert trained.project.requested_at is None
    assert trained.database.runs(trained.key) == []


def test_a_login_is_a_cookie_that_scripts_and_other_sites_do_not_get(anyone, tokens):
    answer = log_in(anyone, f" {tokens.full}\n")
    assert answer.json() == {"may_act": True}
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert tokens.full not in answer.text


def test_two_installations_on_one_machine_do_not_log_each_other_out(anyone, tokens):
    """Browsers send cookies to every port of a host."""
    own = OWN | {"Origin": "http://127.0.0.1:9091", "Host": "127.0.0.1:9091"}
    assert "doubtless_127_0_0_1_9091=" in log_in(anyone, tokens.full, own).headers["set-cookie"]


def test_a_wrong_token_logs_nobody_in(anyone):
    answer = log_in(anyone, "wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 7}', b"x" * 20_000])
def test_a_login_that_is_none_gets_one_sentence(anyone, body):
    answer = anyone.post("/api/session", content=body, headers=OWN)
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]


def test_logging_out_forgets_the_cookie(anyone, tokens):
    log_in(anyone, tokens.full)
    assert anyone.get("/api/status").status_code == 200
    anyone.delete("/api/session", headers=OWN)
    assert anyone.get("/api/status").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://testserver:81", "Sec-Fetch-Site": "same-site"},
        {},
    ],
)
def test_other_sites_cannot_act_with_the_owners_cookie(trained, anyone, tokens, headers):
    log_in(anyone, tokens.full)
    answer = anyone.post(f"/api/projects/{trained.key}/pause", headers=headers)
    assert answer.status_code == 403
    assert not trained.project.paused


def test_the_dashboards_own_page_acts(trained, anyone, tokens):
    log_in(anyone, tokens.full)
    assert anyone.post(f"/api/projects/{trained.key}/pause", headers=OWN).status_code == 202
    assert trained.project.paused


def test_behind_a_proxy_the_public_address_is_our_own(make_world):
    from starlette.testclient import TestClient

    from backend.web import Web

    world = make_world(3, public_url="https://labels.example.org/")
    token = read_tokens(world.settings.home_path).full
    with TestClient(Web(world.app, ticking=False).asgi()) as client:
        own = {"Origin": "https://labels.example.org"}
        assert log_in(client, token, own).status_code == 200


def test_deleting_the_file_ends_every_login(world, owner):
    assert owner.get("/api/status").status_code == 200
    (world.settings.home_path / FILE).unlink()
    assert owner.get("/api/status").status_code == 401


def test_addresses_carry_the_token_where_no_server_sees_it(world, tokens):
    assert address(world.settings) == f"http://127.0.0.1:9090/dashboard#token={tokens.full}"
    assert address(world.settings, share=True).endswith(f"#token={tokens.read_only}")


def test_no_token_or_secret_is_ever_shown(trained, owner, tokens):
    project = trained.project
    trained.database.update_project(trained.key, token="token-of-label-studio")
    for path in ("/api/status", f"/api/projects/{trained.key}",
                 f"/api/projects/{trained.key}/events", "/api/openapi.json"):  # fmt: skip
        said = owner.get(path).text
        for secret in (tokens.full, tokens.read_only, project.secret, "token-of-label-studio"):
            assert json.dumps(secret)[1:-1] not in said
