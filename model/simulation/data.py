"""A labelled set as features, with a part held out to judge on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backbones import BACKBONES, Backbone
from model.datasets import Item
from model.errors import DataError
from model.extract import extract
from model.features import FeatureStore

TEST_SHARE = 0.3
SPLIT_SEED = 20
CHUNK_ROWS = 8192

Read = Callable[[], Iterator[Item]]
Counted = Callable[[int, int], None]


@dataclass(frozen=True)
class Listing:
    """The labelled images of a set, without their bytes.

    Attributes:
        names: of the images, in the set's order.
        keys: SHA-256 of each file.
        labels: as the set writes them.
        splits: ``train``, ``test`` or empty.
        unlabelled: how many images of the set have no label.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    unlabelled: int = 0

    def without(self, keys: set[str]) -> Listing:
        """Leave out the images with these keys."""
        kept = [row for row, key in enumerate(self.keys) if key not in keys]
        return Listing(
            tuple(self.names[row] for row in kept),
            tuple(self.keys[row] for row in kept),
            tuple(self.labels[row] for row in kept),
            tuple(self.splits[row] for row in kept),
            self.unlabelled,
        )


def list_images(read: Read) -> Listing:
    """Read a set once and keep everything but the bytes."""
    rows: list[tuple[str, str, str, str]] = []
    unlabelled = 0
    for item in read():
        if item.label is None:
            unlabelled += 1
            continue
        rows.append((item.name, hashlib.sha256(item.data).hexdigest(), item.label, item.split))
    names, keys, labels, splits = (tuple(row[n] for row in rows) for n in range(4))
    return Listing(names, keys, labels, splits, unlabelled)


def compute_features(
    read: Read,
    keys: Sequence[str],
    *,
    backbone: str,
    store: FeatureStore,
    load: Callable[[str], Backbone],
    progress: Counted = lambda done, total: None,
) -> dict[str, str]:
    """Compute what the cache lacks, in one pass over the set.

    Args:
        read: the set.
        keys: SHA-256 of the files wanted.
        backbone: its name.
        store: the cache.
        load: gives the backbone; called only when something has to be computed.
        progress: called with (computed so far, to be computed).

    Returns:
        The reason for each key that cannot be read as an image.
    """
    code = BACKBONES[backbone].hash
    wanted = set(store.missing(code, keys))
    if not wanted:
        return {}

    def items() -> Iterator[tuple[str, bytes]]:
        waiting = set(wanted)
        for item in read():
            key = hashlib.sha256(item.data).hexdigest()
            if key in waiting:
                waiting.discard(key)
                yield key, item.data

    problems: dict[str, str] = {}
    done = 0
    progress(0, len(wanted))
    for names, features, errors in extract(load(backbone), items()):
        store.add(code, names, features)
        problems |= errors
        done += len(names) + len(errors)
        progress(done, len(wanted))
    store.compact(code)
    return problems


