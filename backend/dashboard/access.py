"""Who may look, and who may act: two random tokens in the home folder, a cookie, one origin."""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from backend.errors import BackendError, ForbiddenError, UnauthorizedError
from backend.settings import Settings

FILE = "dashboard.json"
COOKIE_DAYS = 30


class Level(IntEnum):
    """What a request may do; each level may do what is below it."""

    NOTHING = 0
    READ = 1
    ACT = 2


@dataclass(frozen=True)
class Tokens:
    """Token of the owner, and the one in links that are shared."""

    full: str
    read_only: str

    def level(self, token: str) -> Level:
        """What a token opens; both are compared whichever fits, so that the time tells nothing."""
        given = token.encode()
        is_full = hmac.compare_digest(given, self.full.encode())
        is_read_only = hmac.compare_digest(given, self.read_only.encode())
        return Level.ACT if is_full else Level.READ if is_read_only else Level.NOTHING


def read_tokens(home: Path) -> Tokens:
    """The tokens of an installation, made when there are none yet.

    Whoever deletes the file makes all links and logins invalid at once.

    Raises:
        BackendError: the file can neither be read nor made.
    """
    path = home / FILE
    try:
        if not path.exists():
            _make(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        return Tokens(full=_token(found, "full"), read_only=_token(found, "read_only"))
    except OSError as exc:
        raise BackendError(
            f"{path} with the dashboard's tokens cannot be used: {exc.strerror or exc}; it has to "
            "be a file that the owner of this process may read and write"
        ) from exc
    except ValueError as exc:
        raise BackendError(
            f"{path} does not hold the dashboard's two tokens ({exc}); delete it, and new ones "
            "are made"
        ) from exc


def _token(found: object, name: str) -> str:
    token = found.get(name) if isinstance(found, dict) else None
    if not isinstance(token, str) or len(token) < 20:
        raise ValueError(f"no '{name}' of 20 characters or more")
    return token


def _make(path: Path) -> None:
    made = Tokens(full=secrets.token_urlsafe(32), read_only=secrets.token_urlsafe(32))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(made), file)
    try:
        # Not `replace`: of two processes that start at once both have to use the first one's.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def address(settings: Settings, *, share: bool = False) -> str:
    """The page with its token, behind a # because browsers send that part to nobody."""
    tokens = read_tokens(settings.home_path)
    token = tokens.read_only if share else tokens.full
    # What listens on every address has none of them; a browser on this machine finds this one.
    everywhere = not settings.public_url and settings.host in ("0.0.0.0", "::")
    base = f"http://127.0.0.1:{settings.port}" if everywhere else settings.reachable_url
    return f"{base}/dashboard#token={token}"


class Access:
    """Decides what a request may do, by ``Authorization: Bearer`` or by the cookie of a login."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def level(self, request: Request) -> Level:
        """What the request may do."""
        token = _bearer(request) or request.cookies.get(_cookie(request), "")
        return self._tokens().level(token) if token else Level.NOTHING

    def require(self, request: Request, needed: Level) -> None:
        """Let the request pass, or say why not.

        Raises:
            UnauthorizedError: no token, or a wrong one.
            ForbiddenError: a read-only token, or another site's page, wants to change something.
        """
        if needed is Level.NOTHING:
            return
        level = self.level(request)
        if level is Level.NOTHING:
            raise UnauthorizedError(
                "no valid token came with this request; open the address that `doubtless "
                "dashboard` prints, or send its token as 'Authorization: Bearer TOKEN'"
            )
        if level < needed:
            raise ForbiddenError(
                "this link is read-only; whoever runs Doubtless gets the other one by "
                "`doubtless dashboard`"
            )
        if needed is Level.ACT:
            self.require_own_page(request)

    def require_own_page(self, request: Request) -> None:
        """Refuse what another site's page makes a browser send.

        Raises:
            ForbiddenError: it comes from elsewhere, or by cookie without saying from where.
        """
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            raise ForbiddenError(
                f"a page of another site (Sec-Fetch-Site: {site}) cannot act here; use the "
                "dashboard's own page"
            )
        if origin is not None:
            own = {request.headers.get("host", ""), urlsplit(self._settings.reachable_url).netloc}
            if urlsplit(origin).netloc not in own:
                raise ForbiddenError(
                    f"a page of '{origin}' cannot act here; behind a proxy, DOUBTLESS_PUBLIC_URL "
                    "has to be the address in the browser"
                )
        elif site is None and _bearer(request) is None:
            raise ForbiddenError(
                "a request by cookie has to name its Origin; scripts send the token as "
                "'Authorization: Bearer TOKEN'"
            )

    def level_of(self, token: str) -> Level:
        """What a token opens.

        Raises:
            UnauthorizedError: it is not valid.
        """
        level = self._tokens().level(token)
        if level is Level.NOTHING:
            raise UnauthorizedError(
                "this token is not valid (any more); `doubtless dashboard` prints the present one"
            )
        return level

    def log_in(self, request: Request, response: Response, token: str) -> None:
        """Keep a token in a cookie that no script of the page can read."""
        response.set_cookie(
            _cookie(request), token, max_age=COOKIE_DAYS * 86400, httponly=True, samesite="strict",
            secure=request.url.scheme == "https", path="/api",
        )  # fmt: skip

    def log_out(self, request: Request, response: Response) -> None:
        """Forget the cookie."""
        response.delete_cookie(_cookie(request), path="/api", httponly=True, samesite="strict")

    def _tokens(self) -> Tokens:
        return read_tokens(self._settings.home_path)


def _cookie(request: Request) -> str:
    """Name of the cookie; with the port, because browsers send cookies to every port of a host.

    Two installations on one machine would log each other out.
    """
    return "doubtless_" + re.sub(r"[^0-9a-z]", "_", request.headers.get("host", "").lower()[:80])


def _bearer(request: Request) -> str | None:
    header = request.headers.get("authorization", "")
    return header[7:].strip() if header.lower().startswith("bearer ") else None
