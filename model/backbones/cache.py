"""Exported networks on disk: written once, by whoever comes first, and checked at every load."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from model.backbones.base import BackboneSpec
from model.errors import BackboneError

if TYPE_CHECKING:
    from model.backbones.pyramid import PyramidSpec

TOLERANCE = 1e-4
EXPORT_TIMEOUT_S = 600.0


def exported(spec: BackboneSpec | PyramidSpec, cache_dir: Path) -> bytes:
    """Give the ONNX file of a backbone, exporting it when there is none that is whole.

    Args:
        spec: which one.
        cache_dir: the file is ``cache_dir/backbones/<name>-<hash>.onnx``; a small JSON file beside
            it carries its digest and the difference measured at export.

    Raises:
        BackboneError: the export failed, or differs from the eager network by 1e-4 or more.
    """
    path = cache_dir / "backbones" / f"{spec.name}-{spec.hash}.onnx"
    data = _read(path)
    if data is not None:
        return data
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_process(path.with_suffix(".lock")):
        data = _read(path)  # somebody else may have written it while we waited
        if data is None:
            _export(spec, path)
            data = _read(path)
    if data is None:
        raise BackboneError(f"{path} was written but cannot be read back; is the disk full?")
    return data


def _read(path: Path) -> bytes | None:
    """Give the bytes if, and only if, they are the ones that were exported."""
    try:
        data = path.read_bytes()
        known = json.loads(path.with_suffix(".json").read_text())["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return data if hashlib.sha256(data).hexdigest() == known else None


def _export(spec: BackboneSpec | PyramidSpec, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.tmp")
    try:
        difference = _export_elsewhere(spec.name, temporary)
        if not difference < TOLERANCE:
            raise BackboneError(
                f"the exported {spec.name} differs from the eager network by {difference:.2g}, "
                f"allowed is {TOLERANCE:g}; update onnxruntime or onnx"
            )
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        note = temporary.with_suffix(".json")
        note.write_text(json.dumps({"sha256": digest, "max_difference": difference}))
        _sync(temporary)
        _sync(note)
        temporary.replace(path)
        note.replace(path.with_suffix(".json"))
    finally:
        for left_over in (temporary, temporary.with_suffix(".json")):
            left_over.unlink(missing_ok=True)


def _export_elsewhere(name: str, path: Path) -> float:
    """Export in a process of its own.

    So that torch (229 MB, and threads that a fork does not survive) never enters a process that
    serves or forks.
    """
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "model.backbones.export", name, str(path)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=EXPORT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackboneError(f"exporting {name} failed: {exc}") from exc
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackboneError(f"exporting {name} failed: {last}")
    return float(done.stdout.strip().splitlines()[-1])


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Hold a lock file. Saves work only: without it two exports would both be right."""
    with path.open("a") as file:
        with suppress(ImportError, OSError):  # no fcntl on Windows, no locks on some network disks
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
