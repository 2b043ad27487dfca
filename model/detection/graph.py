"""A trained head as an ONNX graph: maps in, what its last layers read out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.backbones.onnx_graph import Graph, value_info
from model.detection.head import LastLayers
from model.detection.shape import Standard

if TYPE_CHECKING:
    from model.detection.network import HeadNetwork

EPSILON = 1e-5


def write_head(network: HeadNetwork, standard: Standard) -> bytes:
    """``level0 ... (1, channels, H, W) -> class0 ..., box0 ... (1, width, H, W)`` as ONNX.

    The standardisation of the maps is folded into the first convolutions.
    """
    graph = Graph()
    shape = network.shape
    levels = range(len(shape.strides))
    merged: list[str] = []
    above: str | None = None
    scales = graph.constant("double", np.array([1, 1, 2, 2], np.float32))
    for level in reversed(levels):
        mean, deviation = standard[level]
        conv: Any = network.lateral[level]
        weight = conv.weight.detach().double().numpy()[:, :, 0, 0] / deviation
        bias = conv.bias.detach().double().numpy() - weight @ mean
        x = _conv(graph, f"lateral{level}", f"level{level}", weight[:, :, None, None], bias)
        if above is not None:
            up = graph.add("Resize", [above, "", scales], mode="nearest")
            x = graph.add("Add", [x, up])
        above = x
        merged.insert(0, _block(graph, f"smooth{level}", x, network.smooth[level]))
    outputs = []
    for name, tower in (("class", network.class_tower), ("box", network.box_tower)):
        once = _once()
        for level in levels:
            x = merged[level]
            for depth, block in enumerate(tower):
                x = _block(graph, f"{name}{depth}", x, block, once)
            outputs.append(graph.add("Identity", [x]))
    model = graph.model(
        "head",
        [
            value_info(f"level{n}", 1, c, f"height{n}", f"width{n}")
            for n, c in enumerate(shape.channels)
        ],
        [
            value_info(out, 1, shape.width, f"height{n % len(levels)}", f"width{n % len(levels)}")
            for n, out in enumerate(outputs)
        ],
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def last_layers(network: HeadNetwork) -> LastLayers:
    """The layers that are not in the graph, as arrays."""

    def arrays(layer: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()

    scale = network.scale.detach().numpy().copy()
    return LastLayers(arrays(network.classify), arrays(network.regress), scale)


def _once() -> Callable[[Graph, str, NDArray[np.float32]], str]:
    """A weight that several nodes share is written once."""
    known: set[str] = set()

    def constant(graph: Graph, name: str, value: NDArray[np.float32]) -> str:
        if name not in known:
            known.add(name)
            graph.constant(name, value)
        return name

    return constant


def _conv(
    graph: Graph,
    name: str,
    x: str,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64] | None = None,
    *,
    groups: int = 1,
    constant: Callable[[Graph, str, NDArray[np.float32]], str] | None = None,
) -> str:
    constant = constant or _once()
    names = [constant(graph, f"{name}.weight", weight.astype(np.float32))]
    if bias is not None:
        names.append(constant(graph, f"{name}.bias", bias.astype(np.float32)))
    side = weight.shape[2]
    return graph.add(
        "Conv", [x, *names], kernel_shape=[side, side], pads=[side // 2] * 4, group=groups
    )


def _block(
    graph: Graph,
    name: str,
    x: str,
    block: Any,
    constant: Callable[[Graph, str, NDArray[np.float32]], str] | None = None,
) -> str:
    constant = constant or _once()
    depthwise = block.depthwise.weight.detach().double().numpy()
    pointwise = block.pointwise.weight.detach().double().numpy()[:, :, None, None]
    x = _conv(graph, f"{name}.depthwise", x, depthwise, groups=len(depthwise), constant=constant)
    x = _conv(graph, f"{name}.pointwise", x, pointwise, constant=constant)
    groups, width = block.norm.num_groups, block.norm.num_channels
    # Group norm is instance norm of the groups; then each channel has its gain and bias.
    grouped = constant(graph, f"{name}.grouped", np.array([0, groups, -1], np.int64))
    ones = constant(graph, f"{name}.ones", np.ones(groups, np.float32))
    zeros = constant(graph, f"{name}.zeros", np.zeros(groups, np.float32))
    y = graph.add("Reshape", [x, grouped])
    y = graph.add("InstanceNormalization", [y, ones, zeros], epsilon=EPSILON)
    y = graph.add("Reshape", [y, graph.add("Shape", [x])])
    gain = block.norm.weight.detach().numpy().reshape(1, width, 1, 1)
    bias = block.norm.bias.detach().numpy().reshape(1, width, 1, 1)
    y = graph.add("Mul", [y, constant(graph, f"{name}.gain", gain.astype(np.float32))])
    y = graph.add("Add", [y, constant(graph, f"{name}.shift", bias.astype(np.float32))])
    return graph.add("Relu", [y])
