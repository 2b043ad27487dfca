"""Results of single runs on disk, so that a benchmark can be interrupted and go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Kept:
    """Runs by what they depend on: facts, and the text of the code that made them.

    Args:
        folder: where they are kept.
        root: what the paths of code are relative to.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._digests: dict[tuple[str, ...], str] = {}

    def run(
        self,
        facts: Mapping[str, Any],
        code: Sequence[str],
        make: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """The result kept for these facts and this code, or else a new one.

        Args:
            facts: JSON-able.
            code: files and folders below the root.
            make: gives a JSON-able result; one that raises leaves nothing behind.
        """
        key = json.dumps([facts, self._digest(tuple(code))], sort_keys=True)
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        try:
            kept: dict[str, Any] = json.loads(path.read_text())["result"]
            return kept
        except (OSError, ValueError, KeyError):
            pass
        result = make()
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"facts": facts, "result": result}))
        temporary.replace(path)
        return result

    def _digest(self, code: tuple[str, ...]) -> str:
        if code not in self._digests:
            digest = hashlib.sha256()
            for name in code:
                path = self._root / name
                for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                    digest.update(str(file.relative_to(self._root)).encode() + b"\0")
                    digest.update(file.read_bytes())
            self._digests[code] = digest.hexdigest()
        return self._digests[code]
