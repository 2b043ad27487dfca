"""ONNX Runtime on the CPU, in fp32: the one way graphs are opened."""

from __future__ import annotations

import os
from typing import Any

# ONNX Runtime's Linux wheel reports usage to its maker unless told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def open_session(graph: bytes, *, threads: int = 1) -> Any:
    """A session of a graph.

    Args:
        graph: the ONNX file.
        threads: of one pass.
    """
    import onnxruntime  # 0.25 s and 49 MB that only those who compute need to pay

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
