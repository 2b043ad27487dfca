"""What a request to the dashboard gives: a number of the query, an object in the body."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from backend.errors import BadRequestError, TooLargeError
from model.acceptance.plan import ACCEPTED, Promise
from model.errors import ModelError

MOST_BODY = 10_000


def count_of(request: Request, name: str, default: int, most: int) -> int:
    """A whole number of the query, from 1 to `most`.

    Raises:
        BadRequestError: it is something else.
    """
    given = request.query_params.get(name, str(default))
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 7 else -1
    if not 1 <= number <= most:
        raise BadRequestError(f"{name}='{given[:40]}' has to be a whole number from 1 to {most}")
    return number


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        TooLargeError: it has more than `MOST_BODY` bytes.
        BadRequestError: it is no JSON object.
    """
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BODY:
            raise TooLargeError(f"the body is over {MOST_BODY} bytes; a few words are enough here")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise BadRequestError(f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise BadRequestError(f"the body is a JSON {type(body).__name__}, expected an object")
    return body


def one_of(body: dict[str, Any], name: str, names: Sequence[str]) -> str:
    """One of some words of the body; the first where nothing is said.

    Raises:
        BadRequestError: it is something else.
    """
    value = body.get(name, names[0])
    if value not in names:
        raise BadRequestError(f"{name} is {json.dumps(value)[:40]}; give one of {', '.join(names)}")
    return str(value)


def flag_of(body: dict[str, Any], name: str) -> bool:
    """A yes or no of the body; no where nothing is said.

    Raises:
        BadRequestError: it is something else.
    """
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise BadRequestError(f"{name} is {json.dumps(value)[:40]}; give true or false")
    return value


def names_of(body: dict[str, Any], allowed: Sequence[str]) -> dict[str, str]:
    """Those of some texts that the body has, one at least.

    Raises:
        BadRequestError: it has none, or something else in their place.
    """
    found = {name: body[name] for name in allowed if name in body}
    for name, value in found.items():
        if not isinstance(value, str):
            raise BadRequestError(f"{name} is {json.dumps(value)[:40]}; give a name")
    if not found:
        raise BadRequestError(f"the body names none of {', '.join(allowed)}")
    return found


def promise_of(body: dict[str, Any]) -> Promise:
    """What shall be true of accepted labels: ``max_error``, ``confidence`` and ``of``.

    Raises:
        BadRequestError: one of them is something else.
    """
    try:
        max_error, confidence = (_number(body, name) for name in ("max_error", "confidence"))
        return Promise(max_error, confidence, str(body.get("of", ACCEPTED)))
    except ModelError as exc:
        raise BadRequestError(str(exc)) from None


def _number(body: dict[str, Any], name: str) -> float:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        said = json.dumps(value)[:40]
        raise BadRequestError(f"{name} is {said}; give a number between 0 and 1, such as 0.05")
    return float(value)
