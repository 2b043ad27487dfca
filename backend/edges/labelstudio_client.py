"""Calls of Label Studio's API with one credential; the answer is an object, or pages of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.edges.labelstudio_http import Transport
from backend.edges.labelstudio_records import JsonObject
from backend.errors import PlatformError

BULK_TIMEOUT_S = 300.0
IDS_PER_QUERY = 400  # keeps the query string under 8 kB


class Client:
    """What all calls share; see `labelstudio_api.LabelStudio`."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 30.0) -> None:
        self._http = Transport(url, token, timeout_s=timeout_s)
        self.url = self._http.url

    @property
    def token_kind(self) -> str:
        """``legacy``, ``refresh`` (a personal access token) or ``access`` (dies in minutes)."""
        return self._http.credentials.kind

    def authorization(self) -> str:
        """The ``Authorization`` header that Label Studio accepts at this moment."""
        return self._http.credentials.header()

    def _object(self, method: str, path: str, **kwargs: Any) -> JsonObject:
        body = self._http.call(method, path, **kwargs)
        if not isinstance(body, dict):
            raise PlatformError(
                f"{method} {self.url}{path} answered {type(body).__name__} instead of an object. "
                "Check that this is the address of Label Studio."
            )
        return body

    def _paged(self, path: str, params: JsonObject) -> Iterator[JsonObject]:
        page = 1
        while True:
            body = self._object("GET", path, params={**params, "page": page})
            yield from body.get("results", [])
            if not body.get("next"):
                return
            page += 1
