"""Drawn boxes that regions contradict: each kind by hand, properties, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from model.detection.types import BoxLabels, Detections
from model.errors import ModelError, ShapeError
from model.label_errors.boxes import (
    KINDS,
    NO_REGION,
    BoxErrors,
    find_box_errors,
    pair,
    spurious_share,
    unseen_share,
)
from model.label_errors.placement import INDEPENDENT, OFF, tightness

E = 0.033
SIZE = (200, 100)
LEFT, RIGHT, LOW = [0.1, 0.2, 0.3, 0.6], [0.6, 0.2, 0.8, 0.6], [0.1, 0.7, 0.3, 0.9]


def regions(
    *given: tuple[list[float], int, float], classes: int = 3, spread: float = 2.0, **also: float
) -> Detections:
    """Boxes, labels and P(right); ``other_N=p`` gives region 0 a probability of class N too."""
    count = len(given)
    probs = np.zeros((count, classes))
    for row, (_, label, p) in enumerate(given):
        probs[row, label] = p
    for name, p in also.items():
        probs[0, int(name.removeprefix("other_"))] = p
    nothing = np.zeros(count)
    return Detections(
        boxes=np.array([box for box, _, _ in given]).reshape(-1, 4),
        label=np.array([label for _, label, _ in given], np.int64),
        p_right=np.array([p for _, _, p in given]),
        probs=probs,
        total=nothing,
        aleatoric=nothing,
        epistemic=nothing,
        spread=np.full((count, 4), spread),
        p_all_right=0.5,
        missed=0.0,
        size=SIZE,
    )


def one(found: Detections, drawn: BoxLabels, **options: float) -> BoxErrors:
    [result] = find_box_errors([found], [drawn], **options)
    return result


def moved(box: list[float], x: float, y: float = 0.0) -> list[float]:
    return [box[0] + x, box[1] + y, box[2] + x, box[3] + y]


def test_labels_that_regions_confirm_are_probably_right() -> None:
    found = one(regions((LEFT, 0, 0.97), (RIGHT, 1, 0.97)), BoxLabels.of([RIGHT, LEFT], [1, 0]))
    assert found.findings == ()
    assert found.score > 0.98
    assert found.overlooked.tolist() == [0.0, 0.0]


def test_sure_region_that_no_box_covers_is_an_overlooked_object() -> None:
    found = one(regions((LEFT, 0, 0.9), (RIGHT, 2, 0.98)), BoxLabels.of([LEFT], [0]))
    expected = E * 0.98 / (E * 0.98 + 0.02)
    np.testing.assert_allclose(found.overlooked, [0.0, expected])
    [finding] = found.findings
    assert (finding.kind, finding.drawn, finding.region, finding.label) == (
        "overlooked", None, 1, 2,
    )  # fmt: skip
    assert finding.probability == pytest.approx(expected)
    np.testing.assert_array_equal(finding.box, RIGHT)
    assert found.without("overlooked") == pytest.approx(1 - expected)


def test_object_next_to_a_drawn_box_is_overlooked_although_they_touch() -> None:
    """Two objects of a class with IoU 0.2; ObjectLab asks that nothing overlaps."""
    near = moved(LEFT, 0.13)
    found = one(regions((near, 0, 0.97), (LEFT, 0, 0.8)), BoxLabels.of([LEFT], [0]))
    assert found.overlooked[0] > 0.4
    assert found.overlooked[1] == 0.0
    assert found.findings[0].kind == "overlooked"


def test_of_two_regions_at_one_place_only_the_surer_is_asked_about() -> None:
    found = one(regions((LEFT, 0, 0.6), (moved(LEFT, 0.01), 1, 0.9)), BoxLabels.of([], []))
    assert found.overlooked[0] == 0.0
    assert found.overlooked[1] > 0.2


def test_nothing_is_overlooked_where_it_is_not_known_what_there_is() -> None:
    drawn = BoxLabels.of([], [], ignored=[[0.0, 0.0, 0.5, 1.0]])
    found = one(regions((LEFT, 0, 0.98), (RIGHT, 0, 0.98)), drawn)
    assert found.overlooked[0] == 0.0
    assert found.overlooked[1] > 0.5


def test_sure_region_of_another_class_on_a_box_says_it_is_swapped() -> None:
    """Weights by hand; the own class is worth what no region touches, (1 + 0) / (50 + 1)."""
    found = one(regions((LEFT, 2, 0.95)), BoxLabels.of([LEFT], [0]))
    right, swapped = (1 - E) / 51, E / 2 * 0.95
    nothing = E * (1 - 1 / 51 - 0.95)
    whole = right + swapped + nothing
    np.testing.assert_allclose(found.of_drawn, [[0.0, swapped / whole, nothing / whole]])
    assert found.overlooked.tolist() == [0.0]
    [finding] = found.findings
    assert (finding.kind, finding.drawn, finding.region, finding.label) == ("swapped", 0, 0, 2)
    np.testing.assert_array_equal(finding.box, LEFT)


def test_region_that_explains_another_box_contradicts_nobody() -> None:
    """A platelet on a red cell: two boxes at nearly one place, of different classes."""
    inner = [0.12, 0.25, 0.28, 0.55]
    both = regions((LEFT, 0, 0.9), (inner, 1, 0.95))
    found = one(both, BoxLabels.of([LEFT, inner], [0, 1]))
    assert found.of_drawn[:, KINDS[1:].index("swapped")].max() < 0.01
    alone = one(regions((inner, 1, 0.95)), BoxLabels.of([LEFT], [0]))
    assert alone.of_drawn[0, 1] > 0.3


def test_region_that_doubts_between_classes_swaps_less() -> None:
    drawn = BoxLabels.of([LEFT], [0])
    sure = one(regions((LEFT, 2, 0.6)), drawn)
    torn = one(regions((LEFT, 2, 0.6), other_0=0.3), drawn)
    assert torn.of_drawn[0, 1] < 0.25 * sure.of_drawn[0, 1]


def test_box_that_is_off_its_region_is_badly_placed() -> None:
    """Bayes' rule by hand; the spread is the stated one, since no pair overlaps by half."""
    p, drawn = 0.9, BoxLabels.of([moved(LEFT, 0.1, 0.1)], [0])
    found = one(regions((LEFT, 0, p)), drawn)
    odds = 0.0
    for off, size, pixels in ((0.1, 0.2, SIZE[0]), (0.1, 0.4, SIZE[1])) * 2:
        scale = 2.0 / pixels / math.sqrt(2.0)
        wide = OFF * size
        odds += (math.log(scale / wide) + off / scale - off / wide) * INDEPENDENT
    bad = E * math.exp(odds) / (E * math.exp(odds) + 1 - E)
    misplaced = p * bad + (1 - p) * E
    right, nothing = (1 - E) * p, E * (1 - p)
    expected = right / (right + nothing) * misplaced
    np.testing.assert_allclose(found.of_drawn[0, 0], expected)
    finding = found.findings[0]
    assert (finding.kind, finding.drawn, finding.region, finding.label) == ("badly placed", 0, 0, 0)
    np.testing.assert_array_equal(finding.box, LEFT)
    assert found.overlooked.tolist() == [0.0]


