"""Fetching what a task refers to, from a server that misbehaves in every way we know."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.labelstudio_api import LabelStudio
from backend.edges.media import Fetcher
from backend.errors import MediaError
from backend.settings import Settings

PNG = b"\x89PNG\r\n\x1a\n rest"
WebServer = Any  # the server of conftest.py
TOKEN = "legacy-token-0123456789"


def fetcher(platform: WebServer | None = None, prefix: str = "", **settings: Any) -> Fetcher:
    client = LabelStudio(platform.url + prefix, TOKEN) if platform else None
    return Fetcher(client, Settings(**{"fetch_timeout_s": 2.0, **settings}))


def local(**settings: Any) -> Fetcher:
    return fetcher(fetch_allow_hosts="127.0.0.1", **settings)


# Label Studio's own references


def test_upload_is_fetched_with_the_token(web: WebServer) -> None:
    web.serve("/data/upload/4/a%20%C3%BC.png", PNG)
    for reference in ("/data/upload/4/a ü.png", "/data/upload/4/a%20%C3%BC.png"):
        assert fetcher(web).fetch(reference, 1) == PNG
    assert web.headers_of("/data/upload/4/a%20%C3%BC.png")[0]["Authorization"] == f"Token {TOKEN}"


def test_upload_behind_nginx_is_fetched_by_the_second_route(web: WebServer) -> None:
    web.serve("/data/upload/4/a.png", status=500)
    web.serve("/storage-data/uploaded/", PNG)
    assert fetcher(web).fetch("/data/upload/4/a.png") == PNG
    assert web.asked[-1][1] == "/storage-data/uploaded/?filepath=upload/4/a.png"


def test_missing_upload_is_final_not_transient(web: WebServer) -> None:
    web.serve("/data/upload/4/a.png", status=500)
    web.serve("/storage-data/uploaded/", status=403)
    with pytest.raises(MediaError, match="no such upload") as caught:
        fetcher(web).fetch("/data/upload/4/a.png", 7)
    assert not caught.value.transient
    assert "'/data/upload/4/a.png' of task 7" in str(caught.value)


def test_absolute_address_of_label_studio_is_treated_as_its_own(web: WebServer) -> None:
    web.serve("/ls/data/upload/4/a.png", status=500)
    web.serve("/ls/storage-data/uploaded/", PNG)
    assert fetcher(web, "/ls").fetch(web.url + "/ls/data/upload/4/a.png") == PNG


def test_path_prefix_of_label_studio_is_put_in_front_once(web: WebServer) -> None:
    web.serve("/ls/data/upload/4/a.png", PNG)
    for reference in ("/data/upload/4/a.png", "/ls/data/upload/4/a.png"):
        assert fetcher(web, "/ls").fetch(reference) == PNG
    assert all("Authorization" in headers for _, _, headers in web.asked)


def test_cloud_storage_goes_through_the_task_and_follows_the_signature_without_the_token(
    web: WebServer, make_server: Callable[[], WebServer]
) -> None:
    bucket = make_server()
    bucket.serve("/bucket/a.png", PNG)
    web.serve(
        "/tasks/5/resolve/", status=303, headers={"Location": f"{bucket.url}/bucket/a.png?sig=1"}
    )
    host = bucket.url.removeprefix("http://")
    got = fetcher(web, fetch_allow_hosts=host).fetch("s3://bucket/ä b.png", 5)
    assert got == PNG
    key = base64.urlsafe_b64encode("s3://bucket/ä b.png".encode()).decode()
    assert web.asked[0][1] == f"/tasks/5/resolve/?fileuri={key}"
    assert "Authorization" in web.asked[0][2]
    assert "Authorization" not in bucket.asked[0][2]


def test_storage_that_does_not_cover_a_file_says_where_to_look(web: WebServer) -> None:
    with pytest.raises(MediaError, match="Cloud Storage in Label Studio"):
        fetcher(web).fetch("gs://bucket/a.png", 5)
    with pytest.raises(MediaError, match="through a task"):
        fetcher(web).fetch("gs://bucket/a.png")
    with pytest.raises(MediaError, match="none is connected"):
        fetcher().fetch("gs://bucket/a.png", 5)


# Who gets the token


@pytest.mark.parametrize("path", ["/api/projects/", "/user/logout", "/data/../api/x", "/"])
def test_token_goes_to_media_routes_alone(web: WebServer, path: str) -> None:
    web.serve(path, PNG)
    assert fetcher(web).fetch(web.url + path) == PNG
    assert all("Authorization" not in headers for _, _, headers in web.asked)


def test_token_never_goes_to_another_port_or_host(
    web: WebServer, make_server: Callable[[], WebServer]
) -> None:
    other = make_server()
    other.serve("/data/upload/1/a.png", PNG)
    web.serve("/data/upload/1/a.png", status=302, headers={"Location": f"{other.url}/data/x.png"})
    other.serve("/data/x.png", PNG)
    get = fetcher(web, fetch_allow_hosts="127.0.0.1,localhost")
    get.fetch(f"{other.url}/data/upload/1/a.png")
    get.fetch("/data/upload/1/a.png")
    get.fetch(other.url.replace("127.0.0.1", "localhost") + "/data/x.png")
    assert len(other.asked) == 3
    assert all("Authorization" not in headers for _, _, headers in other.asked)


# What is refused


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://2130706433/a.png",
        "http://0x7f.1/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://[64:ff9b::a00:1]/a.png",
        "http://[2002:7f00:1::]/a.png",
        "http://10.1.2.3/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://100.100.100.200/latest",
        "http://168.63.129.16/metadata",
        "http://0.0.0.0/a.png",
        "http://224.0.0.1/a.png",
        "//127.0.0.1/a.png",
    ],
)
def test_private_addresses_are_refused_with_the_fix(url: str) -> None:
    with pytest.raises(MediaError, match="to DOUBTLESS_FETCH_ALLOW_HOSTS") as caught:
        fetcher().fetch(url)
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("file:///etc/passwd", "'file:' are not supported"),
        ("ftp://host/a.png", "'ftp:' are not supported"),
        ("C:\\images\\a.png", "'c:' are not supported"),
        ("gopher://127.0.0.1:70/_x", "not supported"),
        ("http://user:pass@example.org/a.png", "user name or password"),
        ("http:///a.png", "names no host"),
        ("http://host:99999/a.png", "no valid address"),
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("a.png", "none is connected"),
    ],
)
def test_other_kinds_are_refused(reference: str, says: str) -> None:
    with pytest.raises(MediaError, match=says) as caught:
        fetcher().fetch(reference)
    assert "pass@" not in str(caught.value)


def test_redirect_to_a_private_address_is_refused(web: WebServer) -> None:
    web.serve("/a.png", status=302, headers={"Location": "http://169.254.169.254/latest"})
    with pytest.raises(MediaError, match="private or reserved"):
        local().fetch(web.url + "/a.png")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "data:image/png,abc", "s3://b/a"])
def test_redirect_to_another_scheme_is_refused(web: WebServer, target: str) -> None:
    web.serve("/a.png", status=302, headers={"Location": target})
    with pytest.raises(MediaError, match="are not fetched"):
        local().fetch(web.url + "/a.png")


def test_redirects_end(web: WebServer) -> None:
    web.serve("/a.png", status=302, headers={"Location": "/a.png"})
    with pytest.raises(MediaError, match="redirected more than 5 times"):
        local().fetch(web.url + "/a.png")


def test_relative_redirect_with_spaces_is_followed(web: WebServer) -> None:
    web.serve("/a.png", status=301, headers={"Location": "b c.png"})
    web.serve("/b%20c.png", PNG)
    assert local().fetch(web.url + "/a.png") == PNG


def test_connection_goes_to_the_address_that_was_checked(web: WebServer) -> None:
    """A name that first resolves to a public address and then to ours gets no second lookup."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    get = fetcher(fetch_allow_hosts="127.0.0.1/32")
    get._http._resolve = lambda host, port: next(answers)
    web.serve("/a.png", PNG)
    port = web.url.rpartition(":")[2]
    assert get.fetch(f"http://rebind.example:{port}/a.png") == PNG
    assert web.asked[0][2]["Host"] == f"rebind.example:{port}"
    with pytest.raises(MediaError, match=r"10\.0\.0\.1"):
        get.fetch(f"http://other.example:{port}/a.png")


