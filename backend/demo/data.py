"""The images of a demonstration: which are imported, which are held out, and their true labels."""

from __future__ import annotations

import colorsys
import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels import boxes as drawings
from backend.edges.labels.choices import to_result
from backend.edges.labels.config import TaskSpec
from backend.errors import SettingError
from model.backbones import Backbone, backbone_hash
from model.datasets import Box, Item, annotated_with, read_dataset
from model.exif import swaps_sides
from model.extract import extract
from model.features import FeatureStore
from model.images import read_header

HELD_OUT_SHARE = 0.3
HELD_OUT_AT_MOST = 1000
# Every version looks at each of them anew, some fifty a second.
HELD_OUT_WITH_BOXES = 200
_SEED = 20


@dataclass(frozen=True)
class DemoImage:
    """One image and what the data set says of it.

    Attributes:
        name: its file name in Label Studio, without a folder; unique.
        label: the true class; ``None`` when the set does not say.
        boxes: the true objects of a set with boxes; ``None`` when it does not say.
    """

    name: str
    data: bytes = field(repr=False)
    label: str | None
    boxes: tuple[Box, ...] | None = None

    @property
    def has_truth(self) -> bool:
        """Whether the set says what is right for it."""
        return self.label is not None or self.boxes is not None

    @property
    def key(self) -> str:
        """Key of its cached features."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class DemoData:
    """A data set split in two.

    Attributes:
        source: what `read_dataset` was given.
        classes: all of them, sorted.
        pool: imported into Label Studio.
        held_out: never imported; the versions are measured on them. Empty without labels.
        has_boxes: objects are to be found, not classes to be chosen.
    """

    source: str
    classes: tuple[str, ...]
    pool: tuple[DemoImage, ...]
    held_out: tuple[DemoImage, ...]
    has_boxes: bool = False

    @property
    def truth(self) -> dict[str, DemoImage]:
        """The imported images of which the set says what is right, by name."""
        return {image.name: image for image in self.pool if image.has_truth}


def load_demo_data(
    source: str, *, classes: Iterable[str] = (), limit: int | None = None
) -> DemoData:
    """Read and split a data set; the same every time.

    Args:
        source: see `model.datasets.read_dataset`.
        classes: what to choose from; needed when the set has no labels.
        limit: import no more images than this.

    Raises:
        DataError: there is no such set.
        SettingError: it has no labels and `classes` is empty, or it is too small.
    """
    items = list(read_dataset(source))
    has_boxes = annotated_with(source) == "boxes"
    found = [item.label for item in items] + [b.label for item in items for b in item.boxes or ()]
    labels = sorted({label for label in found if label is not None}, key=_natural)
    names = tuple(classes) or tuple(labels)
    if has_boxes and not names:
        raise SettingError(
            f"no image of {source} has a box; say what to draw with --classes, such as "
            "--classes cat,dog"
        )
    if not has_boxes and len(names) == 1 and classes:
        raise SettingError(
            f"--classes names only '{names[0]}'; give at least two to choose from, such as "
            "--classes cat,dog"
        )
    if not has_boxes and len(names) < 2:
        has = f"only the label '{labels[0]}'" if labels else "no labels"
        raise SettingError(
            f"the images of {source} carry {has}; say what to choose from with --classes, such as "
            "--classes cat,dog"
        )
    items = [_within(names, item) for item in items]
    pool, held_out = _split(items)
    shuffled = random.Random(_SEED)
    # Not in the order of the set: it is often sorted by class.
    shuffled.shuffle(pool)
    shuffled.shuffle(held_out)
    pool = pool[:limit] if limit else pool
    if not pool:
        raise SettingError(f"{source} has too few images to import any; give it at least ten")
    held_out = held_out[: HELD_OUT_WITH_BOXES if has_boxes else HELD_OUT_AT_MOST]
    return DemoData(
        source,
        names,
        tuple(_image(n, item, "image") for n, item in enumerate(pool, 1)),
        tuple(_image(n, item, "held-out") for n, item in enumerate(held_out, 1)),
        has_boxes,
    )


def _within(classes: tuple[str, ...], item: Item) -> Item:
    """The item without labels and boxes of other classes."""
    boxes = item.boxes
    return item._replace(
        label=item.label if item.label in classes else None,
        boxes=None if boxes is None else tuple(b for b in boxes if b.label in classes),
    )


def _split(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """The set's own test part where it has one, else a share of the labelled images."""
    held_out = [i for i in items if i.split == "test" and _has_truth(i)]
    if held_out:
        return [i for i in items if i.split != "test"], held_out
    labelled = [n for n, item in enumerate(items) if _has_truth(item)]
    count = min(int(len(labelled) * HELD_OUT_SHARE), HELD_OUT_AT_MOST)
    chosen = set(random.Random(_SEED).sample(labelled, count))
    return (
        [item for n, item in enumerate(items) if n not in chosen],
        [item for n, item in enumerate(items) if n in chosen],
    )


