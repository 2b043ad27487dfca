"""The other end of `process.PeerProcess`: runs in the environment of the other libraries."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Handler = Callable[[dict[str, Any]], Mapping[str, Any]]


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer until the pipe closes; ``share`` is kept and given to every later call."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print to standard output; the pipe is for answers alone
    shared: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        with np.load(request["from"]) as found:
            arrays = dict(found)
        if request["call"] == "share":
            shared = arrays
            answer: dict[str, Any] = {"ok": True, "seconds": 0.0}
            np.savez(request["into"])
        else:
            answer = _call(handlers, request, {**shared, **arrays})
        answers.write(json.dumps(answer).encode() + b"\n")


def _call(
    handlers: Mapping[str, Handler], request: Mapping[str, str], arrays: dict[str, Any]
) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        found = handlers[request["call"]](arrays)
        seconds = time.perf_counter() - begin
        np.savez(request["into"], **found)
    except Exception as exc:  # whatever a library raises is its result, and goes into the table
        return {"ok": False, "error": f"{type(exc).__name__}: {str(exc)[:300]}"}
    return {"ok": True, "seconds": seconds}


def main() -> None:
    from peering.annotators import HANDLERS as ANNOTATORS
    from peering.estimators import HANDLERS as ESTIMATORS
    from peering.label_errors import HANDLERS as LABEL_ERRORS
    from peering.strategies import HANDLERS as STRATEGIES

    warnings.simplefilter("ignore")
    serve({**STRATEGIES, **ESTIMATORS, **LABEL_ERRORS, **ANNOTATORS})


if __name__ == "__main__":
    main()
