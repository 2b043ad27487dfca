"""HTTP to one Label Studio: sessions, retries, and errors that say the fix."""

from __future__ import annotations

import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.auth import AuthBase
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from backend.edges.labelstudio_failures import (
    TRANSIENT,
    TransientError,
    cause_of,
    json_or_none,
    unreachable,
)
from backend.edges.labelstudio_token import TOKEN_FIX, Credentials
from backend.errors import PlatformError, TokenError

ATTEMPTS = 4
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})

_LEGACY_OFF_FIX = (
    "Legacy tokens are switched off in this organization. Use a personal access token (Account & "
    "Settings > Personal Access Token), or switch legacy tokens on: Organization > Access Token "
    "Settings, or start Label Studio with LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true on first run."
)
_FIXES = {
    403: "The token's user may not do this; use the token of an owner or administrator.",
    404: "Check the id, that the token's user belongs to that organization, and that this is the "
    "address of Label Studio.",
    413: "The request is larger than Label Studio or the proxy in front of it accepts.",
    500: "The reason is in Label Studio's own log.",
}


class _Auth(AuthBase):
    """Sets the header itself: `requests` would let a .netrc entry replace a plain header."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._credentials.header()
        return request


class Transport:
    """Requests to one Label Studio, each with a timeout, retries and a readable failure.

    Args:
        url: address of Label Studio, with its path prefix if it has one.
        token: personal access token or legacy token.
        timeout_s: seconds to wait for an answer; connecting may take 10.
        backoff_s: first pause between attempts; it doubles up to 5 s.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 30.0, backoff_s: float = 0.3
    ) -> None:
        self.url = url.strip().rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise PlatformError(
                f"'{url}' is not an address of Label Studio; give it as http://host:8080."
            )
        self.timeout_s = timeout_s
        self.credentials = Credentials(self.url, token)
        self._backoff_s = backoff_s
        # Label Studio's own server sends headers and body as two small packets: on a kept
        # connection the second waits for a delayed acknowledgement, 62 ms instead of 20. We close
        # it too: the server does so without saying it, and a request could meet a dying connection.
        self._fresh = self.url.startswith("http:")
        self._local = threading.local()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        json: Any = None,
        files: Any = None,
        timeout_s: float | None = None,
        ok: tuple[int, ...] = (),
    ) -> Any:
        """The parsed JSON of the answer (``None`` for an empty one).

        GET, PATCH, PUT and DELETE are tried again when the connection fails or the answer is 429,
        502, 503, 504 or SQLite's "database is locked"; POST only when it was never sent.

        Args:
            method: the HTTP method.
            path: from the root of Label Studio, beginning with a slash.
            params: of the query string.
            json: the body.
            files: a multipart body instead, as `requests` takes it.
            timeout_s: instead of the transport's own.
            ok: further statuses that are no failure; the answer is then ``None``.

        Raises:
            TokenError: the token is refused.
            PlatformError: any other refusal, or no answer; ``code`` is the HTTP status.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda exc: isinstance(exc, TransientError)),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=self._backoff_s, max=5.0)
            + wait_random(0, self._backoff_s),
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                return self._once(method, path, params, json, files, timeout_s, ok)
        raise AssertionError("unreachable: the last attempt raises")

    def _once(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | None,
        body: Any,
        files: Any,
        timeout_s: float | None,
        ok: tuple[int, ...],
    ) -> Any:
        url = self.url + path
        read_s = timeout_s or self.timeout_s
        for may_renew in (True, False):
            session = self._session()
            try:
                response = session.request(
                    method,
                    url,
                    params=params,
                    json=body,
                    files=files,
                    timeout=(min(read_s, 10.0), read_s),
                    allow_redirects=False,
                )
            except requests.RequestException as exc:
                kind = TransientError if _may_repeat(method, exc) else PlatformError
                raise kind(unreachable(url, exc, read_s)) from exc
            finally:
                if self._fresh:
                    session.close()
            if response.status_code == 401 and may_renew and self.credentials.expire():
                continue
            break
        if response.status_code in ok:
            return None
        if response.status_code >= 300:
            raise self._failure(method, url, response)
        if response.status_code == 204 or not response.content:
            return None
        parsed = json_or_none(response)
        if parsed is None and response.content.strip() != b"null":
            raise PlatformError(
                f"{method} {url} answered {response.headers.get('Content-Type', 'no type')} "
                "instead of JSON. Check that this is the address of Label Studio.",
                response.status_code,
            )
        return parsed

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = _Auth(self.credentials)
            # Label Studio opens a session for every token; sending its cookie would bring CSRF in.
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.headers["User-Agent"] = "doubtless"
            if self._fresh:
                session.headers["Connection"] = "close"
        return session

    def _failure(self, method: str, url: str, response: requests.Response) -> PlatformError:
        code, cause = response.status_code, cause_of(response)
        said = f"{method} {url} answered {code}: {cause}."
        if code == 401:
            fix = _LEGACY_OFF_FIX if "legacy token" in cause.lower() else TOKEN_FIX
            return TokenError(f"Label Studio does not accept the token. {said} {fix}", code)
        if 300 <= code < 400:
            target = response.headers.get("Location", "")
            return PlatformError(
                f"{method} {url} is redirected to {target}; give that address of Label Studio.",
                code,
            )
        locked = code == 500 and "database is locked" in cause
        if (code in TRANSIENT or locked) and method in _IDEMPOTENT:
            return TransientError(said, code)
        return PlatformError(f"{said} {_FIXES.get(code, '')}".rstrip(), code)


def _may_repeat(method: str, exc: requests.RequestException) -> bool:
    if isinstance(exc, requests.exceptions.InvalidJSONError | requests.exceptions.SSLError):
        return False
    if not isinstance(exc, requests.ConnectionError | requests.Timeout):
        return method in _IDEMPOTENT and isinstance(exc, requests.exceptions.ChunkedEncodingError)
    never_sent = isinstance(exc, requests.ConnectTimeout) or "NewConnectionError" in repr(exc)
    if isinstance(exc, requests.ReadTimeout):
        return method == "GET"
    return method in _IDEMPOTENT or never_sent
