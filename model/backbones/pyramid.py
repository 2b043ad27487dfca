"""Maps of a frozen network at strides 8, 16 and 32: what heads for boxes and masks read.

Images keep their shape, unlike those of `BACKBONES`: each is scaled to about 480 x 640 pixels in
area (large pyramids: twice as many), both sides multiples of 32, so that the maps of a wide image
are wide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.backbones.cache import exported
from model.backbones.efficientnet_lite import MEAN, SCALE, WEIGHTS_SHA256, load_eager, write_blocks
from model.backbones.onnx_graph import Graph, value_info
from model.backbones.session import open_session
from model.errors import ShapeError
from model.registry import Registry

STRIDES = (8, 16, 32)
AREA_PX = 480 * 640
SIDES_PX = (64, 2048)  # of an extremely wide or high image, at `AREA_PX`
# Part of the hash: raise it when `prepare` changes what it does to pixels.
PREPARATION = "pillow-draft area squash-to-32 bilinear 1"
LARGE = "-large"  # twice the pixels: for objects that are small in large images
DEFAULT_PYRAMID = "efficientnet-lite0-pyramid"

Maps = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, kw_only=True)
class PyramidSpec:
    """Everything about a pyramid that can be known without loading it.

    Attributes:
        name: what a user writes.
        channels: of the maps, finest first.
        weights_sha256: of the weights' file; checked at export.
        export: as of `BackboneSpec`.
        area: pixels of the canvas that an image is scaled to.
        network: name of the pyramid whose export it reads, where that is another one: an image's
            size is no part of the graph.
    """

    name: str
    channels: tuple[int, ...]
    weights_sha256: str
    export: Callable[[Path], float]
    area: int = AREA_PX
    network: str | None = None

    @property
    def hash(self) -> str:
        """12 hex digits of weights and preprocessing: the key of cached maps."""
        facts = (self.weights_sha256, self.area, MEAN, SCALE, PREPARATION)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]

    @property
    def dim(self) -> int:
        """Length of the vector that `pooled` gives."""
        return sum(self.channels)


def canvas(width: int, height: int, area: int = AREA_PX) -> tuple[int, int]:
    """Width and height in pixels at which an image of that size is looked at.

    Args:
        width: in pixels.
        height: in pixels.
        area: see `PyramidSpec`.

    Example:
        >>> canvas(640, 480), canvas(4000, 3000), canvas(100, 300)
        ((640, 480), (640, 480), (320, 960))
    """
    scale = math.sqrt(area / (width * height))
    coarsest, (low, high) = STRIDES[-1], SIDES_PX
    high = round(high * math.sqrt(area / AREA_PX))

    def side(length: int) -> int:
        return round(min(max(length * scale, low), high) / coarsest) * coarsest

    return side(width), side(height)


def pooled(maps: Maps) -> NDArray[np.float32]:
    """``(D,)`` means of all maps of one image: what is typical and diverse is judged by."""
    return np.concatenate([level.mean(axis=(1, 2)) for level in maps]).astype(np.float32)


class Pyramid:
    """A network's maps from an ONNX Runtime session on the CPU, fp32."""

    def __init__(self, spec: PyramidSpec, onnx_file: bytes, *, threads: int = 1) -> None:
        self._session = open_session(onnx_file, threads=threads)
        self.name = spec.name
        self.hash = spec.hash
        self.channels = spec.channels
        self.dim = spec.dim
        self._area = spec.area

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels at which it looks at an image of that size."""
        return canvas(width, height, self._area)

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """One upright image to the network's input ``(3, H, W)``; safe in any thread."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        size = self.canvas(*image.size)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels -= np.float32(MEAN)
        pixels *= np.float32(1.0 / SCALE)
        return pixels

    def forward(self, pixels: NDArray[np.float32]) -> Maps:
        """A prepared image ``(3, H, W)`` to its maps ``(channels, H / stride, W / stride)``.

        Raises:
            ShapeError: the sides are no multiples of 32.
        """
        coarsest = STRIDES[-1]
        if pixels.ndim != 3 or len(pixels) != 3 or any(n % coarsest for n in pixels.shape[1:]):
            expected = f"(3, H, W), H and W multiples of {coarsest}"
            raise ShapeError("pixels", expected=expected, got=pixels.shape)
        return tuple(level[0] for level in self._session.run(None, {"pixels": pixels[None]}))

    def maps(self, image: Image.Image) -> Maps:
        """An upright image of any size to its maps."""
        return self.forward(self.prepare(image))


