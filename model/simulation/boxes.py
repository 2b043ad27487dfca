"""A set annotated with boxes, with a part held out to judge on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.datasets import Box
from model.detection.types import BoxLabels
from model.errors import DataError
from model.simulation.data import NO_LABEL, TEST_SHARE, Listing, stratified_split


@dataclass(frozen=True)
class BoxSet:
    """Everything that a replay of detection reads but the images.

    Attributes:
        name: of the set, for people.
        classes: names, in the order of the numbers in `boxes`.
        keys: ``(N,)`` SHA-256 of each file.
        boxes: ``(N,)`` what people drew.
        test: ``(N,)`` bool; the rest may be asked for.
        names: ``(N,)`` of the images.
        digest: changes when an image, a box or the split does.
        split: where the held-out images come from, for people.
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[str, ...] = field(repr=False)
    boxes: tuple[BoxLabels, ...] = field(repr=False)
    test: NDArray[np.bool_] = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    digest: str = ""
    split: str = ""

    @property
    def pool(self) -> NDArray[np.int64]:
        """Rows that may be asked for."""
        return np.flatnonzero(~self.test)

    def caption(self, row: int) -> str:
        """How many objects of each class an image has, for people."""
        counts = np.bincount(self.boxes[row].labels, minlength=len(self.classes))
        parts = [f"{n} {name}" for n, name in zip(counts, self.classes, strict=True) if n]
        return ", ".join(parts) or NO_LABEL


def box_set(name: str, listing: Listing) -> BoxSet:
    """Put a set together; it is split here when it says nothing of a split itself.

    Drawn here, 30 % are held out of the images of every kind: those whose rarest class is the same,
    rarest by the number of images that have it, and those without any object. Copies of a file stay
    on one side.

    Args:
        name: of the set.
        listing: N annotated images, all readable.

    Raises:
        DataError: it has no boxes, or nothing is left to learn from or to judge on.
    """
    boxes = _require_boxes(name, listing)
    classes = tuple(sorted({box.label for of_image in boxes for box in of_image}))
    splits = np.array(listing.splits)
    test = splits == "test"
    is_own = bool(test.any())
    if not is_own:
        test = stratified_split(listing.keys, rarest_class(boxes))
    with_objects = np.array([bool(of_image) for of_image in boxes])
    for part, what in ((test, "to judge on"), (~test, "to learn from")):
        if not (part & with_objects).any():
            different = len({k for k, n in zip(listing.keys, with_objects, strict=True) if n})
            raise DataError(
                f"{name} has {different} different images with boxes: none is left {what}; give "
                "it at least two images a class, in the parts train and test where it has those"
            )
    digest = hashlib.sha256()
    for row in zip(listing.keys, boxes, test.tolist(), strict=True):
        digest.update(repr(row).encode())
    number = {label: n for n, label in enumerate(classes)}
    return BoxSet(
        name=name,
        classes=classes,
        keys=listing.keys,
        boxes=tuple(
            BoxLabels.of([box[1:] for box in of_image], [number[box.label] for box in of_image])
            for of_image in boxes
        ),
        test=test,
        names=listing.names,
        digest=digest.hexdigest()[:16],
        split="the set's own" if is_own else f"{TEST_SHARE:.0%} by rarest class, drawn here",
    )


def rarest_class(boxes: Sequence[Sequence[Box]]) -> NDArray[np.int64]:
    """Of every image the class that the fewest images have; what its part is drawn by.

    Args:
        boxes: of N images.

    Returns:
        ``(N,)`` position of the class when sorted from rare to common; -1 for an image without an
        object. Equally rare ones by name.

    Example:
        >>> dog, cat = Box("dog", 0.0, 0.0, 0.1, 0.1), Box("cat", 0.0, 0.0, 0.1, 0.1)
        >>> rarest_class([[dog], [dog, cat], []])
        array([ 1,  0, -1])
    """
    images = Counter(label for of_image in boxes for label in {box.label for box in of_image})
    order = sorted(images, key=lambda label: (images[label], label))
    place = {label: n for n, label in enumerate(order)}
    found = [min((place[box.label] for box in of_image), default=-1) for of_image in boxes]
    return np.array(found, np.int64)


def _require_boxes(name: str, listing: Listing) -> tuple[tuple[Box, ...], ...]:
    if listing.boxes is None and listing.labels:
        raise DataError(f"{name} is annotated with labels, a set for classification, not boxes")
    if not listing.boxes:
        count = f"none of its {listing.unlabelled} images" if listing.unlabelled else "no image"
        raise DataError(
            f"{name} cannot be replayed: {count} is annotated; draw boxes and export again"
        )
    if not any(listing.boxes):
        raise DataError(
            f"{name} cannot be replayed: none of its {len(listing.boxes)} images has a box; a set "
            "needs objects to find"
        )
    return listing.boxes
