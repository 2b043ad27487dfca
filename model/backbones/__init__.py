"""Frozen, pretrained networks: images in, feature vectors out, through ONNX Runtime in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.backbones.base import Backbone, BackboneSpec, prepare
from model.backbones.cache import exported
from model.backbones.efficientnet_lite import lite
from model.backbones.session import open_session
from model.errors import ShapeError
from model.registry import Registry

__all__ = ["BACKBONES", "Backbone", "backbone_hash", "feature_dim", "load_backbone"]

BACKBONES: Registry[BackboneSpec] = Registry("backbone")
for _spec in (
    lite(2, 0, size_px=260),  # the default, 2,560 values: 2 points more accurate, a third slower
    lite(2, size_px=260),
    lite(0, size_px=224),
):
    BACKBONES.register(_spec.name)(_spec)


def backbone_hash(name: str) -> str:
    """Key of the features a backbone gives: changes with its weights and its preprocessing."""
    return BACKBONES[name].hash


def feature_dim(name: str) -> int:
    """Length of a backbone's feature vector."""
    return BACKBONES[name].dim


def load_backbone(name: str, cache_dir: Path, *, threads: int = 1) -> Backbone:
    """Load a backbone, exporting it on the first use on this machine.

    Args:
        name: one of `BACKBONES`.
        cache_dir: where exported networks are kept, shared by any number of processes.
        threads: of one forward pass. More than ``cores // processes`` makes everybody slower.

    Raises:
        UnknownNameError: there is no backbone of that name.
        BackboneError: it could not be exported, or the export is not equal to the original.
    """
    spec = BACKBONES[name]
    return OnnxBackbone(spec, exported(spec, cache_dir), threads=threads)


class OnnxBackbone:
    """A backbone in an ONNX Runtime session on the CPU, fp32."""

    def __init__(self, spec: BackboneSpec, onnx_file: bytes, *, threads: int = 1) -> None:
        self._session = open_session(onnx_file, threads=threads)
        self._input: str = self._session.get_inputs()[0].name
        self._spec = spec
        self.name = spec.name
        self.dim = spec.dim
        self.size_px = spec.size_px
        self.hash = spec.hash

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """One RGB image to the network's input ``(3, size_px, size_px)``; safe in any thread."""
        return prepare(image, self._spec)

    def forward(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared inputs ``(B, 3, size_px, size_px)`` to features ``(B, dim)``.

        Raises:
            ShapeError: the inputs do not have that shape.
        """
        shape = (3, self.size_px, self.size_px)
        if inputs.ndim != 4 or inputs.shape[1:] != shape:
            raise ShapeError("inputs", expected=f"(B, {shape})", got=inputs.shape)
        if len(inputs) == 0:
            return np.zeros((0, self.dim), np.float32)
        features: NDArray[np.float32] = self._session.run(None, {self._input: inputs})[0]
        return features

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Images of any size to features ``(B, dim)``; nothing in gives ``(0, dim)``."""
        if not images:
            return np.zeros((0, self.dim), np.float32)
        return self.forward(np.stack([self.prepare(image) for image in images]))
