from __future__ import annotations

import contextlib
import struct
import threading
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.errors import UnreadableImageError
from model.images import decode_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:-900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 90), "PNG")[:-900], "damaged"),
        (encoded(Image.new("RGB", (8, 8)), "JPEG")[:30], "damaged|not an image"),
        (png_header(60_000, 60_000), "megapixels"),
        (png_header(10_000, 11_000), "limit of 100 megapixels"),
        (png_header(0, 10), "damaged|no pixels|not an image"),
        (b"GIF89a\0\0\0\0\0\0\0;", "damaged|no pixels|not an image"),
        (bytes(range(256)) * 40, "not an image"),
    ],
)
def test_unusable_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(data)


def test_every_truncation_is_an_image_or_a_refusal() -> None:
    whole = {
        kind: encoded(Image.effect_noise((40, 30), 60).convert("RGB"), kind)
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
    }
    for data in whole.values():
        for length in range(0, len(data), max(1, len(data) // 40)):
            with contextlib.suppress(UnreadableImageError):
                assert decode_image(data[:length]).mode == "RGB"


def test_the_limit_is_the_callers() -> None:
    data = encoded(Image.new("RGB", (1100, 1000)))
    with pytest.raises(UnreadableImageError, match="1100x1000 pixels is larger than"):
        decode_image(data, max_megapixels=1)
    assert decode_image(data, max_megapixels=2).size == (1100, 1000)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = decode_image(data)
    assert (image.mode, image.size, pixel(image)) == ("RGB", (6, 4), RED)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (0, 0, 20, 20))  # left half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    turned = decode_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert pixel(turned, 10, 5)[2] > 200
    assert pixel(turned, 10, 35)[0] > 200


def test_cmyk_jpeg_keeps_its_colours() -> None:
    cmyk = Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK")
    red, green, blue = pixel(decode_image(encoded(cmyk, "JPEG", quality=95)), 8, 8)
    assert red > 200
    assert max(green, blue) < 80


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    image = decode_image(encoded(grey))
    assert [pixel(image, x)[0] for x in range(3)] == [0, 128, 255]


def test_float_tiff_is_stretched() -> None:
    image = decode_image(encoded(Image.fromarray(np.array([[-1.0, 0.0, 1.0]], np.float32)), "TIFF"))
    assert [pixel(image, x)[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    opened = decode_image(encoded(image.convert(mode)))
    assert [pixel(opened, x) for x in range(2)] == [(255, 255, 255), (0, 0, 0)]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    plain = decode_image(encoded(palette))
    assert [pixel(plain, x) for x in range(2)] == [RED, BLUE]
    clear = decode_image(encoded(palette, transparency=b"\x00\xff"))
    assert [pixel(clear, x) for x in range(2)] == [(255, 255, 255), BLUE]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_one_pixel(mode: str) -> None:
    image = decode_image(encoded(Image.new(mode, (1, 1))))
    assert (image.mode, image.size) == ("RGB", (1, 1))


def test_a_jpeg_is_decoded_smaller_but_never_below_the_hint() -> None:
    data = encoded(Image.effect_noise((640, 480), 30), "JPEG")
    assert decode_image(data, size_hint=224).size == (320, 240)
    assert decode_image(data, size_hint=260).size == (640, 480)
    assert decode_image(data).size == (640, 480)


def test_warnings_of_pillow_never_escape_and_others_still_do() -> None:
    """A palette with transparency bytes and a corrupt EXIF block make Pillow warn."""
    broken = encoded(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\0\0")
    before = list(warnings.filters)
    decode_image(broken)
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


def test_decoding_in_threads_restores_the_warning_filters() -> None:
    data = encoded(Image.effect_noise((200, 200), 30), "JPEG")
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [decode_image(data) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
