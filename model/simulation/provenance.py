"""What a result says of how it came about: machine, commit, program."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("numpy", "scipy", "onnxruntime", "pillow", "torch", "scikit-learn")
_GIT_TIMEOUT_S = 10.0
_PLAYS = frozenset(("boxes.py", "classification.py", "data.py", "detection.py", "replay.py"))


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions of what computes."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = ""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "packages": packages,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit(*folders: str) -> str:
    """The commit of this program, with a plus when files differ from it; empty outside git.

    Args:
        folders: which files count; ``model`` without.
    """
    if not (ROOT / ".git").exists():  # do not take for ours the repository we are installed in
        return ""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *(folders or ("model",)))
    return head + ("+" if head and changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


@cache
def program_digest() -> str:
    """Changes with any source of `model` that a run goes through: two programs are never mixed.

    How runs are kept, summed up and shown is left out: a new report needs no new runs.
    """
    digest = hashlib.sha256()
    folder = ROOT / "model"
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name == "simulation" and path.name not in _PLAYS:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