def test_region_that_does_not_know_the_sides_does_not_blame_the_box() -> None:
    drawn = BoxLabels.of([moved(LEFT, 0.05)], [0])
    sharp, vague = (one(regions((LEFT, 0, 0.95), spread=s), drawn) for s in (1.5, 15.0))
    assert sharp.of_drawn[0, 0] > 0.5
    assert vague.of_drawn[0, 0] < 0.05


def test_box_without_a_region_is_unsupported_the_more_the_rarer_that_is() -> None:
    drawn = BoxLabels.of([LEFT], [0])
    nothing = regions()
    alone = one(nothing, drawn)
    unseen = (1 + 1) / (50 + 1)
    expected = E * (1 - unseen) / (E * (1 - unseen) + (1 - E) * unseen)
    np.testing.assert_allclose(alone.of_drawn, [[0.0, 0.0, expected]])
    [finding] = alone.findings
    assert (finding.kind, finding.drawn, finding.region, finding.label) == (
        "unsupported", 0, None, 0,
    )  # fmt: skip
    seldom = find_box_errors(
        [nothing] + [regions((LEFT, 0, 0.9))] * 200, [drawn] * 201
    )  # fmt: skip
    often = find_box_errors([nothing] * 201, [drawn] * 201)
    assert often[0].of_drawn[0, 2] < alone.of_drawn[0, 2] < seldom[0].of_drawn[0, 2]


