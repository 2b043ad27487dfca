"""What a backbone is: a description that costs nothing, and a session that computes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Part of every backbone's hash: raise it when `prepare` changes what it does to pixels.
PREPARATION = "pillow-draft squash bilinear 1"


class Backbone(Protocol):
    """Turns images into feature vectors."""

    name: str
    dim: int
    size_px: int
    hash: str

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """One RGB image to the network's input ``(3, size_px, size_px)``; safe in any thread."""

    def forward(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared inputs ``(B, 3, size_px, size_px)`` to features ``(B, dim)``."""

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Images of any size to features ``(B, dim)``; nothing in gives ``(0, dim)``."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Everything about a backbone that can be known without loading it.

    Attributes:
        name: what a user writes.
        dim: length of a feature vector.
        size_px: side of the square input.
        mean: grey level, of 0 to 255, that becomes 0 in the network's input.
        scale: grey levels that become 1.
        weights_sha256: of the weights' file; checked at export.
        export: writes the ONNX file to a path and returns the largest absolute difference to the
            eager network; runs in a process of its own and may import torch.
    """

    name: str
    dim: int
    size_px: int
    mean: float
    scale: float
    weights_sha256: str
    export: Callable[[Path], float]

    @property
    def hash(self) -> str:
        """12 hex digits of weights and preprocessing: the key of cached features."""
        facts = (self.weights_sha256, self.size_px, self.mean, self.scale, PREPARATION)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def prepare(image: Image.Image, spec: BackboneSpec) -> NDArray[np.float32]:
    """Squash an RGB image to the backbone's square and normalise it.

    Squashed rather than cropped, so that nothing an annotator sees is outside what the model sees.

    Returns:
        ``(3, size_px, size_px)`` float32, contiguous.
    """
    if image.mode != "RGB":
        image = image.convert("RGB")
    side = (spec.size_px, spec.size_px)
    if image.size != side:
        image = image.resize(side, Image.Resampling.BILINEAR)
    pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    pixels -= np.float32(spec.mean)
    pixels *= np.float32(1.0 / spec.scale)
    return pixels
