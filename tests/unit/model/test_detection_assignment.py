"""Task-aligned assignment, against plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs doubtless[train]")

from support.boxes import head_shape  # noqa: E402

from model.detection.assignment import (  # noqa: E402
    IOU_POWER,
    LEAST_TARGET,
    TOP,
    Assigned,
    Batch,
    assign,
    box_iou,
)
from model.detection.training import generalised_iou  # noqa: E402

Box = Sequence[float]
SEEDS = st.integers(0, 2**32 - 1)


def area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def slow_iou(a: Box, b: Box) -> float:
    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return shared / (area(a) + area(b) - shared)


def slow_giou(a: Box, b: Box) -> float:
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    iou = slow_iou(a, b)
    union = (area(a) + area(b)) / (1 + iou)
    return iou - (hull - union) / hull


def boxes_within(rng: np.random.Generator, count: int, width: float, height: float) -> np.ndarray:
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    corners[:, 2:] += 0.01
    return np.clip(corners, 0, 1) * [width, height, width, height]


@given(SEEDS)
def test_overlaps_equal_the_slow_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = boxes_within(rng, 8, 100, 60), boxes_within(rng, 8, 100, 60)
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    one, two = torch.from_numpy(a), torch.from_numpy(b)
    np.testing.assert_allclose(box_iou(one, two), [slow_iou(x, y) for x, y in pairs], atol=1e-9)
    found = generalised_iou(one, two)
    np.testing.assert_allclose(found, [slow_giou(x, y) for x, y in pairs], atol=1e-9)
    assert (found > -1).all()
    assert (found <= box_iou(one, two) + 1e-12).all()


def test_overlaps_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2]] * 4)
    b = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [8, 0, 10, 2]])
    np.testing.assert_allclose(box_iou(a, b), [1, 1 / 3, 0, 0], atol=1e-6)
    # Apart, what counts is how much of the hull is empty: 12 of 20.
    np.testing.assert_allclose(generalised_iou(a, b), [1, 1 / 3, 0, -0.6], atol=1e-6)
    none = torch.zeros(1, 4)
    assert torch.isfinite(box_iou(none, none)).all()
    assert torch.isfinite(generalised_iou(none, none)).all()


def slow_assign(
    probs, boxes, grid, batch: Batch
) -> dict[tuple[int, int], tuple[int, float, float]]:
    """(image, location) -> box, its metric and IoU; what TOOD says, without a prior."""
    chosen: dict[tuple[int, int], tuple[int, float, float]] = {}
    finest = min(row[2] for row in grid)
    for n, (box, label, image) in enumerate(
        zip(batch.boxes.tolist(), batch.labels.tolist(), batch.image.tolist(), strict=True)
    ):
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        half_x = max((box[2] - box[0]) / 2, finest / 2) + 1e-3
        half_y = max((box[3] - box[1]) / 2, finest / 2) + 1e-3
        candidates = []
        for at, (x, y, _) in enumerate(grid):
            if abs(x - cx) <= half_x and abs(y - cy) <= half_y:
                iou = slow_iou(boxes[image][at], box)
                candidates.append((probs[image][at][label] * iou**IOU_POWER, iou, at))
        for metric, iou, at in sorted(candidates, reverse=True)[:TOP]:
            if metric > chosen.get((image, at), (0, -1.0, 0))[1]:
                chosen[image, at] = (n, metric, iou)
    return chosen


def problem(seed: int, *, images: int = 2, count: int = 6, coarser: int = 0) -> tuple:
    """Predictions that overlap everything a little, so that no tie is left to the prior."""
    rng = np.random.default_rng(seed)
    shape = head_shape(3, n_classes=3, coarser=coarser)
    height, width = 64, 96
    grid = shape.grid(height, width)
    truth = boxes_within(rng, count, width, height)
    probs = rng.uniform(0.2, 0.9, (images, len(grid), 3))
    predicted = np.empty((images, len(grid), 4))
    low, high = rng.uniform(0, 5, (2, images, len(grid), 2))
    predicted[..., :2], predicted[..., 2:] = low, [width, height] - high
    some = rng.random((images, len(grid))) < 0.5
    nearest = truth[rng.integers(count, size=some.sum())]
    predicted[some] = nearest + rng.uniform(-3, 3, nearest.shape)
    predicted[..., 2:] = np.maximum(predicted[..., 2:], predicted[..., :2] + 1)
    batch = Batch(
        boxes=torch.from_numpy(truth),
        labels=torch.from_numpy(rng.integers(0, 3, count)),
        image=torch.from_numpy(rng.integers(0, images, count)),
        accepted=torch.zeros(count, dtype=torch.bool),
        ignored=torch.zeros(0, 4),
        ignored_image=torch.zeros(0, dtype=torch.long),
        valid=torch.ones(images, len(grid), dtype=torch.bool),
    )
    return (
        torch.from_numpy(probs),
        torch.from_numpy(predicted),
        torch.from_numpy(grid).double(),
        batch,
    )


def run(probs, predicted, grid, batch: Batch) -> Assigned:
    return assign(probs, predicted, grid, batch)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_paper_says(seed: int) -> None:
    probs, predicted, grid, batch = problem(seed)
    found = run(probs, predicted, grid, batch)
    expected = slow_assign(probs.tolist(), predicted.tolist(), grid.tolist(), batch)
    # What the prior alone decides is not in the paper.
    sure = {key: v for key, v in expected.items() if v[1] > 1e-5}
    at = [divmod(n, len(grid)) for n in found.location.tolist()]
    got = dict(zip(at, zip(found.box.tolist(), found.target.tolist(), strict=True), strict=True))
    assert len(got) == len(at)  # a location answers for one box
    assert {key: box for key, (box, _) in got.items() if key in sure} == {
        key: v[0] for key, v in sure.items()
    }
    assert len(sure) > 5
    most: dict[int, float] = {}
    best: dict[int, float] = {}
    for box, metric, iou in expected.values():
        most[box] = max(most.get(box, 0.0), metric)
        best[box] = max(best.get(box, 0.0), iou)
    for key, (box, metric, _) in sure.items():
        target = min(max(metric / most[box] * best[box], LEAST_TARGET), 1.0)
        assert got[key][1] == pytest.approx(target, abs=1e-3)


@given(SEEDS)
def test_every_target_is_one_and_none_on_padding(seed: int) -> None:
    """Boxes lie on the image, so their locations do; even those that are thinner than a stride."""
    rng = np.random.default_rng(seed)
    probs, predicted, grid, batch = problem(seed % 1000, coarser=seed % 3)
    width, height = 64, 32  # of what is image; the rest of the canvas is padding
    count = len(batch.boxes)
    corner = rng.uniform(0, 0.999, (count, 2)) * [width, height]
    side = rng.choice([0.01, 1.0, 5.0, 40.0], (count, 2))
    truth = np.concatenate([corner, np.minimum(corner + side, [width, height])], 1)
    valid = ((grid[:, 0] < width) & (grid[:, 1] < height)).expand(2, -1)
    batch = Batch(**{**vars(batch), "boxes": torch.from_numpy(truth), "valid": valid})
    found = run(probs, predicted, grid, batch)
    assert valid.reshape(-1)[found.location].all()
    assert (found.unknown == ~valid.reshape(-1)).all()
    assert ((found.target >= LEAST_TARGET) & (found.target <= 1)).all()
    assert (found.location // len(grid) == batch.image[found.box]).all()
    assert max(np.bincount(found.box.numpy(), minlength=1)) <= TOP
    assert len(found.location.unique()) == len(found.location)


def test_a_centre_on_the_edge_of_the_canvas_answers_for_no_box() -> None:
    """Three rows of stride 32 have two of stride 64, the second around the lower edge."""
    grid = torch.from_numpy(head_shape(1, coarser=1).grid(96, 64)).double()
    valid = ((grid[:, 0] < 64) & (grid[:, 1] < 96)).expand(1, -1)
    assert not valid.all()
    box = torch.tensor([[0.0, 70.0, 64.0, 96.0]]).double()
    truth = Batch(
        boxes=box,
        labels=torch.zeros(1, dtype=torch.long),
        image=torch.zeros(1, dtype=torch.long),
        accepted=torch.zeros(1, dtype=torch.bool),
        ignored=torch.zeros(0, 4).double(),
        ignored_image=torch.zeros(0, dtype=torch.long),
        valid=valid,
    )
    probs = torch.ones(1, len(grid), 1).double()
    found = assign(probs, box.expand(1, len(grid), 4), grid, truth)
    assert len(found.location)
    assert valid[0, found.location].all()


@given(st.floats(0, 0.999), st.floats(0, 0.999), st.floats(1e-3, 0.1), st.floats(1e-3, 1.0))
def test_the_thinnest_box_has_a_location(x: float, y: float, w: float, h: float) -> None:
    probs, predicted, grid, batch = problem(0)
    box = [x * 96, y * 64, min((x + w) * 96, 96), min((y + h) * 64, 64)]
    one = {"boxes": torch.tensor([box]).double(), "labels": batch.labels[:1]}
    alone = {"image": batch.image[:1], "accepted": batch.accepted[:1]}
    predicted = predicted * 0 + 1e4  # nothing overlaps it
    found = run(probs, predicted, grid, Batch(**{**vars(batch), **one, **alone}))
    assert 1 <= len(found.location) <= TOP
    places = grid[found.location % len(grid)]
    centre = torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    reach = torch.tensor([max((box[2] - box[0]) / 2, 4), max((box[3] - box[1]) / 2, 4)]) + 2e-3
    assert ((places[:, :2] - centre).abs() <= reach).all()


def test_before_anything_overlaps_the_middle_of_the_fitting_level_answers() -> None:
    probs, predicted, grid, batch = problem(0)
    box = torch.tensor([[16.0, 0.0, 80.0, 64.0]]).double()
    one = {"boxes": box, "labels": batch.labels[:1]}
    alone = {"image": batch.image[:1], "accepted": batch.accepted[:1]}
    far = predicted * 0 + 1e4
    found = run(probs, far, grid, Batch(**{**vars(batch), **one, **alone}))
    places = grid[found.location % len(grid)]
    strides = places[:, 2].tolist()
    assert strides.count(16.0) >= len(strides) / 2  # 64 px are four of its cells
    assert ((places[:, :2] - torch.tensor([48.0, 32.0])).abs() <= 32).all()


def test_ignored_areas_are_unknown_but_for_the_objects_in_them() -> None:
    probs, predicted, grid, batch = problem(3)
    areas = torch.tensor([[8.0, 8.0, 40.0, 30.0], [0.0, 0.0, 96.0, 10.0]]).double()
    given_areas = {"ignored": areas, "ignored_image": torch.tensor([1, 0])}
    found = run(probs, predicted, grid, Batch(**{**vars(batch), **given_areas}))
    plain = run(probs, predicted, grid, batch)
    assert not plain.unknown.any()
    for name in ("location", "box", "target"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    for n, unknown in enumerate(found.unknown.tolist()):
        image, at = divmod(n, len(grid))
        x, y, _ = grid[at].tolist()
        a = areas[1 - image].tolist()
        assert unknown == (a[0] <= x <= a[2] and a[1] <= y <= a[3])


def test_without_a_box_nothing_is_assigned() -> None:
    probs, predicted, grid, batch = problem(0)
    none = {name: getattr(batch, name)[:0] for name in ("boxes", "labels", "image", "accepted")}
    found = run(probs, predicted, grid, Batch(**{**vars(batch), **none}))
    assert len(found.location) == len(found.box) == len(found.target) == 0
    assert found.unknown.shape == (2 * len(grid),)
    assert not found.unknown.any()


def test_the_better_box_gets_a_location_that_two_want() -> None:
    probs, predicted, grid, batch = problem(0)
    two = torch.tensor([[16.0, 16, 56, 56], [16.0, 16, 48, 48]]).double()
    same = {"labels": torch.tensor([1, 1]), "image": torch.tensor([0, 0])}
    more = {"boxes": two, "accepted": torch.zeros(2, dtype=torch.bool)}
    predicted = two[1].expand(predicted.shape).clone()
    probs = probs * 0 + 0.5
    found = run(probs, predicted, grid, Batch(**{**vars(batch), **same, **more}))
    assert (found.box == 1).sum() == TOP
    best = found.target[found.box == 1]
    assert math.isclose(best.max(), 1.0, abs_tol=1e-6)
    assert (found.box == 0).sum() < TOP


def test_the_order_of_the_boxes_is_irrelevant() -> None:
    probs, predicted, grid, batch = problem(5)
    turned = {name: getattr(batch, name).flip(0) for name in ("boxes", "labels", "image")}
    one = run(probs, predicted, grid, batch)
    other = run(probs, predicted, grid, Batch(**{**vars(batch), **turned}))
    count = len(batch.boxes)

    def rows(found: Assigned, box: list[int]) -> list[tuple]:
        places = found.location.tolist()
        return sorted(zip(places, box, found.target.tolist(), strict=True))

    assert rows(one, one.box.tolist()) == rows(other, (count - 1 - other.box).tolist())
