"""A trained head as an ONNX graph: maps in, what its last layers read out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.backbones.onnx_graph import Graph, value_info
from model.detection.head import LastLayers
from model.detection.shape import Standard

if TYPE_CHECKING:
    from model.detection.network import HeadNetwork

EPSILON = 1e-5


def write_head(networks: Sequence[HeadNetwork], standard: Standard) -> bytes:
    """``level0 ... (1, channels, H, W) -> class0 ..., box0 ... (1, M * width, H, W)`` as ONNX.

    The standardisation of the maps is folded into the first convolutions.

    Args:
        networks: M of one shape; what they read out lies side by side.
        standard: see `model.detection.training.standard_of`.
    """
    graph = Graph()
    shape = networks[0].shape
    levels = len(shape.strides)
    finer = 1 if shape.detail else 0
    maps = [f"level{n}" for n in range(len(shape.inputs))]
    for _ in range(shape.coarser):
        # Of a column or row left over the mean is that of the cells there are.
        half = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
        maps.append(graph.add("AveragePool", maps[-1:], **half))
    standard = (*standard, *standard[-1:] * shape.coarser)
    up = _twice_as_fine(graph)
    members = [
        _member(graph, f"member{n}.", network, maps, standard, up)
        for n, network in enumerate(networks)
    ]
    outputs = [graph.add("Concat", list(same), axis=1) for same in zip(*members, strict=True)]
    model = graph.model(
        "head",
        [
            value_info(f"level{n}", 1, c, f"height{n}", f"width{n}")
            for n, c in enumerate(shape.input_channels)
        ],
        [
            value_info(out, 1, len(networks) * shape.width, f"height{level}", f"width{level}")
            for out, level in zip(outputs, 2 * list(range(finer, finer + levels)), strict=True)
        ],
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _twice_as_fine(graph: Graph) -> Callable[[str, str], str]:
    """``(x, like)`` to x with cells of half the side, as many of them as `like` has."""
    scales = graph.constant("double", np.array([1, 1, 2, 2], np.float32))
    plane = graph.constant("plane", np.array([2, 3], np.int64))
    first = graph.constant("first", np.zeros(2, np.int64))

    def up(x: str, like: str) -> str:
        doubled = graph.add("Resize", [x, "", scales], mode="nearest")
        size = graph.add("Shape", [like], start=2, end=4)
        return graph.add("Slice", [doubled, first, size, plane])

    return up


def _member(
    graph: Graph,
    member: str,
    network: HeadNetwork,
    maps: Sequence[str],
    standard: Standard,
    up: Callable[[str, str], str],
) -> list[str]:
    """What one network reads out: for classes on every level, then for boxes."""
    levels = range(len(network.shape.strides))
    finer = len(maps) - len(levels)
    merged: list[str] = []
    above: str | None = None
    for level in reversed(levels):
        name, given = f"{member}lateral{level}", level + finer
        x = _reading(graph, name, maps[given], network.lateral[level], standard[given])
        if above is not None:
            x = graph.add("Add", [x, up(above, x)])
        above = x
        merged.insert(0, _block(graph, f"{member}smooth{level}", x, network.smooth[level]))
    for_box = list(merged)
    if network.detail is not None:
        detail = _reading(graph, f"{member}detail", maps[0], network.detail, standard[0])
        for_box[0] = graph.add("Add", [merged[0], detail])
    outputs = []
    for name, tower, read in (
        ("class", network.class_tower, merged),
        ("box", network.box_tower, for_box),
    ):
        once = _once()
        for level in levels:
            x = read[level]
            for depth, block in enumerate(tower):
                x = _block(graph, f"{member}{name}{depth}", x, block, once)
            outputs.append(x)
    return outputs


def last_layers(networks: Sequence[HeadNetwork]) -> LastLayers:
    """The layers that are not in the graph, as arrays.

    Of several networks the mean of what they say: of logits and of logs of sides, which is linear
    in what they read out.
    """
    count = len(networks)

    def mean(values: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.asarray(np.mean(values, axis=0, dtype=np.float64), np.float32)

    def arrays(layers: list[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = np.concatenate([layer.weight.detach().numpy().T for layer in layers]) / count
        # In the order in which it is read back: products then have the same last digits.
        stored = np.ascontiguousarray(weight, np.float32)
        return stored, mean([layer.bias.detach().numpy() for layer in layers])

    return LastLayers(
        arrays([network.classify for network in networks]),
        arrays([network.regress for network in networks]),
        mean([network.scale.detach().numpy() for network in networks]),
    )


def _reading(
    graph: Graph, name: str, x: str, conv: Any, standard: tuple[NDArray[Any], NDArray[Any]]
) -> str:
    """A convolution that reads a map as it is, and standardises it by the way."""
    mean, deviation = standard
    weight = conv.weight.detach().double().numpy() / deviation[:, None, None]
    bias = conv.bias.detach().double().numpy() - weight.sum(axis=(2, 3)) @ mean
    (side, _), (stride, _) = conv.kernel_size, conv.stride
    names = [
        graph.constant(f"{name}.weight", weight.astype(np.float32)),
        graph.constant(f"{name}.bias", bias.astype(np.float32)),
    ]
    return graph.add("Conv", [x, *names], kernel_shape=[side, side], strides=[stride, stride])


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
    *,
    groups: int = 1,
    constant: Callable[[Graph, str, NDArray[np.float32]], str] | None = None,
) -> str:
    constant = constant or _once()
    known = constant(graph, f"{name}.weight", weight.astype(np.float32))
    side = weight.shape[2]
    return graph.add(
        "Conv", [x, known], kernel_shape=[side, side], pads=[side // 2] * 4, group=groups
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
