"""Boxes that people draw and versions predict: as texts, read, merged, written and checked."""

from __future__ import annotations

from backend.edges.labels.boxes.agreement import agreed
from backend.edges.labels.boxes.drawing import (
    Drawing,
    Drawn,
    decode,
    encode,
    in_classes,
    is_drawing,
    of_box_labels,
    to_box_labels,
)
from backend.edges.labels.boxes.geometry import Box
from backend.edges.labels.boxes.prediction import (
    Prediction,
    Region,
    decode_prediction,
    encode_prediction,
    from_detections,
    is_prediction,
)
from backend.edges.labels.boxes.reading import read_result
from backend.edges.labels.boxes.regions import (
    box_result,
    check_box_region,
    drawn_result,
    id_problems,
)

__all__ = [
    "Box",
    "Drawing",
    "Drawn",
    "Prediction",
    "Region",
    "agreed",
    "box_result",
    "check_box_region",
    "decode",
    "decode_prediction",
    "drawn_result",
    "encode",
    "encode_prediction",
    "from_detections",
    "id_problems",
    "in_classes",
    "is_drawing",
    "is_prediction",
    "of_box_labels",
    "read_result",
    "to_box_labels",
]