@dataclass(frozen=True)
class LabelledSet:
    """Everything a replay reads.

    Attributes:
        name: of the set, for people.
        classes: names, in the order of the numbers in `labels`.
        features: ``(N, D)`` float32.
        labels: ``(N,)`` int64.
        test: ``(N,)`` bool; the rest may be asked for.
        plain: ``(N, P)`` features of the plain head, or None when it is not compared with.
        names: ``(N,)`` of the images.
        digest: changes when an image, a label or the split does.
        split: where the held-out images come from, for people.
    """

    name: str
    classes: tuple[str, ...]
    features: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    test: NDArray[np.bool_] = field(repr=False)
    plain: NDArray[np.float32] | None = field(default=None, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    digest: str = ""
    split: str = ""

    @property
    def pool(self) -> NDArray[np.int64]:
        """Rows that may be asked for."""
        return np.flatnonzero(~self.test)

    def save(self, folder: Path) -> None:
        """Write the arrays, so that other processes can map them."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "features.npy", self.features, allow_pickle=False)
        np.save(folder / "labels.npy", self.labels, allow_pickle=False)
        np.save(folder / "test.npy", self.test, allow_pickle=False)
        plain = "none" if self.plain is None else "features"
        if self.plain is not None and self.plain is not self.features:
            plain = "own"
            np.save(folder / "plain.npy", self.plain, allow_pickle=False)
        facts = {
            "name": self.name,
            "classes": list(self.classes),
            "plain": plain,
        }
        (folder / "set.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LabelledSet:
        """Read what `save` wrote, without names, digest and split; features stay on disk."""

        def mapped(name: str) -> NDArray[np.float32]:
            array: NDArray[np.float32] = np.load(
                folder / f"{name}.npy", mmap_mode="r", allow_pickle=False
            )
            return array

        facts = json.loads((folder / "set.json").read_text(encoding="utf-8"))
        features = mapped("features")
        plain = features if facts["plain"] == "features" else None
        if facts["plain"] == "own":
            plain = mapped("plain")
        return cls(
            name=facts["name"],
            classes=tuple(facts["classes"]),
            features=features,
            labels=np.load(folder / "labels.npy", allow_pickle=False),
            test=np.load(folder / "test.npy", allow_pickle=False),
            plain=plain,
        )


def labelled_set(
    name: str,
    listing: Listing,
    features: NDArray[np.float32],
    plain: NDArray[np.float32] | None = None,
) -> LabelledSet:
    """Put a set together; it is split here when it says nothing of a split itself.

    Args:
        name: of the set.
        listing: N labelled images, all readable.
        features: ``(N, D)``.
        plain: ``(N, P)`` features of the plain head.

    Raises:
        DataError: no labels, one class only, or nothing left to learn from or to judge on.
    """
    _check(name, listing)
    classes, numbers = np.unique(listing.labels, return_inverse=True)
    labels = numbers.astype(np.int64)
    splits = np.array(listing.splits)
    test = splits == "test"
    is_own = bool(test.any())
    if not is_own:
        test = stratified_split(listing.keys, labels)
    if not test.any() or test.all():
        what = "to judge on" if not test.any() else "to learn from"
        different = len(set(listing.keys))
        count = f"{len(labels)} labelled images in {len(classes)} classes"
        if different < len(labels):
            count += f", {different} of them different"
        raise DataError(
            f"{name} has {count}: none is left {what}; give it at least two images a class"
        )
    digest = hashlib.sha256()
    for row in zip(listing.keys, listing.labels, test.tolist(), strict=True):
        digest.update(repr(row).encode())
    return LabelledSet(
        name=name,
        classes=tuple(classes.tolist()),
        features=features,
        labels=labels,
        test=test,
        plain=plain,
        names=listing.names,
        digest=digest.hexdigest()[:16],
        split="the set's own" if is_own else f"{TEST_SHARE:.0%} of each class, drawn here",
    )


def _check(name: str, listing: Listing) -> None:
    if not listing.labels:
        count = f"none of its {listing.unlabelled} images" if listing.unlabelled else "no image"
        raise DataError(
            f"{name} cannot be replayed: {count} has a label; put the images into one folder for "
            "each class, or label them and export again"
        )
    classes = set(listing.labels)
    if len(classes) < 2:
        raise DataError(
            f"{name} cannot be replayed: all {len(listing.labels)} labels are "
            f"{next(iter(classes))!r}; at least two classes are needed"
        )


def stratified_split(keys: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Draw 30 % of every class for testing; the same every time, whatever the order of the set.

    Copies of one file stay on one side, so that nothing is tested that was learnt. A class with
    one image gives none.

    Args:
        keys: N content keys.
        labels: ``(N,)``; copies count as their first image's class.

    Returns:
        ``(N,)`` True where an image is for testing.
    """
    unique, first, inverse = np.unique(np.array(keys), return_index=True, return_inverse=True)
    of_unique = labels[first]
    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(len(unique))
    test = np.zeros(len(unique), bool)
    for label in np.unique(of_unique):
        members = order[of_unique[order] == label]
        count = min(int(np.floor(TEST_SHARE * len(members) + 0.5)), len(members) - 1)
        test[members[:count]] = True
    spread: NDArray[np.bool_] = test[inverse]
    return spread
