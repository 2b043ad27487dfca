"""What every benchmark writes beside its numbers, and how it gets features."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backbones import backbone_hash, load_backbone
from model.datasets import Item, read_dataset
from model.features import FeatureStore
from model.simulation.data import compute_features, list_images
from model.simulation.provenance import commit, machine

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("DOUBTLESS_BENCH_CACHE", ROOT / "build" / "bench"))


def header(**facts: Any) -> dict[str, Any]:
    """The part of a result that says how it came about."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {**facts, "when": when, "commit": commit("model", "benchmarks"), "machine": machine()}


def write(result: dict[str, Any], out: Path | None) -> None:
    """Write a result as JSON, and say where; without a file print it."""
    text = json.dumps(result, indent=1, allow_nan=False)
    if out is None:
        print(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n")
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
    store = FeatureStore(CACHE / "features")

    def read() -> Iterator[Item]:
        return read_dataset(source)

    listing = list_images(read)
    errors = compute_features(
        read,
        listing.keys,
        backbone=backbone,
        store=store,
        load=lambda name: load_backbone(name, CACHE),
    )
    if errors:
        raise SystemExit(f"{source} has unreadable images: {errors}")
    classes, numbers = np.unique(listing.labels, return_inverse=True)
    return FeatureSet(
        name=Path(source).name,
        features=store.load(backbone_hash(backbone), listing.keys),
        labels=numbers.astype(np.int64),
        classes=tuple(classes.tolist()),
        split=np.array(listing.splits),
    )
