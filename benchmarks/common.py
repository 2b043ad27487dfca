"""What every benchmark writes beside its numbers, and how it gets features."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backbones import load_backbone
from model.datasets import read_dataset
from model.extract import extract
from model.features import FeatureStore

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("DOUBTLESS_BENCH_CACHE", ROOT / "build" / "bench"))


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions of what computes."""
    packages = {}
    for name in ("numpy", "scipy", "onnxruntime", "pillow", "torch", "scikit-learn"):
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
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that was measured, with a plus when files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "model", "benchmarks")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def header(**facts: Any) -> dict[str, Any]:
    """The part of a result that says how it came about."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {**facts, "when": when, "commit": commit(), "machine": machine()}


def write(result: dict[str, Any], out: Path | None) -> None:
    """Write a result as JSON, and say where."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        print(f"written: {out}")


@dataclass(frozen=True)
class FeatureSet:
    """A labelled set as features; rows of `features` belong to rows of `labels` and `split`."""

    name: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    split: NDArray[np.str_]


def features_of(source: str, backbone: str) -> FeatureSet:
    """Features of a labelled set, extracted once on this machine."""
    network = load_backbone(backbone, CACHE)
    store = FeatureStore(CACHE / "features")
    keys, labels, splits = [], [], []

    def items(wanted: set[str]) -> Any:
        for item in read_dataset(source):
            key = hashlib.sha256(item.data).hexdigest()
            if key in wanted:
                yield key, item.data

    for item in read_dataset(source):
        if item.label is None:
            continue
        keys.append(hashlib.sha256(item.data).hexdigest())
        labels.append(item.label)
        splits.append(item.split)
    wanted = set(store.missing(network.hash, keys))
    for names, features, errors in extract(network, items(wanted), batch=16, decode_threads=1):
        if errors:
            raise SystemExit(f"{source} has unreadable images: {errors}")
        store.add(network.hash, names, features)
    if wanted:
        store.compact(network.hash)
    classes, numbers = np.unique(labels, return_inverse=True)
    return FeatureSet(
        name=Path(source).name,
        features=store.load(network.hash, keys),
        labels=numbers.astype(np.int64),
        classes=tuple(classes.tolist()),
        split=np.array(splits),
    )
