"""GET for addresses that others wrote: only public hosts, or hosts allowed by name.

Whoever can import tasks chooses what we fetch. So the name is resolved once, private, loopback,
link-local, reserved and metadata addresses are refused, and the connection goes to the very
address that was checked (a second lookup could answer differently). Every redirect is checked
again. One deadline covers the whole exchange, down to a server that sends a byte a second.
Proxies of the environment are not used: they would look up the name themselves.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import certifi

from backend.edges.safe_addresses import (
    AllowList,
    Origin,
    Resolver,
    allowed_addresses,
    resolve,
    unavailable,
)
from backend.errors import MediaError

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 30.0
_MAX_IDLE = 64
_CHUNK = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

URL_SAFE = "%/:@!$&'()*+,;=~?[]-._"  # everything else in an address is percent-encoded


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    own = os.environ.get("REQUESTS_CA_BUNDLE", "")
    if os.path.isfile(own):
        context.load_verify_locations(own)
    return context


class _Stream(io.RawIOBase):
    """A socket to read from, each time waiting no longer than the deadline allows."""

    def __init__(self, sock: socket.socket, wire: _Wire) -> None:
        super().__init__()
        self._sock, self._wire = sock, wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(min(READ_TIMEOUT_S, self._wire.left()))
        return self._sock.recv_into(buffer)


class _Wire:
    """What `http.client` needs of a socket, with one deadline for everything that passes."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self.deadline = deadline

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline passed")
        return left

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(min(READ_TIMEOUT_S, self.left()))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Stream(self._sock, self), _CHUNK)

    def close(self) -> None:
        """Nothing: `http.client` calls this while the body of a last answer is still to come."""

    def hang_up(self) -> None:
        self._sock.close()


@dataclass
class _Link:
    connection: http.client.HTTPConnection
    wire: _Wire
    idle_since: float = 0.0
    used: bool = False
    kept: bool = False

    def close(self) -> None:
        """Hang up."""
        self.connection.close()
        self.wire.hang_up()

    def done(self) -> None:
        """Hang up, unless the link was kept for the next request."""
        if not self.kept:
            self.close()


def _close_all(idle: dict[Origin, list[_Link]]) -> None:
    for links in idle.values():
        while links:
            links.pop().close()
    idle.clear()


@dataclass(frozen=True)
class Answer:
    """The final answer, after redirects."""

    status: int
    body: bytes
    content_type: str


