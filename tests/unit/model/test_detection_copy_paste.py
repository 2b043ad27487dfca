"""Copy-paste on cached maps: cells and boxes move together, and what is unclear is left unclear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.boxes import NOTHING, painted, random_drawing

from model.backbones.pyramid import STRIDES
from model.detection.copy_paste import Example, copy_paste
from model.detection.geometry import inside_matrix, iou_matrix
from model.detection.types import BoxLabels

LEVELS = range(len(STRIDES))


def scene(drawn: BoxLabels, *, seed: int = 0, rows: int = 6, columns: int = 8) -> Example:
    return Example(painted(drawn, seed=seed, rows=rows, columns=columns), drawn)


def canvas(example: Example) -> np.ndarray:
    rows, columns = example.maps.levels[-1].shape[1:]
    return np.array([columns, rows, columns, rows])


def changed_cells(before: Example, after: Example) -> np.ndarray:
    """Of the coarsest level."""
    pairs = zip(before.maps.levels, after.maps.levels, strict=True)
    masks = []
    for stride, (old, new) in zip(STRIDES, pairs, strict=True):
        times = STRIDES[-1] // stride
        differs = (old != new).any(axis=0)
        rows, columns = (n // times for n in differs.shape)
        masks.append(differs.reshape(rows, times, columns, times).any(axis=(1, 3)))
    return np.logical_or.reduce(masks)


@given(seed=st.integers(0, 2**16), rows=st.integers(3, 7), columns=st.integers(3, 7))
def test_the_object_brings_its_cells_and_its_box(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    source = scene(random_drawing(rng), seed=seed)
    into = scene(NOTHING, seed=seed + 1, rows=rows, columns=columns)
    found = copy_paste(into, source, LEVELS, rng)
    if found is into:
        return
    assert len(found.drawn) >= 1
    assert (np.clip(found.drawn.boxes, 0, 1) == found.drawn.boxes).all()
    there, from_there = found.drawn.boxes * canvas(found), source.drawn.boxes * canvas(source)
    sizes = from_there[:, 2:] - from_there[:, :2]
    # The object itself is there at its size, moved by whole cells.
    same = np.abs(there[:, None, 2:] - there[:, None, :2] - sizes).max(axis=2) < 1e-6
    shift = there[:, None, :2] - from_there[None, :, :2]
    whole = (np.abs(shift - shift.round()).max(axis=2) < 1e-6) & same
    assert whole.any()
    which, of = np.argwhere(whole)[0]
    assert found.drawn.labels[which] == source.drawn.labels[of]
    # So are its cells, on every level, and what lies outside is as it was.
    x, y = shift[which, of].round().astype(int)
    box = from_there[of]
    left, top = int(box[0]), int(box[1])
    right, bottom = int(np.ceil(box[2])), int(np.ceil(box[3]))
    for level, stride in enumerate(STRIDES):
        k = STRIDES[-1] // stride
        got = found.maps.levels[level][
            :, (top + y) * k : (bottom + y) * k, (left + x) * k : (right + x) * k
        ]
        wanted = source.maps.levels[level][:, top * k : bottom * k, left * k : right * k]
        assert (got == wanted).all()
    mask = np.zeros((rows, columns), bool)
    mask[top + y : bottom + y, left + x : right + x] = True
    assert not (changed_cells(into, found) & ~mask).any()


@given(seed=st.integers(0, 2**16))
def test_no_object_is_covered_in_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    into, source = scene(random_drawing(rng), seed=seed), scene(random_drawing(rng), seed=seed + 1)
    before = [level.copy() for level in into.maps.levels]
    found = copy_paste(into, source, LEVELS, rng)
    assert all((a == b).all() for a, b in zip(before, into.maps.levels, strict=True))
    if found is into:
        return
    touched = changed_cells(into, found)
    rows, columns = np.nonzero(touched)
    patch = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    covered = inside_matrix(into.drawn.boxes, patch / canvas(into))[:, 0]
    still = iou_matrix(into.drawn.boxes, found.drawn.boxes).max(axis=1, initial=0.0) > 1 - 1e-9
    assert still[covered < 0.29].all()
    assert not ((covered > 0.31) & (covered < 0.89)).any()
    assert len(found.drawn.boxes) == len(found.drawn.labels) == len(found.drawn.accepted)


def test_what_is_cut_or_unknown_in_the_source_is_unknown_there() -> None:
    # One cell is (1/8, 1/6). The first box fills two cells, the second reaches into them by half.
    first, second = [0.25, 1 / 3, 0.5, 2 / 3], [0.375, 1 / 3, 0.625, 2 / 3]
    inside = [0.25, 1 / 3, 0.3, 0.4]
    source = scene(BoxLabels.of([first, second], [0, 1], accepted=[True, False], ignored=[inside]))
    into = scene(NOTHING, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = copy_paste(into, source, LEVELS, rng)
        label = int(found.drawn.labels[0])
        assert found.drawn.labels.tolist() == [label]
        assert found.drawn.accepted.tolist() == [label == 0]
        box = found.drawn.boxes[0]
        other = found.drawn.ignored[0]
        half = inside_matrix(box[None], other[None])[0, 0]
        assert half == pytest.approx(0.5)
        assert len(found.drawn.ignored) == (2 if label == 0 else 1)


def test_without_an_object_or_a_place_the_image_stays() -> None:
    rng = np.random.default_rng(0)
    everywhere = scene(BoxLabels.of([[0.0, 0.0, 1.0, 1.0]], [0]))
    small = scene(NOTHING, rows=3, columns=3)
    assert copy_paste(small, everywhere, LEVELS, rng) is small
    assert copy_paste(small, scene(NOTHING), LEVELS, rng) is small
    # Wherever it is put, it would cover the half of an object.
    large = scene(BoxLabels.of([[0.0, 0.0, 1.0, 1.0]], [0]))
    wide = scene(BoxLabels.of([[0.0, 0.0, 0.5, 1.0]], [1]), seed=1)
    assert copy_paste(large, wide, LEVELS, rng) is large
