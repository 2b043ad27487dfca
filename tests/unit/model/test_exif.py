"""Boxes turned with their image, and what files say of themselves."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from model.errors import ShapeError, UnreadableImageError
from model.exif import swaps_sides, turn_boxes
from model.images import Header, decode_image, read_header

WIDTH, HEIGHT = 80, 48
BOX = (8, 16, 32, 24)  # no symmetry of the image maps it on itself; multiples of 8 for JPEG


def painted(orientation: int, kind: str) -> bytes:
    """A black image with a white rectangle at `BOX`, and an EXIF orientation."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    image.paste((255, 255, 255), BOX)
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = BytesIO()
    image.save(out, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


def white(image: Image.Image) -> np.ndarray:
    """Corners of what is white, in shares."""
    ys, xs = np.nonzero(np.asarray(image.convert("L")) > 128)
    corners = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    return np.array(corners) / [image.width, image.height, image.width, image.height]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_boxes_are_turned_as_pillow_turns_the_image(orientation: int, kind: str) -> None:
    data = painted(orientation, kind)
    header = read_header(data)
    assert header == Header(WIDTH, HEIGHT, orientation)
    shares = np.array([BOX]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    turned = turn_boxes(shares, header.orientation)
    with Image.open(BytesIO(data)) as image:
        transposed = ImageOps.exif_transpose(image)
    np.testing.assert_allclose(turned[0], white(transposed), atol=1e-9)
    upright = decode_image(data)
    np.testing.assert_allclose(turned[0], white(upright), atol=1e-9)
    assert upright.size == ((HEIGHT, WIDTH) if swaps_sides(orientation) else (WIDTH, HEIGHT))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_boxes_keep_their_corners_in_order_and_come_back(orientation: int) -> None:
    boxes = np.array([[0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 1.0, 1.0]])
    turned = turn_boxes(boxes, orientation)
    assert (turned[:, :2] < turned[:, 2:]).all()
    back = {6: 8, 8: 6}.get(orientation, orientation)
    np.testing.assert_allclose(turn_boxes(turned, back), boxes, atol=1e-12)


def test_an_unknown_orientation_turns_nothing() -> None:
    boxes = np.array([[0.1, 0.2, 0.4, 0.9]])
    np.testing.assert_array_equal(turn_boxes(boxes, 0), boxes)
    assert not swaps_sides(9)
    assert turn_boxes(np.zeros((0, 4)), 6).shape == (0, 4)
    with pytest.raises(ShapeError, match="boxes"):
        turn_boxes(np.zeros((2, 5)), 6)


def test_an_orientation_in_the_xmp_of_a_png_counts_too() -> None:
    text = PngInfo()
    text.add_itxt(
        "XML:com.adobe.xmp",
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>',
    )
    out = BytesIO()
    Image.new("RGB", (4, 6)).save(out, "PNG", pnginfo=text)
    assert read_header(out.getvalue()) == Header(4, 6, 6)
    assert decode_image(out.getvalue()).size == (6, 4)


def test_a_header_without_exif_and_without_an_image() -> None:
    out = BytesIO()
    Image.new("L", (5, 7)).save(out, "PNG")
    assert read_header(out.getvalue()) == Header(5, 7, 1)
    for data in (b"", b"no image"):
        with pytest.raises(UnreadableImageError, match="no image whose size"):
            read_header(data)
