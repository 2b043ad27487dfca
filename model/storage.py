"""Versions on disk: a folder of arrays and facts, complete or not there at all; no pickle."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model.errors import BundleError, ModelError

ARRAYS_FILE = "arrays.safetensors"
FACTS_FILE = "bundle.json"

T = TypeVar("T")


def write_version(
    folder: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> None:
    """Write a new folder, durable when this returns.

    Raises:
        BundleError: the folder exists already, or cannot be written.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists already; a version is never overwritten")
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}.tmp")
    temporary.mkdir(parents=True)
    try:
        text = json.dumps(facts, indent=1, allow_nan=False)
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary / ARRAYS_FILE)
        (temporary / FACTS_FILE).write_text(text, encoding="utf-8")
        for name in (ARRAYS_FILE, FACTS_FILE):
            _sync(temporary / name)
        _sync(temporary)
        temporary.rename(folder)
        _sync(folder.parent)
    except OSError as exc:
        raise BundleError(f"version {folder} cannot be written: {exc}") from exc
    finally:
        _remove(temporary)


def read_version(folder: Path, build: Callable[[dict[str, NDArray[Any]], dict[str, Any]], T]) -> T:
    """Read a folder and build what it holds.

    Raises:
        BundleError: it is incomplete, damaged, or of another format.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        return build(load_file(folder / ARRAYS_FILE), facts)
    except BundleError:
        raise
    except (OSError, SafetensorError) as exc:
        raise BundleError(f"version {folder} is incomplete: {exc}") from exc
    except (ValueError, KeyError, TypeError, ModelError) as exc:
        raise BundleError(f"version {folder} is damaged: {exc!r}") from exc


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
