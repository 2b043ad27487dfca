"""Label Studio's tokens in their two kinds, and the header that each is sent in."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import requests

from backend.edges.labelstudio_failures import (
    TRANSIENT,
    TransientError,
    cause_of,
    json_or_none,
    unreachable,
)
from backend.errors import PlatformError, TokenError

_REFRESH_BEFORE_S = 60.0
TOKEN_FIX = (
    "Copy a token again from Account & Settings in Label Studio (personal access token or legacy "
    "token) into DOUBTLESS_LABEL_STUDIO_TOKEN or --token."
)


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
            raise TokenError(f"No token is given for {url}. {TOKEN_FIX}")
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
            raise TransientError(unreachable(self._url, exc)) from exc
        if response.status_code in TRANSIENT:
            raise TransientError(
                f"POST {self._url} answered {response.status_code}.", response.status_code
            )
        access = json_or_none(response)
        if response.status_code in (400, 401, 403):
            raise TokenError(
                f"Label Studio at {self._url} does not accept this personal access token: "
                f"{cause_of(response)}. {TOKEN_FIX}",
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