def _has_truth(item: Item) -> bool:
    return item.label is not None or item.boxes is not None


def _image(number: int, item: Item, stem: str) -> DemoImage:
    # A name of our own: Label Studio shortens and cleans names, and the true class must not show.
    suffix = PurePath(item.name).suffix.lower() or ".png"
    return DemoImage(f"{stem}-{number:05d}{suffix}", item.data, item.label, item.boxes)


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), text) if text.isdecimal() else (1, 0, text)


def label_config(classes: Iterable[str]) -> str:
    """Labeling config of single-choice image classification.

    Example:
        >>> print(label_config(["7"]).splitlines()[3].strip())
        <Choice value="7" hotkey="7"/>
    """
    lines = []
    for name in classes:
        # Label Studio numbers the choices itself, from 1: wrong for digits.
        hotkey = f" hotkey={quoteattr(name)}" if len(name) == 1 and name.isalnum() else ""
        lines.append(f"    <Choice value={quoteattr(name)}{hotkey}/>")
    return "\n".join(
        [
            "<View>",
            # Without a limit a small image is blown up and pushes the choices off the page.
            '  <Image name="image" value="$image" zoom="true" maxWidth="480px"/>',
            '  <Choices name="label" toName="image" choice="single" showInline="true">',
            *lines,
            "  </Choices>",
            "</View>",
        ]
    )


def box_config(classes: Iterable[str]) -> str:
    """Labeling config of drawing boxes, each class in a colour of its own.

    Example:
        >>> print(box_config(["RBC"]).splitlines()[3].strip())
        <Label value="RBC" background="#e62e2e"/>
    """
    names = list(classes)
    lines = [
        f"    <Label value={quoteattr(name)} background={quoteattr(_colour(n, len(names)))}/>"
        for n, name in enumerate(names)
    ]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true"/>',
            '  <RectangleLabels name="label" toName="image">',
            *lines,
            "  </RectangleLabels>",
            "</View>",
        ]
    )


def _colour(number: int, count: int) -> str:
    """One of `count` hues, evenly apart."""
    shares = colorsys.hsv_to_rgb(number / count, 0.8, 0.9)
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares)


def true_result(spec: TaskSpec, image: DemoImage) -> list[dict[str, Any]]:
    """What somebody who knows submits for an image; see `DemoImage.has_truth`."""
    if not spec.boxes:
        return to_result(spec, str(image.label), None)
    drawn = [drawings.Drawn(box.label, box[1:]) for box in image.boxes or ()]
    width, height, orientation = read_header(image.data)
    size = (height, width) if swaps_sides(orientation) else (width, height)
    return drawings.drawn_result(spec, drawn, size)


def original_name(reference: str) -> str:
    """Our name of an uploaded image, from the address that Label Studio gave it.

    Example:
        >>> original_name("/data/upload/1/0a1b2c3d-image-00001.png")
        'image-00001.png'
    """
    return PurePath(reference).name.partition("-")[2]


def features_of(
    images: Iterable[DemoImage],
    store: FeatureStore,
    backbone: str,
    load: Callable[[], Backbone],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features of the images, computed where the cache has none.

    Args:
        images: the images.
        store: the cache, shared with the workers.
        backbone: its name.
        load: gives the backbone; called only when something has to be computed.
        progress: called with (computed so far, to be computed).

    Returns:
        ``(N, D)`` features of the readable images, in order, and ``(M,)`` which are readable.
    """
    images = list(images)
    code = backbone_hash(backbone)
    by_key = {image.key: image.data for image in images}
    missing = store.missing(code, list(by_key))
    broken: set[str] = set()
    done = 0
    if missing:
        todo = ((key, by_key[key]) for key in missing)
        for names, features, errors in extract(load(), todo):
            store.add(code, names, features)
            broken |= errors.keys()
            done += len(names) + len(errors)
            progress(done, len(missing))
    readable = np.array([image.key not in broken for image in images], bool)
    keys = [image.key for image in images if image.key not in broken]
    return store.load(code, keys), readable
