"""What Label Studio answers when it refuses, or does not answer, as one sentence."""

from __future__ import annotations

import json
from typing import Any

import requests

from backend.errors import PlatformError

TRANSIENT = frozenset({429, 502, 503, 504})


class TransientError(PlatformError):
    """A failure that may pass by itself; a `PlatformError` to whoever sees it in the end."""


def cause_of(response: requests.Response) -> str:
    """What Label Studio says is wrong, in one line of at most 300 characters."""
    body = json_or_none(response)
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


def json_or_none(response: requests.Response) -> Any:
    """The parsed body; ``None`` when it is no JSON."""
    try:
        return response.json()
    except ValueError:
        return None
