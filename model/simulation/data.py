"""A labelled set as features, with a part held out to judge on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backbones import BACKBONES, Backbone
from model.datasets import Box, Item
from model.engine import ACCURACY, SUBSET_ACCURACY
from model.errors import DataError
from model.extract import extract
from model.features import FeatureStore
from model.heads.problem import Labels, strata
from model.simulation.classification import Classifier, accuracy_of_all
from model.simulation.replay import Plan
from model.uncertainty import ESTIMATORS

TEST_SHARE = 0.3
SPLIT_SEED = 20
CHUNK_ROWS = 8192
NO_LABEL = "(none)"

Read = Callable[[], Iterator[Item]]
Counted = Callable[[int, int], None]


@dataclass(frozen=True)
class Listing:
    """The labelled images of a set, without their bytes.

    Attributes:
        names: of the images, in the set's order.
        keys: SHA-256 of each file.
        labels: as the set writes them; of an image with several all in one text, for people, and
            of one with boxes how many of each class.
        splits: ``train``, ``test`` or empty.
        unlabelled: how many images of the set have no label.
        sets: the labels of each image where it may have several, or none.
        boxes: of each image where the set is for detection; an empty one is an image without any
            object.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    unlabelled: int = 0
    sets: tuple[tuple[str, ...], ...] | None = None
    boxes: tuple[tuple[Box, ...], ...] | None = None

    def without(self, keys: set[str]) -> Listing:
        """Leave out the images with these keys."""
        kept = [row for row, key in enumerate(self.keys) if key not in keys]
        return Listing(
            tuple(self.names[row] for row in kept),
            tuple(self.keys[row] for row in kept),
            tuple(self.labels[row] for row in kept),
            tuple(self.splits[row] for row in kept),
            self.unlabelled,
            None if self.sets is None else tuple(self.sets[row] for row in kept),
            None if self.boxes is None else tuple(self.boxes[row] for row in kept),
        )


def list_images(read: Read) -> Listing:
    """Read a set once and keep everything but the bytes.

    Raises:
        DataError: it mixes boxes with labels, or what `read` raises.
    """
    rows: list[tuple[str, str, str, str]] = []
    sets: list[tuple[str, ...]] = []
    boxes: list[tuple[Box, ...]] = []
    several = False
    unlabelled = 0
    labelled = boxed = ""  # the last image of either kind
    for item in read():
        if item.label is None and item.labels is None and item.boxes is None:
            unlabelled += 1
            continue
        labelled = labelled if item.label is None and item.labels is None else item.name
        boxed = boxed if item.boxes is None else item.name
        if labelled and boxed:
            raise DataError(
                f"{boxed!r} has boxes and {labelled!r} a label; a set is for detection or for "
                "classification, so keep one of the two"
            )
        several |= item.labels is not None
        if item.boxes is not None:
            boxes.append(item.boxes)
            text = counted(item.boxes)
        else:
            of_image = (
                (str(item.label),) if item.labels is None else tuple(sorted(set(item.labels)))
            )
            sets.append(of_image)
            text = item.label or ", ".join(of_image) or NO_LABEL
        rows.append((item.name, hashlib.sha256(item.data).hexdigest(), text, item.split))
    names, keys, labels, splits = (tuple(row[n] for row in rows) for n in range(4))
    return Listing(
        names,
        keys,
        labels,
        splits,
        unlabelled,
        tuple(sets) if several else None,
        tuple(boxes) if boxed else None,
    )


def counted(boxes: Sequence[Box]) -> str:
    """How many objects of each class there are, for people.

    Example:
        >>> counted([Box("RBC", 0.0, 0.0, 0.1, 0.1), Box("RBC", 0.5, 0.5, 0.6, 0.6)])
        '2 RBC'
    """
    found = Counter(box.label for box in boxes)
    return ", ".join(f"{found[label]} {label}" for label in sorted(found)) or NO_LABEL


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
    problems: dict[str, str] = {}
    done = 0
    progress(0, len(wanted))
    for names, features, errors in extract(load(backbone), items_of(read, wanted)):
        store.add(code, names, features)
        problems |= errors
        done += len(names) + len(errors)
        progress(done, len(wanted))
    store.compact(code)
    return problems


