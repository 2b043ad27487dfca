"""K readings of each region, and the doubt they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.boxes import head_shape
from test_detection_head import head_of, network, random_maps

from model.detection.head import Head, Kept
from model.detection.passes import (
    BOX_ESTIMATORS,
    DEFAULT_BOX_ESTIMATOR,
    DROP,
    PASSES,
    Readings,
    calibrated,
    doubt,
    mean_score,
    side_spread,
)
from model.uncertainty.measures import decompose, entropy


@pytest.fixture(scope="module")
def head() -> Head:
    return head_of(network(3))


@pytest.fixture(scope="module")
def kept(head: Head) -> Kept:
    found = head.find(random_maps(3, 4))
    assert len(found) > 20
    return found


def read(name: str, head: Head, kept: Kept) -> Readings:
    return BOX_ESTIMATORS[name](head, kept)


@pytest.mark.parametrize("name", sorted(BOX_ESTIMATORS))
def test_every_estimator_reads_every_region(name: str, head: Head, kept: Kept) -> None:
    found = read(name, head, kept)
    k, regions, classes = found.scores.shape
    assert (regions, classes) == kept.scores.shape
    assert found.sides.shape == (k, regions, 4)
    assert ((found.scores > 0) & (found.scores < 1)).all()
    assert ((found.sides >= 0) & (found.sides <= 1)).all()
    again = read(name, head, kept)
    np.testing.assert_array_equal(again.scores, found.scores)
    np.testing.assert_array_equal(again.sides, found.sides)


@pytest.mark.parametrize("name", sorted(BOX_ESTIMATORS))
def test_a_region_is_read_the_same_whatever_is_beside_it(name: str, head: Head, kept: Kept) -> None:
    """So each pass is one function: the same masks for all regions of all images."""
    rows = np.array([7, 2, 11])
    whole, part = read(name, head, kept), read(name, head, kept.take(rows))
    np.testing.assert_allclose(part.scores, whole.scores[:, rows], rtol=1e-5)
    np.testing.assert_allclose(part.sides, whole.sides[:, rows], atol=1e-6)


@pytest.mark.parametrize("name", sorted(BOX_ESTIMATORS))
def test_no_region_is_read_as_none(name: str, head: Head, kept: Kept) -> None:
    none = kept.take(np.zeros(0, np.int64))
    found = read(name, head, none)
    probs, total, aleatoric, epistemic = doubt(found.scores)
    assert probs.shape == (0, 3)
    assert len(total) == len(aleatoric) == len(epistemic) == 0
    assert mean_score(none, found).shape == (0,)
    assert side_spread(none, found, (10, 10)).shape == (0, 4)


def test_one_pass_knows_no_epistemic_doubt(head: Head, kept: Kept) -> None:
    assert DEFAULT_BOX_ESTIMATOR in BOX_ESTIMATORS
    found = read("softmax", head, kept)
    np.testing.assert_array_equal(found.scores, kept.scores[None])
    _, total, aleatoric, epistemic = doubt(found.scores)
    assert (epistemic == 0).all()
    np.testing.assert_array_equal(total, aleatoric)
    np.testing.assert_allclose(mean_score(kept, found), kept.score)


def test_dropout_is_what_its_masks_say(head: Head, kept: Kept) -> None:
    """Each pass lacks a tenth of the channels, and is the linear layer on what is left."""
    found = read("mc-dropout", head, kept)
    assert len(found.scores) == PASSES
    assert found.scores.std(axis=0).max() > 0.01
    logits = np.log(found.scores) - np.log1p(-found.scores)
    weight, bias = head.last.classify
    # What a pass adds up is linear in the mask, so the masks can be found from it again.
    parts = kept.of_class[:, :, None] * weight[None]  # (R, width, C)
    left = parts.transpose(0, 2, 1).reshape(-1, weight.shape[0]).astype(np.float64)
    for one in logits:
        mask, *_ = np.linalg.lstsq(left, (one - bias).reshape(-1), rcond=None)
        np.testing.assert_allclose(np.minimum(abs(mask), abs(mask - 1 / (1 - DROP))), 0, atol=0.02)


def test_the_mean_of_dropout_is_near_the_plain_scores(head: Head, kept: Kept) -> None:
    mean = mean_score(kept, read("mc-dropout", head, kept))
    assert np.abs(mean - kept.score).mean() < 0.1
    assert np.corrcoef(mean, kept.score)[0, 1] > 0.9


@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_doubt_is_that_of_a_distribution(
    k: int, regions: int, classes: int, seed: int, high: bool
) -> None:
    scores = np.random.default_rng(seed).uniform(0.6 if high else 0, 1, (k, regions, classes))
    probs, total, aleatoric, epistemic = doubt(scores)
    assert probs.shape == (regions, classes)
    assert (probs >= 0).all()
    assert (probs.sum(1) <= 1 + 1e-12).all()
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-12)
    assert (epistemic >= 0).all()
    assert (total <= np.log(classes + 1) + 1e-9).all()
    # Region by region, pass by pass, as `measures` has it.
    for r in range(regions):
        outcomes = []
        for row in scores[:, r]:
            shared = row / max(row.sum(), 1.0)
            outcomes.append([*shared, max(1.0 - shared.sum(), 0.0)])
        parts = decompose(np.array([outcomes]))
        np.testing.assert_allclose([total[r], aleatoric[r], epistemic[r]], np.ravel(parts))
        np.testing.assert_allclose(probs[r], np.mean(outcomes, axis=0)[:-1])


@given(st.integers(1, 5), st.integers(0, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_class_of_a_region_is_as_probable_as_it_is_right(
    k: int, regions: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    plain = rng.uniform(0.02, 1, (1, regions, classes))
    label = plain[0].argmax(1)
    p_right = rng.uniform(0, 1, regions)
    mean = plain[0, np.arange(regions), label]
    probs, *_ = doubt(calibrated(plain, label, mean, p_right))
    np.testing.assert_allclose(probs[np.arange(regions), label], p_right, atol=1e-12)
    assert (probs.sum(1) <= 1 + 1e-12).all()
    # Of several passes on average, where none of them is cut off.
    several = plain * rng.uniform(0.5, 1, (k, regions, 1))
    mean = several.mean(axis=0)[np.arange(regions), label]
    low = 0.4 * p_right
    probs, *_ = doubt(calibrated(several, label, mean, low))
    np.testing.assert_allclose(probs[np.arange(regions), label], low, atol=1e-12)


def test_classes_that_look_alike_share_what_is_left() -> None:
    scores = np.array([[[0.5, 0.45, 0.05], [0.5, 0.1, 0.0]]])
    found = calibrated(scores, np.array([0, 0]), scores[0, :, 0], np.array([0.9, 0.6]))
    np.testing.assert_allclose(found[0], [[0.9, 0.09, 0.01], [0.6, 0.12, 0.0]])


def test_doubt_by_hand() -> None:
    scores = np.array([[[0.5, 0.0], [0.8, 0.8], [0.0, 0.0], [1.0, 0.0]]])
    probs, total, _, _ = doubt(scores)
    np.testing.assert_allclose(probs, [[0.5, 0.0], [0.5, 0.5], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(total, [np.log(2), np.log(2), 0.0, 0.0], atol=1e-12)
    opposed = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    _, total, aleatoric, epistemic = doubt(opposed)
    np.testing.assert_allclose([total[0], aleatoric[0], epistemic[0]], [np.log(2), 0, np.log(2)])
    assert entropy(np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_the_spread_of_sides_is_in_pixels_of_the_image(kept: Kept) -> None:
    """A Laplace distribution of scale b has a standard deviation of b times the root of 2."""
    rng = np.random.default_rng(0)
    draws = rng.laplace(0, 0.02, 200_000)
    one = kept.take(np.array([0]))
    one = Kept(**{**vars(one), "spread": np.full((1, 4), 0.02)})
    still = Readings(one.scores[None], one.boxes[None])
    found = side_spread(one, still, (1000, 500))
    expected = draws.std() * np.array([1000, 500, 1000, 500])
    np.testing.assert_allclose(found[0], expected, rtol=0.02)
    left = np.array([[0.1, 0.0, 0.0, 0.0]])
    sides = np.stack([one.boxes, one.boxes + left])
    moved = side_spread(one, Readings(np.stack([one.scores] * 2), sides), (1000, 500))
    np.testing.assert_allclose(moved[0, 1:], found[0, 1:])
    assert moved[0, 0] == pytest.approx(np.hypot(found[0, 0], 50.0))


def test_a_shape_of_one_class_is_doubted_too() -> None:
    assert head_shape(1, n_classes=1).n_classes == 1
    head = head_of(network(1, n_classes=1))
    kept = head.find(random_maps(2, 2))
    probs, total, _, _ = doubt(read("mc-dropout", head, kept).scores)
    assert probs.shape == (len(kept), 1)
    assert (total <= np.log(2) + 1e-9).all()
