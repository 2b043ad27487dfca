"""What people and models answer, as one text an image: what the database stores and compares.

With one answer an image it is the class as results spell it. With several it is the JSON list of
the classes in alphabetical order, so that equal sets are equal texts, and ``[]`` is the answer that
none of them applies. Where boxes are drawn it is the drawing, and a version's text is its regions;
see `boxes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.edges.labels import boxes
from backend.edges.labels.config import TaskSpec
from backend.edges.labels.merge import majority, majority_of_each

LEAST_KEPT = 0.01  # of hundreds of classes an image has a few; the others would fill the database
LEAST_SHOWN = 0.05  # probabilities below are left out of a result's notes
MOST_SHOWN = 10


def encode(chosen: Iterable[str]) -> str:
    """A set of classes as its text.

    Example:
        >>> encode(["dog", "cat", "dog"])
        '["cat", "dog"]'
    """
    return json.dumps(sorted(set(chosen)), ensure_ascii=False)


def decode(text: str) -> tuple[str, ...] | None:
    """The classes of a set's text; None when it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return None
    return tuple(found)


def is_known(spec: TaskSpec, text: str | None) -> bool:
    """Whether a text answers the question of `spec`, in classes it has now."""
    if text is None:
        return False
    if spec.boxes:
        return boxes.is_drawing(spec, text)
    if not spec.multiple:
        return text in spec.classes
    chosen = decode(text)
    return chosen is not None and set(chosen) <= set(spec.classes)


def is_prediction(spec: TaskSpec, text: str | None) -> bool:
    """Whether a version may say this text, in classes `spec` has now; with boxes it is its own."""
    if spec.boxes:
        return text is not None and boxes.is_prediction(spec, text)
    return is_known(spec, text)


def readable(spec: TaskSpec | None, text: str | None) -> str | list[str] | dict[str, int] | None:
    """What people and JSON are shown.

    The class, or the list of classes in the config's order; with boxes how many objects there are
    of each class, be they drawn or predicted.
    """
    if spec is None or text is None:
        return text
    if spec.boxes:
        objects = _objects(text)
        return None if objects is None else {n: objects.count(n) for n in in_order(spec, objects)}
    if not spec.multiple:
        return text
    chosen = decode(text)
    return None if chosen is None else in_order(spec, chosen)


def in_order(spec: TaskSpec, chosen: Iterable[str]) -> list[str]:
    """Those of the classes of `spec` that are chosen, in its order."""
    wanted = set(chosen)
    return [name for name in spec.classes if name in wanted]


def merged(spec: TaskSpec, texts: Sequence[str]) -> str | None:
    """One answer from those of several annotators, oldest first; None without any.

    With several classes an image every class is voted on, see `majority_of_each`; with boxes every
    object, see `boxes.agreed`.
    """
    if spec.boxes:
        drawings = [drawing for text in texts if (drawing := boxes.decode(text)) is not None]
        known = [boxes.in_classes(spec.classes, drawing) for drawing in drawings]
        return boxes.encode(boxes.agreed(known)) if known else None
    if not spec.multiple:
        return majority(texts)
    sets = [set(chosen) for text in texts if (chosen := decode(text)) is not None]
    if not sets:
        return None
    agreed = majority_of_each(sets)
    # Where an answer is required, none at all cannot be what they agree on.
    return encode(agreed if agreed or not spec.required else sets[-1])


def to_labels(
    spec: TaskSpec, texts: Sequence[str], classes: Sequence[str]
) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Answers as the model takes them: ``(N,)`` int64, or ``(N, C)`` bool with several a image."""
    code = {name: number for number, name in enumerate(classes)}
    if not spec.multiple:
        return np.array([code[text] for text in texts], np.int64)
    labels = np.zeros((len(texts), len(classes)), bool)
    for row, text in enumerate(texts):
        labels[row, [code[name] for name in decode(text) or () if name in code]] = True
    return labels


def counts(spec: TaskSpec, texts: Iterable[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """``(C,)`` how many answers have each class; those that have other classes do not count.

    With boxes it is how many objects have it.
    """
    code = {name: number for number, name in enumerate(classes)}
    found = np.zeros(len(classes), np.int64)
    for text in texts:
        for name in _names(spec, text):
            if name in code:
                found[code[name]] += 1
    return found


def _names(spec: TaskSpec, text: str) -> Sequence[str]:
    if spec.boxes:
        return _objects(text) or ()
    return (decode(text) or ()) if spec.multiple else (text,)


def _objects(text: str) -> list[str] | None:
    """The class of each object that is drawn or predicted; None for other texts."""
    drawing = boxes.decode(text)
    if drawing is not None:
        return [drawn.label for drawn in drawing.boxes]
    said = boxes.decode_prediction(text)
    return None if said is None else [region.label for region in said.regions]


def of_prediction(
    spec: TaskSpec, classes: Sequence[str], label: np.int64 | NDArray[np.bool_]
) -> str | None:
    """The text of one row of `Predictions.label`; None when the config asks something else now."""
    several = np.ndim(label) == 1
    if several != spec.multiple:
        return None
    text = (
        encode(name for name, yes in zip(classes, np.atleast_1d(label), strict=True) if yes)
        if several
        else classes[int(label)]
    )
    return text if is_known(spec, text) else None


def probabilities(
    spec: TaskSpec, classes: Sequence[str], probs: NDArray[np.float64]
) -> dict[str, float] | None:
    """Calibrated probabilities of one image's classes, from 0.01; None where it has one anyway."""
    if not spec.multiple:
        return None
    kept = zip(classes, probs.tolist(), strict=True)
    return {name: round(p, 4) for name, p in kept if p >= LEAST_KEPT}


def notes(probs: Mapping[str, float] | None) -> dict[str, Any]:
    """The part of a region that shows each class's probability, most probable first."""
    if not probs:
        return {}
    shown = sorted(((p, name) for name, p in probs.items() if p >= LEAST_SHOWN), reverse=True)
    return {"meta": {"text": [f"{name} {p:.2f}" for p, name in shown[:MOST_SHOWN]]}}