# Sizes, times, broken answers


def test_size_is_capped_by_the_header_and_while_streaming(web: WebServer) -> None:
    web.serve("/known.png", b"x" * 1_200_000)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    web.routes["/endless.png"] = endless
    web.serve("/bomb.png", gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"})
    get = local(max_image_mb=1)
    for path in ("/known.png", "/endless.png", "/bomb.png"):
        with pytest.raises(MediaError, match="over the limit of 1 MB") as caught:
            get.fetch(web.url + path)
        assert not caught.value.transient


def test_slow_body_and_slow_headers_end_at_the_deadline(web: WebServer) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    def drip_headers(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(40):
            handler.wfile.write(b"H")
            time.sleep(0.05)

    web.routes["/drip.png"], web.routes["/headers.png"] = drip, drip_headers
    get = local(fetch_timeout_s=0.4)
    for path in ("/drip.png", "/headers.png"):
        began = time.monotonic()
        with pytest.raises(MediaError, match=r"did not deliver within 0\.4 s") as caught:
            get.fetch(web.url + path)
        assert caught.value.transient
        assert time.monotonic() - began < 1.5


def test_body_that_breaks_off_is_no_image(web: WebServer) -> None:
    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(PNG)
        handler.close_connection = True

    web.routes["/a.png"] = short
    with pytest.raises(MediaError, match="broke off") as caught:
        local().fetch(web.url + "/a.png")
    assert caught.value.transient


@pytest.mark.parametrize(
    ("status", "transient"), [(401, True), (403, True), (404, False), (410, False), (503, True)]
)
def test_only_passing_statuses_are_transient(web: WebServer, status: int, transient: bool) -> None:
    web.serve("/a.png", b"no", status=status)
    with pytest.raises(MediaError, match=str(status)) as caught:
        local().fetch(web.url + "/a.png")
    assert caught.value.transient is transient


def test_empty_files_and_web_pages_are_no_images(web: WebServer) -> None:
    web.serve("/empty.png")
    web.serve("/login", b"<html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(MediaError, match="file is empty"):
        local().fetch(web.url + "/empty.png")
    with pytest.raises(MediaError, match="web page"):
        local().fetch(web.url + "/login")


def test_host_that_is_down_or_unknown_is_transient(web: WebServer) -> None:
    for url in ("http://127.0.0.1:1/a.png", "http://no-such-host.invalid/a.png"):
        with pytest.raises(MediaError) as caught:
            local().fetch(url)
        assert caught.value.transient


def test_connection_is_kept_and_made_again_when_the_server_closed_it(web: WebServer) -> None:
    ports: list[int] = []

    def route(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(PNG)))
        handler.end_headers()
        handler.wfile.write(PNG)
        handler.close_connection = len(ports) == 2  # without having said so

    web.routes["/a.png"] = route
    get = local()
    for _ in range(4):
        assert get.fetch(web.url + "/a.png") == PNG
    assert ports[0] == ports[1] != ports[2] == ports[3]


def test_answer_that_ends_with_the_connection_is_read_to_its_end(web: WebServer) -> None:
    """So Label Studio's own server answers for uploads."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(PNG * 10_000)

    web.routes["/a.png"] = route
    get = local()
    for _ in range(2):
        assert get.fetch(web.url + "/a.png") == PNG * 10_000


def test_gzip_is_undone_and_query_strings_and_unicode_survive(web: WebServer) -> None:
    web.serve("/%C3%A4%20b.png", gzip.compress(PNG), headers={"Content-Encoding": "gzip"})
    assert local().fetch(web.url + "/ä b.png?x=1&y=ü 2%zz#part") == PNG
    assert web.asked[0][1] == "/%C3%A4%20b.png?x=1&y=%C3%BC%202%25zz"


# data:


@pytest.mark.parametrize(
    "reference",
    [
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "DATA:image/png;BASE64," + base64.b64encode(PNG).decode().rstrip("="),
        "data:;base64," + quote(base64.b64encode(PNG).decode()),
        "data:image/png," + quote(PNG),
        "data:image/png;base64,\n" + base64.encodebytes(PNG).decode(),
    ],
)
def test_data_addresses_are_decoded(reference: str) -> None:
    assert fetcher().fetch(reference) == PNG


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("data:image/png;base64,@@@@", "base64 is broken"),
        ("data:image/png;base64", "without a comma"),
        ("data:image/png,", "without data"),
        ("data:image/png;base64," + "A" * 2_000_000, "over the limit"),
        ("data:image/png;base64," + "A" * 4_000_000, "over the limit"),
        ("data:," + "A" * 1_000_001, "over the limit"),
    ],
)
def test_broken_data_addresses_are_refused_shortly(reference: str, says: str) -> None:
    with pytest.raises(MediaError, match=says) as caught:
        fetcher(max_image_mb=1).fetch(reference, 3)
    assert len(str(caught.value)) < 300


# Local files


def test_local_file_is_read_from_the_mounted_root(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "ü.png").write_bytes(PNG)
    get = fetcher(local_files_root=str(tmp_path))
    for name in ("a b/ü.png", quote("a b/ü.png"), "/a b/ü.png"):
        assert get.fetch(f"/data/local-files/?d={name}") == PNG


def test_local_file_cannot_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(root / "pipe.png")
    get = fetcher(local_files_root=str(root))
    for name in ("../secret.png", "link.png", "%2e%2e/secret.png", "a/../../secret.png"):
        with pytest.raises(MediaError, match="leads out of the folder"):
            get.fetch(f"/data/local-files/?d={name}")
    for name, says in (("pipe.png", "regular"), ("", "names no file"), ("x\0.png", "be read")):
        with pytest.raises(MediaError, match=says):
            get.fetch(f"/data/local-files/?d={name}")
    with pytest.raises(MediaError, match="no file none"):
        get.fetch("/data/local-files/?d=none.png")


def test_local_file_that_is_not_mounted_here_is_asked_of_label_studio(
    web: WebServer, tmp_path: Path
) -> None:
    web.serve("/data/local-files/", PNG)
    get = fetcher(web, local_files_root=str(tmp_path))
    assert get.fetch("/data/local-files/?d=img/a b.png") == PNG
    assert web.asked[0][1] == "/data/local-files/?d=img/a%20b.png"
    assert "Authorization" in web.asked[0][2]


# Many at once


def test_many_are_fetched_in_parallel_and_one_failure_costs_only_itself(web: WebServer) -> None:
    web.serve("/a.png", PNG)
    items = [(i, web.url + ("/none.png" if i == 3 else "/a.png")) for i in range(20)]
    got = dict(local(fetch_parallel=4).fetch_many(items))
    assert set(got) == set(range(20))
    assert isinstance(got[3], MediaError)
    assert all(got[i] == PNG for i in range(20) if i != 3)


def test_many_reads_no_further_ahead_than_it_fetches(web: WebServer) -> None:
    web.serve("/a.png", PNG)
    taken: list[int] = []

    def items() -> Any:
        for i in range(100):
            taken.append(i)
            yield i, web.url + "/a.png"

    stream = local(fetch_parallel=3).fetch_many(items())
    next(stream)
    assert len(taken) <= 6
    stream.close()  # type: ignore[attr-defined]


@given(st.text(max_size=80))
def test_any_reference_is_bytes_or_a_media_error(text: str) -> None:
    get = fetcher()
    get._http._resolve = lambda host, port: ["10.0.0.1"]
    with contextlib.suppress(MediaError):
        assert get.fetch(text)