def items_of(read: Read, keys: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of the images wanted, each once, in the set's order."""
    waiting = set(keys)
    for item in read():
        key = hashlib.sha256(item.data).hexdigest()
        if key in waiting:
            waiting.discard(key)
            yield key, item.data


@dataclass(frozen=True)
class LabelledSet:
    """Everything a replay reads.

    Attributes:
        name: of the set, for people.
        classes: names, in the order of the numbers in `labels`.
        features: ``(N, D)`` float32.
        labels: ``(N,)`` int64; or ``(N, C)`` bool where an image may have several, or none.
        test: ``(N,)`` bool; the rest may be asked for.
        plain: ``(N, P)`` features of the plain head, or None when it is not compared with.
        names: ``(N,)`` of the images.
        digest: changes when an image, a label or the split does.
        split: where the held-out images come from, for people.
    """

    name: str
    classes: tuple[str, ...]
    features: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] | NDArray[np.bool_] = field(repr=False)
    test: NDArray[np.bool_] = field(repr=False)
    plain: NDArray[np.float32] | None = field(default=None, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    digest: str = ""
    split: str = ""

    @property
    def pool(self) -> NDArray[np.int64]:
        """Rows that may be asked for."""
        return np.flatnonzero(~self.test)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    def caption(self, row: int) -> str:
        """The label of an image, or all of them, for people."""
        if not self.multi_label:
            return self.classes[int(self.labels[row])]
        names = [name for name, yes in zip(self.classes, self.labels[row], strict=True) if yes]
        return ", ".join(names) or NO_LABEL

    @property
    def task(self) -> str:
        """See `model.simulation.replay.Playable`."""
        return "multilabel" if self.multi_label else "classification"

    @property
    def metric(self) -> str:
        """See `Playable`."""
        return SUBSET_ACCURACY if self.multi_label else ACCURACY

    def kinds(self, row: int) -> tuple[str, ...]:
        """See `Playable`."""
        return (self.caption(row),)

    def require_estimator(self, name: str) -> None:
        """See `Playable`."""
        ESTIMATORS[name]

    def player(self, plan: Plan, acquisition: str, seed: int) -> Classifier:
        """See `Playable`."""
        return Classifier(self, plan, acquisition, seed)

    def full(self, uncertainty: str, *, training_steps: int | None = None) -> dict[str, float]:
        """See `Playable`."""
        del training_steps
        return accuracy_of_all(self, uncertainty)

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
        DataError: boxes, no labels, one class only, or nothing left to learn from or to judge on.
    """
    _check(name, listing)
    classes, labels = _labels_of(listing)
    splits = np.array(listing.splits)
    test = splits == "test"
    is_own = bool(test.any())
    if not is_own:
        test = stratified_split(listing.keys, strata(labels))
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
        classes=classes,
        features=features,
        labels=labels,
        test=test,
        plain=plain,
        names=listing.names,
        digest=digest.hexdigest()[:16],
        split="the set's own" if is_own else f"{TEST_SHARE:.0%} of each class, drawn here",
    )


def _labels_of(listing: Listing) -> tuple[tuple[str, ...], Labels]:
    """The classes, and what each image has of them; see `LabelledSet.labels`."""
    if listing.sets is None:
        classes, numbers = np.unique(listing.labels, return_inverse=True)
        return tuple(classes.tolist()), numbers.astype(np.int64)
    names = sorted({label for chosen in listing.sets for label in chosen})
    labels = np.array([[name in chosen for name in names] for chosen in listing.sets], bool)
    return tuple(names), labels


def _check(name: str, listing: Listing) -> None:
    if listing.boxes is not None:
        raise DataError(f"{name} is annotated with boxes, a set for detection, and has no labels")
    if not listing.labels:
        count = f"none of its {listing.unlabelled} images" if listing.unlabelled else "no image"
        raise DataError(
            f"{name} cannot be replayed: {count} has a label; put the images into one folder for "
            "each class, or label them and export again"
        )
    classes = set(listing.labels)
    if len(classes) < 2:
        needed = "classes" if listing.sets is None else "sets of labels"
        hint = "; COCO and YOLO sets are to be converted first" if classes == {"images"} else ""
        raise DataError(
            f"{name} cannot be replayed: all {len(listing.labels)} labels are "
            f"{next(iter(classes))!r}; at least two {needed} are needed{hint}"
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
