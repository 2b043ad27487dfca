"""The images of a demonstration: which are imported, which are held out, and their true labels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from backend.errors import SettingError
from model.backbones import Backbone, backbone_hash
from model.datasets import Item, read_dataset
from model.extract import extract
from model.features import FeatureStore

HELD_OUT_SHARE = 0.3
HELD_OUT_AT_MOST = 1000
_SEED = 20


@dataclass(frozen=True)
class DemoImage:
    """One image and what the data set says of it.

    Attributes:
        name: its file name in Label Studio, without a folder; unique.
        label: the true class; ``None`` when the set does not say.
    """

    name: str
    data: bytes = field(repr=False)
    label: str | None

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
    """

    source: str
    classes: tuple[str, ...]
    pool: tuple[DemoImage, ...]
    held_out: tuple[DemoImage, ...]

    @property
    def truth(self) -> dict[str, str]:
        """True label of each imported image that has one, by name."""
        return {image.name: image.label for image in self.pool if image.label is not None}


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
    labels = sorted({item.label for item in items if item.label is not None}, key=_natural)
    names = tuple(classes) or tuple(labels)
    if len(names) < 2:
        has = f"only the label '{labels[0]}'" if labels else "no labels"
        raise SettingError(
            f"the images of {source} carry {has}; say what to choose from with --classes, such as "
            "--classes cat,dog"
        )
    items = [i if i.label in names else i._replace(label=None) for i in items]
    pool, held_out = _split(items)
    shuffled = random.Random(_SEED)
    # Not in the order of the set: it is often sorted by class.
    shuffled.shuffle(pool)
    shuffled.shuffle(held_out)
    pool = pool[:limit] if limit else pool
    if not pool:
        raise SettingError(f"{source} has too few images to import any; give it at least ten")
    return DemoData(
        source,
        names,
        tuple(_image(n, item, "image") for n, item in enumerate(pool, 1)),
        tuple(_image(n, item, "held-out") for n, item in enumerate(held_out, 1))[:HELD_OUT_AT_MOST],
    )


def _split(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """The set's own test part where it has one, else a share of the labelled images."""
    held_out = [i for i in items if i.split == "test" and i.label is not None]
    if held_out:
        return [i for i in items if i.split != "test"], held_out
    labelled = [n for n, item in enumerate(items) if item.label is not None]
    count = min(int(len(labelled) * HELD_OUT_SHARE), HELD_OUT_AT_MOST)
    chosen = set(random.Random(_SEED).sample(labelled, count))
    return (
        [item for n, item in enumerate(items) if n not in chosen],
        [item for n, item in enumerate(items) if n in chosen],
    )


def _image(number: int, item: Item, stem: str) -> DemoImage:
    # A name of our own: Label Studio shortens and cleans names, and the true class must not show.
    suffix = PurePath(item.name).suffix.lower() or ".png"
    return DemoImage(f"{stem}-{number:05d}{suffix}", item.data, item.label)


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
