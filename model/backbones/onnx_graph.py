"""ONNX graphs written node by node: in two seconds, without torch's exporter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 17


def value_info(name: str, *shape: int | str) -> Any:
    """An input or output of a graph; a text stands for a length that is not fixed."""
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


class Graph:
    """Collects the nodes and weights of a network, each under a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._count = 0
        self._low = self.constant("zero", np.zeros((), np.float32))
        self._high = self.constant("six", np.full((), 6.0, np.float32))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A weight under that name."""
        import onnx

        self.weights.append(onnx.numpy_helper.from_array(value, name))
        return name

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """One node; returns the name of its output."""
        import onnx

        self._count += 1
        out = f"{op.lower()}_{self._count}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [out], **attributes))
        return out

    def relu6(self, x: str) -> str:
        """Clipped to 0 to 6."""
        return self.add("Clip", [x, self._low, self._high])

    def conv_norm(self, x: str, conv: Any, norm: Any) -> str:
        """One convolution with the batch norm after it folded into its weights (in float64)."""
        gain = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).numpy()
        weight = conv.weight.double().numpy() * gain[:, None, None, None]
        bias = norm.bias.double().numpy() - norm.running_mean.double().numpy() * gain
        index = self._count + 1
        names = [
            self.constant(f"weight_{index}", weight.astype(np.float32)),
            self.constant(f"bias_{index}", bias.astype(np.float32)),
        ]
        left, right, top, bottom = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
        return self.add(
            "Conv",
            [x, *names],
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            group=conv.groups,
            pads=[top, left, bottom, right],
        )

    def model(self, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """The whole as a checked ONNX model."""
        import onnx

        model = onnx.helper.make_model(
            onnx.helper.make_graph(self.nodes, name, inputs, outputs, self.weights),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=8,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
