"""Write the lock files from what is installed: run after changing dependencies in pyproject.toml.

`.venv/bin/python scripts/lock.py` walks the requirements of pyproject.toml through the installed
packages and pins what it meets: `requirements.lock` is what serving, training and the demo need,
`requirements-dev.lock` what tests and lint need besides, `requirements-image.lock` what runs in the
slim Docker image, without torch, and `requirements-train.lock` what the full one has besides.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
RUNTIME_EXTRAS = ("embedded", "train", "demo")
IMAGE_EXTRAS = ("embedded", "postgres")
HEADS = ("torch", "onnx")  # what boxes are trained with, and written for prediction
HEAD = "# Written by scripts/lock.py. ./run installs it without resolving, torch as a CPU build.\n"
# Needed on interpreters other than the one the lock is written with.
ELSEWHERE = ['async-timeout==5.0.1 ; python_full_version < "3.11.3"']


def canonical(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of everything that the requirements need, here and on macOS and Linux."""
    environments: list[dict[str, Any]] = [
        {**default_environment(), "sys_platform": name, "platform_system": name.title()}
        for name in ("linux", "darwin")
    ]
    found: set[tuple[str, tuple[str, ...]]] = set()
    todo: list[tuple[Requirement, tuple[str, ...]]] = [
        (Requirement(r), ("",)) for r in requirements
    ]
    while todo:
        requirement, wanted_by = todo.pop()
        if requirement.marker is not None and not any(
            requirement.marker.evaluate(environment | {"extra": extra})
            for environment in environments
            for extra in wanted_by
        ):
            continue
        key = (canonical(requirement.name), tuple(sorted(requirement.extras)))
        if key in found:
            continue
        found.add(key)
        try:
            needs = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            sys.exit(f"{requirement} is not installed; install it in .venv first")
        todo.extend((Requirement(text), key[1] or ("",)) for text in needs)
    return {name for name, _ in found}


def pins(names: set[str]) -> str:
    """Lines of a lock file. A build tag such as ``+cpu`` is not part of the version we need."""
    lines = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
    if "redis" in names:
        lines += ELSEWHERE
    return HEAD + "".join(f"{line}\n" for line in sorted(lines))


def main() -> None:
    """Write all files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    base = project["dependencies"]
    # With the build back end, so that installing the project itself asks no index.
    runtime = closure([*base, *_of(extras, RUNTIME_EXTRAS), "setuptools"])
    image = closure([*base, *_of(extras, IMAGE_EXTRAS), "setuptools"])
    heads = [r for r in extras["train"] if Requirement(r).name in HEADS]
    train = closure(heads) - image
    dev = closure(extras["dev"]) - runtime
    for name, names in (
        ("requirements.lock", runtime),
        ("requirements-dev.lock", dev),
        ("requirements-image.lock", image),
        ("requirements-train.lock", train),
    ):
        (ROOT / name).write_text(pins(names), encoding="utf-8")


def _of(extras: dict[str, list[str]], names: tuple[str, ...]) -> list[str]:
    return [requirement for name in names for requirement in extras[name]]


if __name__ == "__main__":
    main()
