"""References to images in an export: what one looks like, and which file on disk it means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import ExportError, MediaError
from model.datasets import IMAGE_SUFFIXES

_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before an upload's own name
_MOST_FILES = 1_000_000


class ImageIndex:
    """Files below a folder, found by the end of a path.

    Raises:
        ExportError: it is no folder; `resolve` raises it where too many files are below it.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ExportError(f"{root} is no folder; --images takes the folder of the images")
        self._root = root
        self._by_name: dict[str, list[tuple[str, ...]]] | None = None

    def resolve(self, reference: str) -> Path | None:
        """The file that a reference means; None for one that carries its image itself.

        Raises:
            MediaError: there is none, or several are as likely.
        """
        if reference[:5].lower() == "data:":
            return None
        parts = _parts(reference)
        if not parts:
            raise MediaError("it has no image")
        if self._by_name is None:
            self._by_name = self._scan()
        found = self._by_name.get(parts[-1]) or []
        if not found and _UPLOAD_PREFIX.match(parts[-1]):
            found = self._by_name.get(_UPLOAD_PREFIX.sub("", parts[-1], count=1)) or []
        if not found:
            raise MediaError(f"no file '{parts[-1]}' is below {self._root}")
        common = [_common_end(parts, candidate) for candidate in found]
        best = [c for c, n in zip(found, common, strict=True) if n == max(common)]
        if len(best) > 1:
            paths = " and ".join("/".join(candidate) for candidate in best[:2])
            raise MediaError(f"{len(best)} files below {self._root} may be meant: {paths}")
        return self._root.joinpath(*best[0])

    def _scan(self) -> dict[str, list[tuple[str, ...]]]:
        found: dict[str, list[tuple[str, ...]]] = {}
        count = 0
        for folder, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(folder).relative_to(self._root).parts
            for name in files:
                found.setdefault(name, []).append((*below, name))
            count += len(files)
            if count > _MOST_FILES:
                raise ExportError(
                    f"more than {_MOST_FILES} files are below {self._root}; give the folder of the "
                    "images alone with --images"
                )
        return found


def looks_like_image(value: Any) -> bool:
    """Whether a value of a task's data refers to an image, or carries one."""
    if not isinstance(value, str) or not value.strip():
        return False
    if value[:11].lower() == "data:image/":
        return True
    parts = _parts(value.strip())
    return bool(parts) and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES


def short_name(reference: str) -> str:
    """A reference in a few words, for messages."""
    if reference[:5].lower() == "data:":
        return f"{reference[:24]}…"
    parts = _parts(reference)
    return parts[-1] if parts else "no image"


def _common_end(parts: tuple[str, ...], candidate: tuple[str, ...]) -> int:
    count = 0
    for ours, theirs in zip(reversed(parts), reversed(candidate), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _parts(reference: str) -> tuple[str, ...]:
    """Folders and file name that a reference ends in, whatever its scheme."""
    try:
        split = urlsplit(reference)
    except ValueError:  # such as an address with a stray bracket
        split = urlsplit("")
    local = parse_qs(split.query).get("d") if "/local-files/" in split.path else None
    if local:
        path = local[0]
    elif split.scheme and "//" in reference[:12]:
        path = unquote(split.path)
    else:
        path = unquote(reference.partition("?")[0])
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
