"""HTTP to one Label Studio: the token in its two kinds, retries, and errors that say the fix."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
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

from backend.errors import PlatformError, TokenError

ATTEMPTS = 4
_REFRESH_BEFORE_S = 60.0
_TRANSIENT = frozenset({429, 502, 503, 504})
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})

_LEGACY_OFF_FIX = (
    "Legacy tokens are switched off in this organization. Use a personal access token (Account & "
    "Settings > Personal Access Token), or switch legacy tokens on: Organization > Access Token "
    "Settings, or start Label Studio with LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true on first run."
)
_TOKEN_FIX = (
    "Copy a token again from Account & Settings in Label Studio (personal access token or legacy "
    "token) into DOUBTLESS_LABEL_STUDIO_TOKEN or --token."
)
_FIXES = {
    403: "The token's user may not do this; use the token of an owner or administrator.",
    404: "Check the id, and that the token's user belongs to that organization.",
    413: "The request is larger than Label Studio or the proxy in front of it accepts.",
    500: "The reason is in Label Studio's own log.",
}


def jwt_claims(token: str) -> dict[str, Any] | None:
    """The claims inside a JSON Web Token, unverified; ``None`` when `token` is of another kind.

    Example:
        >>> jwt_claims("0123456789abcdef") is None
        True
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = json.loads(raw)
    except (binascii.Error, ValueError):
        return None
    return claims if isinstance(claims, dict) else None


class _TransientError(PlatformError):
    """A failure that may pass by itself; a `PlatformError` to whoever sees it in the end."""


class Credentials:
    """Turns a token into an ``Authorization`` header.

    A legacy token goes out as it is. A personal access token is a refresh token that Label Studio
    answers with 401 when used directly: it is exchanged for an access token of 300 s (measured on
    1.23.2), which is renewed a minute before its end. Safe to use from several threads.
    """

    def __init__(
        self, url: str, token: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.token = token.strip()
        if not self.token:
            raise TokenError(f"No token is given for {url}. {_TOKEN_FIX}")
        claims = jwt_claims(self.token)
        self.kind = "legacy" if claims is None else str(claims.get("token_type", "refresh"))
        self._url = f"{url}/api/token/refresh/"
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._renew_at = 0.0

    def header(self, *, timeout_s: float = 30.0) -> str:
        """The value of ``Authorization`` to send now."""
        if self.kind == "legacy":
            return f"Token {self.token}"
        if self.kind == "access":
            return f"Bearer {self.token}"
        with self._lock:
            if not self._access or self._clock() >= self._renew_at:
                self._exchange(timeout_s)
            return f"Bearer {self._access}"

    def expire(self) -> bool:
        """Forget the access token, so that the next call exchanges again; says if there was one."""
        with self._lock:
            had_access, self._access = bool(self._access), ""
        return had_access

    def _exchange(self, timeout_s: float) -> None:
        try:
            response = requests.post(
                self._url,
                json={"refresh": self.token},
                timeout=(min(timeout_s, 10.0), timeout_s),
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            raise _TransientError(unreachable(self._url, exc)) from exc
        if response.status_code in _TRANSIENT:
            raise _TransientError(
                f"POST {self._url} answered {response.status_code}.", response.status_code
            )
        access = _json_or_none(response)
        if response.status_code in (400, 401, 403):
            raise TokenError(
                f"Label Studio at {self._url} does not accept this personal access token: "
                f"{cause_of(response)}. {_TOKEN_FIX}",
                response.status_code,
            )
        if response.status_code != 200 or not isinstance(access, dict) or "access" not in access:
            raise PlatformError(
                f"POST {self._url} answered {response.status_code} without an access token. Check "
                "that this is the address of Label Studio 1.18 or later.",
                response.status_code,
            )
        self._access = str(access["access"])
        claims = jwt_claims(self._access) or {}
        lifetime = float(claims.get("exp", 300)) - float(claims.get("iat", 0))
        if not 0 < lifetime <= 86_400:
            lifetime = 300.0
        self._renew_at = self._clock() + lifetime - min(_REFRESH_BEFORE_S, lifetime / 2)


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
            retry=retry_if_exception(lambda exc: isinstance(exc, _TransientError)),
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
                kind = _TransientError if _may_repeat(method, exc) else PlatformError
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
        parsed = _json_or_none(response)
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
            fix = _LEGACY_OFF_FIX if "legacy token" in cause.lower() else _TOKEN_FIX
            return TokenError(f"Label Studio does not accept the token. {said} {fix}", code)
        if 300 <= code < 400:
            target = response.headers.get("Location", "")
            return PlatformError(
                f"{method} {url} is redirected to {target}; give that address of Label Studio.",
                code,
            )
        locked = code == 500 and "database is locked" in cause
        if (code in _TRANSIENT or locked) and method in _IDEMPOTENT:
            return _TransientError(said, code)
        return PlatformError(f"{said} {_FIXES.get(code, '')}".rstrip(), code)


def cause_of(response: requests.Response) -> str:
    """What Label Studio says is wrong, in one line of at most 300 characters."""
    body = _json_or_none(response)
    if isinstance(body, dict):
        parts: list[str] = []
        for key in ("detail", "validation_errors", "non_field_errors"):
            value = body.get(key)
            if value:
                parts.append(value if isinstance(value, str) else json.dumps(value))
        text = "; ".join(parts) or json.dumps(body)
    elif body is not None:
        text = json.dumps(body)
    elif "html" in response.headers.get("Content-Type", ""):
        text = "an HTML page"
    else:
        text = response.text
    return " ".join(text.split())[:300].rstrip(".") or "nothing"


def unreachable(url: str, exc: Exception, timeout_s: float | None = None) -> str:
    """One sentence on a request that got no answer, with the fix."""
    if isinstance(exc, requests.ReadTimeout):
        return f"{url} gave no answer within {timeout_s or 0:g} s. Is Label Studio overloaded?"
    if isinstance(exc, requests.exceptions.SSLError):
        return f"{url} has a certificate that cannot be verified ({_reason(exc)})."
    if isinstance(exc, requests.exceptions.InvalidJSONError):
        return f"{url}: the request cannot be written as JSON ({exc}); a number is NaN or infinite."
    return f"{url} cannot be reached ({_reason(exc)}). Check that Label Studio runs there."


def _reason(exc: BaseException) -> str:
    text = str(exc)
    for known in ("Connection refused", "Name or service not known", "timed out", "Network is"):
        if known in text:
            return known.removesuffix(" is").lower()
    return type(exc).__name__


def _may_repeat(method: str, exc: requests.RequestException) -> bool:
    if isinstance(exc, requests.exceptions.InvalidJSONError | requests.exceptions.SSLError):
        return False
    if not isinstance(exc, requests.ConnectionError | requests.Timeout):
        return method in _IDEMPOTENT and isinstance(exc, requests.exceptions.ChunkedEncodingError)
    never_sent = isinstance(exc, requests.ConnectTimeout) or "NewConnectionError" in repr(exc)
    if isinstance(exc, requests.ReadTimeout):
        return method == "GET"
    return method in _IDEMPOTENT or never_sent


def _json_or_none(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
