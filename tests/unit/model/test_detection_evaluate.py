"""Evaluation of detections, against the reference implementation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from model.detection.evaluate import (
    Found,
    _coco_evaluation,
    average_precision,
    detection_ece,
    match,
    outcome,
    recall_of_missed,
    region_error_auroc,
)
from model.detection.geometry import areas, inside_matrix, intersection_matrix, iou_matrix
from model.detection.types import BoxLabels
from model.errors import ModelError, ShapeError

CLASSES = 3
LEFT, RIGHT, TOP = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5)
NOTHING = BoxLabels.of([], [])


def random_boxes(rng: np.random.Generator, count: int, among: np.ndarray) -> np.ndarray:
    """Boxes in shares; about half of them near one of `among`, so that some match."""
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
    corners[:, 2:] = np.minimum(1.0, corners[:, 2:] + 0.02)
    corners[:, :2] = np.minimum(corners[:, :2], corners[:, 2:] - 0.01)
    if len(among):
        near = among[rng.integers(len(among), size=count)] + rng.normal(0, 0.03, (count, 4))
        near = np.clip(near, 0.0, 1.0)
        proper = (near[:, 2:] - near[:, :2] > 0.01).all(axis=1) & (rng.random(count) < 0.6)
        corners[proper] = near[proper]
    return corners


def random_image(seed: int, *, ignored: bool = True) -> tuple[Found, BoxLabels, tuple[int, int]]:
    rng = np.random.default_rng(seed)
    nothing = np.zeros((0, 4))
    objects = random_boxes(rng, rng.integers(7), nothing)
    labels = rng.integers(CLASSES, size=len(objects))
    hidden = random_boxes(rng, rng.integers(3) if ignored else 0, objects)
    truth = BoxLabels.of(objects.tolist(), labels.tolist(), ignored=hidden.tolist())
    boxes = random_boxes(rng, rng.integers(12), objects)
    # Rounded, so that some scores are equal.
    found = (boxes, rng.integers(CLASSES, size=len(boxes)), rng.random(len(boxes)).round(1))
    return found, truth, (int(rng.integers(20, 900)), int(rng.integers(20, 900)))


def of(*boxes: tuple[float, ...], labels: list[int], scores: list[float]) -> Found:
    return np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), np.array(scores)


@given(st.integers(0, 2**32 - 1))
def test_overlaps_are_those_of_pycocotools(seed: int) -> None:
    (a, _, _), truth, (width, height) = random_image(seed)
    b = truth.boxes

    def coco(boxes: np.ndarray) -> np.ndarray:
        pixels = boxes * [width, height, width, height]
        return np.concatenate([pixels[:, :2], pixels[:, 2:] - pixels[:, :2]], axis=1)

    if not len(a) or not len(b):
        assert iou_matrix(a, b).shape == inside_matrix(a, b).shape == (len(a), len(b))
        return
    plain = mask.iou(coco(a), coco(b), [0] * len(b))
    np.testing.assert_allclose(iou_matrix(a, b), plain, atol=1e-9)
    crowds = mask.iou(coco(a), coco(b), [1] * len(b))
    np.testing.assert_allclose(inside_matrix(a, b), crowds, atol=1e-9)


def test_overlaps_by_hand() -> None:
    boxes = np.array([LEFT, RIGHT, TOP, (0.3, 0.3, 0.3, 0.9)])
    np.testing.assert_allclose(areas(boxes), [0.5, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(intersection_matrix(boxes[:1], boxes), [[0.5, 0.0, 0.25, 0.0]])
    np.testing.assert_allclose(iou_matrix(boxes[:1], boxes), [[1.0, 0.0, 1 / 3, 0.0]])
    np.testing.assert_allclose(inside_matrix(boxes, boxes[:1])[:, 0], [1.0, 0.0, 0.5, 0.0])
    with pytest.raises(ShapeError, match="b has shape"):
        iou_matrix(boxes, boxes[:, :3])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.75]))
def test_matches_are_those_of_pycocotools(seed: int, iou: float) -> None:
    found, truth, size = random_image(seed, ignored=iou == 0.5)
    evaluation = _coco_evaluation([found], [truth], [size], CLASSES)
    evaluation.evaluate()
    at = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, iou))[0])
    which = np.full(len(found[0]), -1)
    ignored = np.zeros(len(found[0]), bool)
    for image in filter(None, evaluation.evalImgs):
        for region, of_truth, is_ignored in zip(
            image["dtIds"], image["dtMatches"][at], image["dtIgnore"][at], strict=True
        ):
            ignored[region - 1] = is_ignored
            if of_truth and not is_ignored:  # ids of crowds come behind those of objects
                which[region - 1] = of_truth - 1
    ours = match(*found, truth, iou=iou)
    np.testing.assert_array_equal(ours.which, which)
    np.testing.assert_array_equal(ours.right, which >= 0)
    np.testing.assert_array_equal(ours.ignored, ignored)


def test_the_surest_region_takes_the_object_and_the_others_are_wrong() -> None:
    found = of(LEFT, LEFT, LEFT, labels=[0, 0, 1], scores=[0.4, 0.8, 0.9])
    done = match(*found, BoxLabels.of([RIGHT, LEFT], [0, 0]))
    assert done.right.tolist() == [False, True, False]
    assert done.which.tolist() == [-1, 1, -1]
    assert not done.ignored.any()


def test_half_the_union_is_enough_and_less_is_not() -> None:
    truth = BoxLabels.of([LEFT], [0])
    found = of((0, 0, 0.5, 0.5), labels=[0], scores=[0.5])
    assert match(*found, truth).right.tolist() == [True]
    assert match(*found, truth, iou=0.51).right.tolist() == [False]
    assert match(*of(LEFT, labels=[0], scores=[0.5]), truth, iou=1.0).right.tolist() == [True]


def test_inside_an_ignored_area_a_region_is_neither_right_nor_wrong_unless_it_matches() -> None:
    truth = BoxLabels.of([(0.0, 0.0, 0.2, 0.2)], [0], ignored=[LEFT])
    found = of(
        (0.0, 0.0, 0.2, 0.2), (0.0, 0.0, 0.2, 0.2), (0.3, 0.0, 0.7, 1.0), (0.4, 0.0, 0.7, 1.0),
        labels=[0, 1, 0, 0], scores=[0.9, 0.8, 0.7, 0.6],
    )  # fmt: skip
    done = match(*found, truth)
    assert done.right.tolist() == [True, False, False, False]
    assert done.ignored.tolist() == [False, True, True, False]


def test_an_image_without_regions_or_objects() -> None:
    none = of(labels=[], scores=[])
    assert [len(part) for part in match(*none, BoxLabels.of([LEFT], [0]))] == [0, 0, 0]
    assert match(*of(LEFT, labels=[0], scores=[1.0]), NOTHING).which.tolist() == [-1]
    with pytest.raises(ShapeError, match=r"scores has shape \(2,\); expected \(1,\)"):
        match(np.array([LEFT]), np.array([0]), np.array([0.1, 0.2]), NOTHING)


def test_perfect_regions_have_an_average_precision_of_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    truths = [BoxLabels.of([LEFT, RIGHT], [0, 2]), NOTHING, BoxLabels.of([TOP], [0])]
    found = [(t.boxes, t.labels, np.full(len(t), 0.9)) for t in truths]
    done = average_precision(found, truths, [(640, 480)] * 3, CLASSES)
    assert done["ap50"] == done["map"] == pytest.approx(1.0)
    assert done["ap50_per_class"] == [pytest.approx(1.0), None, pytest.approx(1.0)]
    assert capsys.readouterr().out == ""


def test_more_than_a_hundred_objects_of_a_class_count() -> None:
    left = np.linspace(0.0, 0.99, 150)
    boxes = np.stack([left, left * 0, left + 0.005, left * 0 + 1], axis=1)
    truth = BoxLabels.of(boxes, [0] * 150)
    found = [(truth.boxes, truth.labels, np.linspace(0.9, 0.1, 150))]
    assert average_precision(found, [truth], [(640, 480)], 1)["ap50"] == pytest.approx(1.0)


def test_average_precision_by_hand() -> None:
    """One of two objects found, after a wrong region: precision 1/2 up to recall 1/2."""
    truths = [BoxLabels.of([LEFT, RIGHT], [0, 0])]
    found = [of(TOP, LEFT, labels=[0, 0], scores=[0.9, 0.8])]
    done = average_precision(found, truths, [(100, 100)], 1)
    assert done["ap50"] == pytest.approx(0.5 * 51 / 101)  # 51 of the 101 recalls are reached
    shifted = [of((0.0, 0.0, 0.4, 1.0), labels=[0], scores=[0.9])]  # an IoU of 0.8
    done = average_precision(shifted, [BoxLabels.of([LEFT], [0])], [(100, 100)], 1)
    assert (done["ap50"], done["map"]) == (pytest.approx(1.0), pytest.approx(0.7))


def test_average_precision_passes_over_what_lies_in_an_ignored_area() -> None:
    found = [of(RIGHT, LEFT, labels=[0, 0], scores=[0.9, 0.8])]
    without = average_precision(found, [BoxLabels.of([LEFT], [0])], [(100, 50)], 2)
    ignoring = average_precision(found, [BoxLabels.of([LEFT], [0], ignored=[RIGHT])], [(9, 9)], 2)
    assert without["ap50_per_class"] == [pytest.approx(0.5), None]
    assert ignoring["ap50_per_class"] == [pytest.approx(1.0), None]


def test_a_class_that_is_none_is_named() -> None:
    for label in (-1, 5):
        found = of(LEFT, RIGHT, labels=[2, label], scores=[0.9, 0.9])
        said = f"image 0 has a region of class {label}; classes are 0 to 4"
        with pytest.raises(ModelError, match=said):
            average_precision([found], [NOTHING], [(9, 9)], 5)


def test_boxes_have_four_sides() -> None:
    with pytest.raises(ShapeError, match=r"boxes has shape \(1, 3\); expected \(N, 4\)"):
        BoxLabels.of([[0.0, 0.0, 1.0]], [0])
    with pytest.raises(ShapeError, match=r"ignored has shape \(1, 5\); expected \(N, 4\)"):
        BoxLabels.of([], [], ignored=[[0.0, 0.0, 1.0, 1.0, 1.0]])


def test_average_precision_of_nothing_is_none() -> None:
    nothing = {"ap50": None, "map": None, "ap50_per_class": [None, None]}
    assert average_precision([], [], [], 2) == nothing
    said = [of(LEFT, labels=[1], scores=[0.9])]
    assert average_precision(said, [NOTHING], [(10, 10)], 2) == nothing
    missing = average_precision(
        [of(labels=[], scores=[])], [BoxLabels.of([LEFT], [1])], [(10, 10)], 2
    )
    assert missing == {"ap50": 0.0, "map": 0.0, "ap50_per_class": [None, 0.0]}
    with pytest.raises(ModelError, match="image 0 has a region of class 1; classes are 0 to 0"):
        average_precision(said, [NOTHING], [(10, 10)], 1)
    with pytest.raises(ShapeError, match="sizes"):
        average_precision(said, [NOTHING], [], 2)


def test_calibration_and_ranking_of_regions() -> None:
    p_right = np.array([0.9, 0.9, 0.6, 0.1, 0.1])
    right = np.array([True, True, False, False, True])
    assert detection_ece(p_right, right, bins=1) == pytest.approx(abs(2.6 - 3) / 5)
    assert detection_ece(p_right, right, threshold=0.8) == pytest.approx(0.1)
    assert detection_ece(p_right, right, threshold=0.95) is None
    assert region_error_auroc(p_right, right, threshold=0.5) == 1.0
    assert region_error_auroc(p_right, right, threshold=0.0) == pytest.approx(4.5 / 6)
    assert region_error_auroc(p_right, right, threshold=0.8) is None
    assert region_error_auroc(p_right, right, threshold=0.95) is None
    with pytest.raises(ShapeError, match="right"):
        detection_ece(p_right, right[:2])


def missed(found, truth: BoxLabels, *, threshold: float = 0.5) -> int:
    boxes, labels, scores = found
    shown = scores >= threshold
    return outcome(boxes[shown], labels[shown], scores[shown], truth).missed


def test_an_object_is_missed_unless_a_shown_region_of_its_class_covers_it() -> None:
    truth = BoxLabels.of([LEFT, RIGHT], [0, 1])
    assert missed(of(labels=[], scores=[]), truth) == 2
    assert missed(of(LEFT, RIGHT, labels=[0, 1], scores=[0.9, 0.9]), truth) == 0
    assert missed(of(LEFT, RIGHT, labels=[0, 0], scores=[0.9, 0.9]), truth) == 1
    unsure = of(LEFT, RIGHT, labels=[0, 1], scores=[0.5, 0.4])
    assert missed(unsure, truth) == 1
    assert missed(unsure, truth, threshold=0.3) == 0
    twins = BoxLabels.of([LEFT, LEFT], [0, 0])
    assert missed(of(LEFT, labels=[0], scores=[0.9]), twins) == 1
    assert missed(of(LEFT, labels=[0], scores=[0.9]), NOTHING) == 0


def test_images_with_missed_objects_are_to_come_early() -> None:
    has_missed = np.arange(10) < 4
    assert recall_of_missed(np.arange(10), has_missed) == 0.5
    assert recall_of_missed(np.arange(10)[::-1], has_missed) == 0.0
    assert recall_of_missed(np.arange(10), has_missed, share=0.31) == 1.0
    assert recall_of_missed(np.arange(15), np.arange(15) == 3) == 0.0  # the first three
    assert recall_of_missed(np.arange(10), np.zeros(10, bool)) is None
    with pytest.raises(ShapeError, match="each image once"):
        recall_of_missed(np.array([0, 0, 1]), has_missed[:3])