class SafeHttp:
    """GET with the guard above. Safe to share between threads; idle connections are kept 30 s.

    Args:
        allow: hosts that may be on private addresses.
        max_bytes: largest body, before and after decompression.
        timeout_s: seconds for everything: connecting, redirects and the body.
        resolver: instead of the system's name lookup.
    """

    def __init__(
        self,
        allow: AllowList,
        *,
        max_bytes: int,
        timeout_s: float,
        resolver: Resolver = resolve,
    ) -> None:
        self._allow = allow
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolver
        self._idle: dict[Origin, list[_Link]] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def get(self, url: str, headers_for: Callable[[str], Mapping[str, str]]) -> Answer:
        """Fetch `url`, following redirects.

        Args:
            url: http or https.
            headers_for: further headers for one hop, such as a token for the host it belongs to.

        Raises:
            MediaError: no answer or not in time (``transient``), or refused. The message reads on
                after "… cannot be fetched: ".
        """
        deadline = time.monotonic() + self._timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            origin = Origin.of(url)
            answer, location = self._hop(origin, url, headers_for(url), deadline)
            if location is None:
                return answer
            url = urljoin(url, quote(location.encode("latin-1", "replace"), safe=URL_SAFE))
        raise MediaError(f"it is redirected more than {MAX_REDIRECTS} times")

    def _hop(
        self, origin: Origin, url: str, headers: Mapping[str, str], deadline: float
    ) -> tuple[Answer, str | None]:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for fresh in (False, True):
            link = (None if fresh else self._reuse(origin)) or self._open(origin, deadline)
            try:
                link.wire.deadline = deadline
                link.connection.request("GET", target, headers={**_HEADERS, **headers})
                response = link.connection.getresponse()
                return self._read(origin, link, response)
            except TimeoutError as exc:
                raise self._late(origin) from exc
            except (ConnectionError, ssl.SSLEOFError) as exc:
                if fresh or not link.used:
                    raise unavailable(f"{origin} closed the connection") from exc
                # else an idle connection, closed by the other side meanwhile: once more
            except (OSError, ValueError, http.client.HTTPException, zlib.error) as exc:
                raise unavailable(f"{origin} gave no valid answer ({type(exc).__name__})") from exc
            finally:
                link.done()
        raise AssertionError("unreachable: the second attempt answers or raises")

    def _read(
        self, origin: Origin, link: _Link, response: http.client.HTTPResponse
    ) -> tuple[Answer, str | None]:
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return Answer(response.status, b"", ""), location
        body = self._body(response)
        response.close()  # `read1` leaves it open at the end of a body of known length
        if not response.will_close:
            self._keep(origin, link)
        return Answer(response.status, body, response.getheader("Content-Type") or ""), None

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        expected = response.length
        if expected is not None and expected > self._max_bytes:
            raise self._too_large(expected)
        encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        unzip = None
        if encoding in ("gzip", "x-gzip", "deflate"):
            unzip = zlib.decompressobj(wbits=47 if "gzip" in encoding else 15)
        elif encoding != "identity":
            raise MediaError(f"the answer is compressed with '{encoding}', which was not asked for")
        received, body = 0, bytearray()
        while chunk := response.read1(_CHUNK):
            received += len(chunk)
            room = self._max_bytes - len(body) + 1
            body += unzip.decompress(chunk, room) if unzip is not None else chunk
            if received > self._max_bytes or len(body) > self._max_bytes:
                raise self._too_large(None)
        if expected is not None and received < expected:
            raise unavailable(f"the answer broke off after {received} of {expected} bytes")
        return bytes(body)

    def _open(self, origin: Origin, deadline: float) -> _Link:
        wire = _Wire(self._connect(origin, deadline), deadline)
        connection = http.client.HTTPConnection(origin.host, origin.port)
        if origin.scheme == "https":
            # Only the Host header looks at this: the port is left out when it is the default.
            connection.default_port = 443
        connection.auto_open = 0
        connection.sock = wire
        return _Link(connection, wire)

    def _reuse(self, origin: Origin) -> _Link | None:
        with self._lock:
            links = self._idle.get(origin, [])
            while links:
                link = links.pop()
                if time.monotonic() - link.idle_since < _KEEP_ALIVE_S:
                    link.used, link.kept = True, False
                    return link
                link.close()
        return None

    def _keep(self, origin: Origin, link: _Link) -> None:
        link.idle_since, link.kept = time.monotonic(), True
        with self._lock:
            if sum(map(len, self._idle.values())) >= _MAX_IDLE:
                _close_all(self._idle)
            self._idle.setdefault(origin, []).append(link)

    def _connect(self, origin: Origin, deadline: float) -> socket.socket:
        failure: Exception | None = None
        for address in allowed_addresses(origin, self._allow, self._resolve):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(origin)
            try:
                sock = socket.create_connection(
                    (address, origin.port), timeout=min(CONNECT_TIMEOUT_S, left)
                )
            except OSError as exc:
                failure = exc
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "http":
                return sock
            try:
                return _tls().wrap_socket(sock, server_hostname=origin.host)
            except (OSError, ValueError) as exc:
                sock.close()
                reason = getattr(exc, "verify_message", "") or type(exc).__name__
                raise unavailable(f"no secure connection to {origin} ({reason})") from exc
        reason = "timed out" if isinstance(failure, TimeoutError) else str(failure)
        raise unavailable(f"{origin} cannot be reached ({reason})") from failure

    def _late(self, origin: Origin) -> MediaError:
        return unavailable(f"{origin} did not deliver within {self._timeout_s:g} s")

    def _too_large(self, size: int | None) -> MediaError:
        known = "it is" if size is None else f"it has {size / 1e6:.1f} MB,"
        return MediaError(
            f"{known} over the limit of {self._max_bytes / 1e6:g} MB; "
            "raise DOUBTLESS_MAX_IMAGE_MB if it is meant to be so large"
        )


def is_transient(status: int) -> bool:
    """Whether a status may be another one later."""
    return status in _TRANSIENT


_HEADERS = {"User-Agent": "doubtless", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