def test_image_is_right_when_everything_is() -> None:
    found = one(
        regions((RIGHT, 1, 0.9), (LEFT, 2, 0.8), (LOW, 1, 0.7)),
        BoxLabels.of([LEFT, moved(RIGHT, 0.04)], [0, 1]),
    )
    expected = np.prod(1 - found.of_drawn.sum(1)) * np.prod(1 - found.overlooked)
    assert found.score == pytest.approx(expected)
    assert 0 < found.score < 0.9
    for number, kind in enumerate(KINDS[1:]):
        assert found.without(kind) == pytest.approx(1 - found.of_drawn[:, number].max())
    probabilities = [finding.probability for finding in found.findings]
    assert probabilities == sorted(probabilities, reverse=True)


def test_small_doubts_of_a_crowded_image_do_not_add_up_to_an_error_of_a_kind() -> None:
    """Twenty boxes that may be of another class, each a little, against one that surely is."""
    rows = [(n % 5 * 0.2, n // 5 * 0.25) for n in range(20)]
    places = [(x, y, x + 0.1, y + 0.1) for x, y in rows]
    crowded = one(
        regions(*((p, 0, 0.85) for p in places), *((p, 1, 0.1) for p in places)),
        BoxLabels.of(places, [0] * 20),
    )
    alone = one(regions((LEFT, 1, 0.6)), BoxLabels.of([LEFT], [0]))
    number = KINDS.index("swapped") - 1
    assert np.prod(1 - crowded.of_drawn[:, number]) < 1 - crowded.of_drawn[:, number].max()
    assert alone.without("swapped") < crowded.without("swapped")


def test_least_says_which_findings_are_listed() -> None:
    found, drawn = regions((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), BoxLabels.of([LEFT], [0])
    everything = one(found, drawn, least=0.0).findings
    assert len(everything) == 5  # two regions, and each kind for the box: class 1 stands at 0
    assert len(one(found, drawn, least=0.2).findings) == 1
    assert one(found, drawn, least=0.9).findings == ()


def test_more_noise_means_more_doubt() -> None:
    found, drawn = regions((LEFT, 1, 0.9), (RIGHT, 1, 0.9)), BoxLabels.of([LEFT], [0])
    scores = [one(found, drawn, noise=noise).score for noise in (0.01, 0.1, 0.4)]
    assert scores == sorted(scores, reverse=True)


def test_pairs_are_one_to_one_of_a_class_and_share_most_area() -> None:
    """Each region alone would take the same box; together both boxes get one."""
    boxes = [LEFT, moved(LEFT, 0.1)]
    found = regions((moved(LEFT, 0.06), 0, 0.9), (LEFT, 0, 0.5), (boxes[1], 1, 0.99))
    drawn = BoxLabels.of([*boxes, LOW], [0, 0, 0])
    assert pair(found, drawn).tolist() == [1, 0, NO_REGION]
    assert pair(regions(), drawn).tolist() == [NO_REGION] * 3
    assert pair(found, BoxLabels.of([], [])).tolist() == []


def test_sure_region_that_is_off_is_preferred_to_a_doubtful_one_on_the_spot() -> None:
    """As when a box was moved: what is left where it is now is not its object."""
    found = regions((LEFT, 0, 0.04), (moved(LEFT, 0.05), 0, 0.9))
    assert pair(found, BoxLabels.of([LEFT], [0])).tolist() == [1]
    barely = regions((moved(LEFT, 0.18), 0, 0.9))  # IoU 0.05
    assert pair(barely, BoxLabels.of([LEFT], [0])).tolist() == [NO_REGION]


def test_box_around_nothing_seldom_meets_just_this_of_many_doubtful_regions() -> None:
    """Of 2 boxes ``E * 2`` are around nothing; 20 regions that are none and one of 0.1."""
    doubtful = regions(*[(LOW, 1, 0.0)] * 20, (LEFT, 0, 0.1))
    drawn = BoxLabels.of([LEFT, RIGHT], [0, 0])
    share = spurious_share([doubtful], [drawn], E)
    assert share == pytest.approx(E * 2 / 20.9)
    assert spurious_share([regions()], [drawn], E) == E
    found = one(doubtful, drawn)
    met = share * 0.9 / (share * 0.9 + (1 - E) * 0.1)
    unseen = (1 + 1) / (50 + 2)
    alone = E * (1 - unseen) / (E * (1 - unseen) + (1 - E) * unseen)
    np.testing.assert_allclose(found.of_drawn[:, 2], [met, alone])


def test_box_as_loose_as_all_others_is_not_badly_placed() -> None:
    off = BoxLabels.of([moved(LEFT, 0.03, 0.06)], [0])  # four times the spread
    found = regions((LEFT, 0, 0.95))
    assert one(found, off).of_drawn[0, 0] > 0.4
    among = find_box_errors([found] * 100, [off] * 100)
    assert among[0].of_drawn[0, 0] < 0.05


def test_spread_is_corrected_by_how_far_off_sure_regions_are() -> None:
    """The sides of all are off by three times their scale; boxes that were moved do not count."""
    scale = 2.0 / np.array([*SIZE, *SIZE]) / math.sqrt(2.0)
    found = [regions((LEFT, 0, 0.9))] * 100
    off = [BoxLabels.of([(np.array(LEFT) + 3 * scale).tolist()], [0])] * 90
    far = [BoxLabels.of([moved(LEFT, 0.06)], [0])] * 10
    pairs = [pair(f, d) for f, d in zip(found, off + far, strict=True)]
    assert tightness(found, off + far, pairs) == pytest.approx(3 / math.log(2))
    assert tightness([], [], []) == pytest.approx(1.0)
    unsure = [regions((LEFT, 0, 0.3))] * 100
    assert tightness(unsure, off + far, pairs) == pytest.approx(1.0)


def test_unseen_counts_boxes_that_no_region_of_any_class_touches() -> None:
    drawn = BoxLabels.of([LEFT, RIGHT], [0, 0])
    assert unseen_share([], []) == pytest.approx(0.02)
    found = [regions((LEFT, 1, 0.5)), regions()]
    assert unseen_share(found, [drawn, drawn]) == pytest.approx((1 + 3) / (50 + 4))


def test_order_of_images_boxes_and_regions_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    found, drawn = [], []
    for _ in range(6):
        corners = rng.uniform(0, 0.7, (5, 2))
        boxes = np.hstack([corners, corners + rng.uniform(0.1, 0.3, (5, 2))])
        labels = rng.integers(3, size=5)
        drawn.append(BoxLabels.of(boxes[:4].tolist(), labels[:4].tolist()))
        given = zip((boxes[1:] + 0.01).tolist(), labels[1:].tolist(), rng.random(4), strict=True)
        found.append(regions(*given))
    before = find_box_errors(found, drawn, least=0.0)
    images = rng.permutation(6)
    boxes, numbers = rng.permutation(4), rng.permutation(4)
    shuffled = [
        replace(
            found[n],
            boxes=found[n].boxes[numbers],
            label=found[n].label[numbers],
            p_right=found[n].p_right[numbers],
            probs=found[n].probs[numbers],
        )
        for n in images
    ]
    turned = [
        BoxLabels.of(drawn[n].boxes[boxes].tolist(), drawn[n].labels[boxes].tolist())
        for n in images
    ]
    for after, n in zip(find_box_errors(shuffled, turned, least=0.0), images, strict=True):
        assert after.score == pytest.approx(before[n].score)
        np.testing.assert_allclose(after.of_drawn, before[n].of_drawn[boxes])
        np.testing.assert_allclose(after.overlooked, before[n].overlooked[numbers])
        assert len(after.findings) == len(before[n].findings)


def test_only_class_there_is_cannot_be_swapped() -> None:
    found = one(regions((LEFT, 0, 0.9), classes=1), BoxLabels.of([LEFT, RIGHT], [0, 0]))
    assert found.of_drawn[:, 1].tolist() == [0.0, 0.0]


def test_empty_image_without_regions_is_right() -> None:
    assert one(regions(), BoxLabels.of([], [])).score == 1.0
    assert find_box_errors([], []) == []


def test_what_is_refused() -> None:
    found, drawn = regions((LEFT, 0, 0.9)), BoxLabels.of([LEFT], [0])
    with pytest.raises(ShapeError, match=r"drawn has shape \(2,\); expected \(1,\)"):
        find_box_errors([found], [drawn, drawn])
    with pytest.raises(ModelError, match="image 1 has a drawn box of class 3; the regions know 3"):
        find_box_errors([found, found], [drawn, BoxLabels.of([LEFT], [3])])
    strange = BoxLabels.of([LEFT, LEFT], [2, -1])
    with pytest.raises(ModelError, match="image 0 has a drawn box of class -1; the regions know 3"):
        find_box_errors([found], [strange])
    for noise in (0.0, 0.6):
        with pytest.raises(ModelError, match=f"noise is {noise}; give the share"):
            find_box_errors([found], [drawn], noise=noise)
