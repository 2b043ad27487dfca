"""Labelled images on disk, whatever their packing, as one stream."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from model.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
)
DIGITS = "digits"
DIGITS_SIDE_PX = 64


class Item(NamedTuple):
    """One image of a data set.

    Attributes:
        name: unique within the set; a path where there is one.
        data: the encoded file.
        label: None where the set does not say.
        split: ``train``, ``test``, or empty where the set does not say.
        labels: of a set whose images may have several, or none; `label` is None then.
    """

    name: str
    data: bytes
    label: str | None
    split: str
    labels: tuple[str, ...] | None = None


def read_dataset(source: str) -> Iterator[Item]:
    """Read a data set image by image.

    Args:
        source: ``digits`` (scikit-learn's 8x8 digits, enlarged), or a folder: a packed set
            (``manifest.csv`` with columns file, archive, split, label, and ZIP archives; or labels,
            a JSON list, where an image may have several), a folder per class (optionally below
            ``train`` and ``test``), or a flat folder of images.

    Yields:
        Items in an order that is the same every time; one image in memory at a time.

    Raises:
        DataError: there is no such set, or nothing in it.
    """
    if source == DIGITS and not Path(source).is_dir():
        yield from _digits()
        return
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{source!r} is neither a folder nor '{DIGITS}'")
    if (folder / "manifest.csv").is_file():
        yield from _packed(folder)
    else:
        yield from _loose(folder)


def annotated_with(source: str) -> str:
    """What a set is annotated with: ``label``, ``labels``, ``boxes``, ``mask``, empty for nothing.

    Folders of images have one label an image, or none; a packed set's manifest says it.
    """
    manifest = Path(source) / "manifest.csv"
    if not manifest.is_file():
        return "label"
    with manifest.open(newline="", encoding="utf-8") as file:
        columns = csv.DictReader(file).fieldnames or ()
    return next((name for name in ("label", "labels", "boxes", "mask") if name in columns), "")


def _packed(folder: Path) -> Iterator[Item]:
    with ExitStack() as stack:
        archives: dict[str, zipfile.ZipFile] = {}
        file = stack.enter_context((folder / "manifest.csv").open(newline="", encoding="utf-8"))
        rows = csv.DictReader(file)
        absent = {"file", "archive"} - set(rows.fieldnames or ())
        if absent:
            raise DataError(f"{folder / 'manifest.csv'} lacks the columns {sorted(absent)}")
        for row in rows:
            name = row["archive"]
            try:
                if name not in archives:
                    archives[name] = stack.enter_context(zipfile.ZipFile(folder / name))
                data = archives[name].read(row["file"])
            except (OSError, KeyError, zipfile.BadZipFile) as exc:
                raise DataError(
                    f"{row['file']!r} of {folder / 'manifest.csv'} cannot be read from "
                    f"{folder / name}: {exc}"
                ) from exc
            yield Item(
                row["file"],
                data,
                row.get("label") or None,
                row.get("split") or "",
                _several(row, folder / "manifest.csv"),
            )


def _several(row: dict[str, str], manifest: Path) -> tuple[str, ...] | None:
    """The labels of a row; None where it says nothing of several."""
    text = row.get("labels") or ""
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise DataError(
            f"{row['file']!r} of {manifest} has the labels {text!r}; write a JSON list of texts"
        )
    return tuple(found)


def _loose(folder: Path) -> Iterator[Item]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder} has no manifest.csv and no image below it")
    for path in paths:
        if not path.is_file():
            continue
        parts = path.relative_to(folder).parts
        split = parts[0] if len(parts) > 1 and parts[0] in ("train", "test") else ""
        below = parts[1:] if split else parts
        label = below[0] if len(below) > 1 else None
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise DataError(f"{path} cannot be read: {exc.strerror or exc}") from exc
        yield Item(path.relative_to(folder).as_posix(), data, label, split)


def _digits() -> Iterator[Item]:
    """Give scikit-learn's 1,797 handwritten digits; every third image is for testing."""
    import numpy as np
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DataError(
            "the digits come with scikit-learn; install it with: pip install 'doubtless[demo]'"
        ) from exc
    bunch = load_digits()
    for number, (values, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        grey = np.clip(np.rint(255.0 - values * (255.0 / 16.0)), 0, 255).astype(np.uint8)
        image = Image.fromarray(grey).resize(
            (DIGITS_SIDE_PX, DIGITS_SIDE_PX), Image.Resampling.BICUBIC
        )
        out = BytesIO()
        image.convert("RGB").save(out, "PNG")
        split = "test" if number % 3 == 2 else "train"
        yield Item(f"digit-{number:04d}.png", out.getvalue(), str(label), split)
