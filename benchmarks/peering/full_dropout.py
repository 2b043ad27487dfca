"""Monte-Carlo dropout through a whole EfficientNet-Lite2 in eager torch: what it would cost.

A worker as in `worker`, in the project's own environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.backbones.efficientnet_lite import load_eager
from peering.worker import serve

PASSES = 20
RATE = 0.1
SIZE_PX = 260


def main() -> None:
    torch.set_num_threads(1)
    network = load_eager(2, SIZE_PX)
    with_dropout = load_eager(2, SIZE_PX)
    for block in with_dropout._blocks:
        block.register_forward_hook(lambda _block, _inputs, out: _drop(out))
    serve({"eager": passes(network, 1), "full dropout": passes(with_dropout, PASSES)})


def _drop(x: Any) -> Any:
    """Leave out whole channels, also while the network is otherwise in evaluation mode."""
    return torch.nn.functional.dropout2d(x, RATE, training=True)


def passes(network: Any, count: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Features of `count` passes, ``(B, count, 1280)``."""

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        pixels = torch.from_numpy(arrays["pixels"])
        with torch.inference_mode():
            each = [network.extract_features(pixels).mean(dim=(2, 3)) for _ in range(count)]
        return {"features": np.stack([part.numpy() for part in each], axis=1)}

    return run


if __name__ == "__main__":
    main()
