"""Labelled images on disk, whatever their packing, as one stream."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model.errors import DataError, UnreadableImageError
from model.exif import turn_boxes
from model.images import Header, read_header

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
)
DIGITS = "digits"
DIGITS_SIDE_PX = 64


class Box(NamedTuple):
    """An object in an image.

    Corners are in shares of the upright image's width and height: ``0 <= x0 < x1 <= 1``, x to the
    right, and ``0 <= y0 < y1 <= 1``, y down.
    """

    label: str
    x0: float
    y0: float
    x1: float
    y1: float


class Item(NamedTuple):
    """One image of a data set.

    Attributes:
        name: unique within the set; a path where there is one.
        data: the encoded file.
        label: None where the set does not say.
        split: ``train``, ``test``, or empty where the set does not say.
        labels: of a set whose images may have several, or none; `label` is None then.
        boxes: of a set for detection; an empty one says that there is no object, None that nobody
            has looked.
    """

    name: str
    data: bytes
    label: str | None
    split: str
    labels: tuple[str, ...] | None = None
    boxes: tuple[Box, ...] | None = None


def read_dataset(source: str) -> Iterator[Item]:
    """Read a data set image by image.

    Args:
        source: ``digits`` (scikit-learn's 8x8 digits, enlarged), or a folder: a packed set
            (``manifest.csv`` with columns file, archive, split, label, and ZIP archives; or labels,
            a JSON list, where an image may have several; or boxes, a JSON list of objects with
            label, x0, y0, x1, y1 in pixels of the image as it is stored, before it is turned
            upright), a folder per class (optionally below ``train`` and ``test``), or a flat folder
            of images.

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
    with _rows(manifest) as rows:
        columns = rows.fieldnames or ()
    return next((name for name in ("label", "labels", "boxes", "mask") if name in columns), "")


@contextmanager
def _rows(manifest: Path) -> Iterator[csv.DictReader[str]]:
    # Excel's UTF-8 begins with a byte order mark.
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield csv.DictReader(file)
        except UnicodeDecodeError as exc:
            raise DataError(
                f"{manifest} is not UTF-8: it has the byte 0x{exc.object[exc.start]:02x}; save it "
                "as UTF-8 (in Excel: “CSV UTF-8”)"
            ) from exc


def _packed(folder: Path) -> Iterator[Item]:
    with ExitStack() as stack:
        archives: dict[str, zipfile.ZipFile] = {}
        rows = stack.enter_context(_rows(folder / "manifest.csv"))
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
                _boxes(row, data, folder / "manifest.csv"),
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


def _boxes(row: dict[str, str], data: bytes, manifest: Path) -> tuple[Box, ...] | None:
    """The objects of a row, upright; None where it says nothing of any."""
    text = row.get("boxes") or ""
    if not text:
        return None
    header = _header(row, data, manifest)
    try:
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError
        labels, corners = [_label(box) for box in found], [_corners(box) for box in found]
    except (ValueError, TypeError, KeyError, OverflowError) as exc:
        shown = text if len(text) <= 200 else f"{text[:200]}…"
        raise DataError(
            f"{row['file']!r} of {manifest} has the boxes {shown!r}; write a JSON list of objects "
            "with a label and the pixels x0, y0, x1, y1"
        ) from exc
    sides = [header.width, header.height, header.width, header.height]
    shares = np.clip(np.array(corners, np.float64).reshape(-1, 4) / sides, 0.0, 1.0)
    return tuple(
        Box(label, x0, y0, x1, y1)
        for label, (x0, y0, x1, y1) in zip(
            labels, turn_boxes(shares, header.orientation).tolist(), strict=True
        )
        if x0 < x1 and y0 < y1
    )


def _label(box: dict[str, Any]) -> str:
    if not isinstance(box["label"], str) or not box["label"]:
        raise ValueError
    return box["label"]


def _corners(box: dict[str, Any]) -> list[float]:
    x0, y0, x1, y1 = (float(box[name]) for name in ("x0", "y0", "x1", "y1"))
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise ValueError
    # Whoever drew from right to left drew the same box.
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def _header(row: dict[str, str], data: bytes, manifest: Path) -> Header:
    """The stored image's, checked against the manifest's where that has width and height."""
    width, height = row.get("width") or "", row.get("height") or ""
    stated = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    try:
        header = read_header(data)
    except UnreadableImageError as exc:
        if stated is None or 0 in stated:
            raise DataError(
                f"{row['file']!r} of {manifest} has boxes and cannot be read: {exc}"
            ) from exc
        return Header(*stated, 1)  # it is left out, with the reason, once it is decoded
    if stated not in (None, header[:2]):
        raise DataError(
            f"{row['file']!r} of {manifest} is {header.width}x{header.height} pixels as it is "
            f"stored and its boxes are of one with {width}x{height}; write them in pixels of the "
            "stored image"
        )
    return header


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