def _lite_pyramid(
    version: int, channels: tuple[int, ...], *, size: str = "", times: int = 1
) -> PyramidSpec:
    name = f"efficientnet-lite{version}-pyramid"
    return PyramidSpec(
        name=name + size,
        network=name if size else None,
        channels=channels,
        weights_sha256=WEIGHTS_SHA256[version],
        export=partial(export, version),
        area=times * AREA_PX,
    )


def export(version: int, path: Path) -> float:
    """Write ``pixels (1, 3, H, W) -> maps`` as ONNX, for all H and W that are multiples of 32.

    The maps are the outputs of the last block before each change of stride.

    Returns:
        The largest difference between ONNX Runtime and the eager network, in standard deviations of
        the map where these are above 1: the maps have no activation and reach far.
    """
    import torch

    # Padding differs between even and odd sides only, so one export serves every multiple of 32.
    network = load_eager(version, 512)
    taps = taps_of(network)
    graph = Graph()
    with torch.no_grad():
        outputs = write_blocks(graph, network)
    channels = [network._blocks[tap]._block_args.output_filters for tap in taps]
    model = graph.model(
        "pyramid",
        [value_info("pixels", 1, 3, "height", "width")],
        [
            value_info(outputs[tap], 1, count, f"height{level}", f"width{level}")
            for level, (tap, count) in enumerate(zip(taps, channels, strict=True))
        ],
    )
    path.write_bytes(model.SerializeToString(deterministic=True))
    return max(_difference(path, version, size) for size in ((128, 192), (256, 160)))


def taps_of(network: object) -> list[int]:
    """Numbers of the last blocks at strides 8, 16 and 32."""
    stride, at = 2, []
    for block in network._blocks:  # type: ignore[attr-defined]
        step = block._block_args.stride
        stride *= step if isinstance(step, int) else step[0]
        at.append(stride)
    return [max(n for n, s in enumerate(at) if s == wanted) for wanted in STRIDES]


def _difference(path: Path, version: int, size: tuple[int, int]) -> float:
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    network = load_eager(version, size)
    # Smooth random images: unlike white noise they drive the features over their usual range.
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"pixels": pixels.numpy()})
    taps = taps_of(network)
    with torch.no_grad():
        x = torch.clamp(network._bn0(network._conv_stem(pixels)), 0.0, 6.0)
        expected = []
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number in taps:
                expected.append(x.numpy())
    return max(
        float(np.abs(a - b).max() / max(1.0, b.std())) for a, b in zip(found, expected, strict=True)
    )


PYRAMIDS: Registry[PyramidSpec] = Registry("pyramid")
for _spec in (
    _lite_pyramid(0, (40, 112, 320)),
    _lite_pyramid(0, (40, 112, 320), size=LARGE, times=2),
    _lite_pyramid(2, (48, 120, 352)),
):
    PYRAMIDS.register(_spec.name)(_spec)


def load_pyramid(name: str, cache_dir: Path, *, threads: int = 1) -> Pyramid:
    """Load a pyramid, exporting it on the first use on this machine.

    Args:
        name: one of `PYRAMIDS`.
        cache_dir: see `model.backbones.load_backbone`.
        threads: of one forward pass.

    Raises:
        UnknownNameError: there is none of that name.
        BackboneError: it could not be exported, or the export is not equal to the original.
    """
    spec = PYRAMIDS[name]
    return Pyramid(spec, exported(PYRAMIDS[spec.network or name], cache_dir), threads=threads)
