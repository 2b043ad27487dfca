"""Bytes of any origin to one RGB image, or a reason why not."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from model.errors import UnreadableImageError
from model.exif import swaps_sides

# Raster formats a browser or a camera produces. Pillow knows some fifty more, among them ones that
# start other programs (EPS runs Ghostscript); bytes from strangers do not get to choose those.
_WANTED = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)  # a build may lack one

# One of these is in every PNG with an orientation. Without, asking Pillow decodes the whole image.
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_WHITE = (255, 255, 255, 255)
_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: warnings.catch_warnings[None] | None = None


def decode_image(
    data: bytes, *, max_megapixels: int = 100, size_hint: int | None = None
) -> Image.Image:
    """Decode an image file the way a browser would show it.

    The first frame of an animation, turned upright by its EXIF tag, transparent pixels on white,
    16-bit grey scaled to 8 bits, CMYK and palettes converted.

    Args:
        data: the whole file.
        max_megapixels: larger images are refused from their header, before any pixel is decoded.
        size_hint: side in pixels that is needed. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size as long as both sides stay at least this long (1.5x faster at 640x480 to 224), so
            pass the same hint when training and when serving.

    Returns:
        An image of mode RGB, decoded, independent of `data`.

    Raises:
        UnreadableImageError: for anything that cannot be used; the message gives the reason.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    with _quiet_pillow():
        try:
            return _decode(data, max_megapixels, size_hint)
        except UnreadableImageError:
            raise
        except UnidentifiedImageError as exc:
            start = data[:16].decode("latin-1")
            raise UnreadableImageError(
                f"not an image in a supported format ({len(data)} bytes, starting {start!r})"
            ) from exc
        except Image.DecompressionBombError as exc:
            raise UnreadableImageError(
                f"larger than the limit of {max_megapixels} megapixels"
            ) from exc
        except Exception as exc:  # Pillow's decoders raise nearly anything on hostile bytes
            reason = " ".join(str(exc).split())[:200] or type(exc).__name__
            raise UnreadableImageError(f"damaged image: {reason}") from exc


class Header(NamedTuple):
    """What an image file says of itself before any pixel.

    Attributes:
        width: of the stored raster, in pixels.
        height: of the stored raster.
        orientation: EXIF's; 1 where there is none or it cannot be read.
    """

    width: int
    height: int
    orientation: int


def read_header(data: bytes) -> Header:
    """Size and orientation of an image file, as `decode_image` understands it.

    Args:
        data: the whole file.

    Raises:
        UnreadableImageError: it is no image.
    """
    with _quiet_pillow():
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                orientation = _orientation(image, data)
                if image.format == "TIFF" and swaps_sides(orientation):
                    width, height = height, width  # Pillow gives the upright size of these alone
        except Exception as exc:  # Pillow's parsers raise nearly anything on hostile bytes
            raise UnreadableImageError(
                f"no image whose size can be read ({len(data)} bytes)"
            ) from exc
    if width < 1 or height < 1:
        raise UnreadableImageError(f"the image has no pixels ({width}x{height})")
    return Header(width, height, orientation)


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and not any(mark in data for mark in _PNG_EXIF):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _decode(data: bytes, max_megapixels: int, size_hint: int | None) -> Image.Image:
    limit = max_megapixels * 1_000_000
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow's own guard must not be below the limit asked for
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise UnreadableImageError(f"the image has no pixels ({width}x{height})")
        if width * height > limit:
            raise UnreadableImageError(
                f"{width}x{height} pixels is larger than the limit of {max_megapixels} megapixels"
            )
        if size_hint is not None:
            image.draft("RGB", (size_hint, size_hint))
        image.load()
        upright: Image.Image = image
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # a broken EXIF block says nothing about the pixels
            upright = image
        rgb = _to_rgb(upright)
    return rgb.copy() if rgb is image else rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image.convert("I"), dtype=np.float64) / 257.0
        return _from_grey(grey)
    if image.mode in ("I", "F"):  # no white level is defined: stretch what is there
        grey = np.asarray(image, dtype=np.float64)
        grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(grey.min()), float(grey.max())
        return _from_grey((grey - low) * (255.0 / (high - low)) if high > low else grey * 0.0)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _from_grey(grey: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings while any thread decodes.

    `warnings.catch_warnings` alone is not safe with threads: the one that leaves last would
    restore what the first had already changed. So the filter is installed by the first thread in
    and removed by the last one out, and touches nothing but warnings raised inside PIL.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
                _quiet_filters = None
