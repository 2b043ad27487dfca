"""From scores to probabilities, on data whose truth is known because it is simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from model.calibration.base import logit
from model.calibration.metrics import ece
from model.detection import calibration
from model.detection import regions as regions_module
from model.detection.calibration import (
    LEAST_IMAGE,
    SHOWN,
    BoxCalibration,
    ImageCalibrator,
    _log_odds,
    is_empty,
)
from model.detection.regions import OF_CLASS, OF_OFFSET, OF_QUALITY, OF_SLOPE, RegionCalibrator

SCORES = np.linspace(0.02, 0.98, 25)


def regions(count: int, *, seed: int = 0, slope=1.5, quality=0.7, offsets=(-0.5, 0.5, 1.0)):
    """Scores, qualities, labels, and whether each is right, by a known logistic relation."""
    rng = np.random.default_rng(seed)
    score, iou = rng.uniform(0.02, 0.98, (2, count))
    label = rng.integers(0, len(offsets), count)
    z = slope * logit(score) + quality * logit(iou) + np.array(offsets)[label]
    return score, iou, label, rng.random(count) < expit(z)


def test_a_known_relation_is_found_again() -> None:
    score, quality, label, right = regions(20_000)
    found = RegionCalibrator.fit(score, quality, label, right, 3)
    assert found.slope == pytest.approx(1.5, abs=0.08)
    assert found.quality == pytest.approx(0.7, abs=0.06)
    np.testing.assert_allclose(found.offsets, [-0.5, 0.5, 1.0], atol=0.12)
    score, quality, label, right = regions(20_000, seed=1)
    assert ece(found.p_right(score, quality, label), right) < 0.02


def test_without_a_region_the_score_stands_as_it_is() -> None:
    none = np.zeros(0)
    found = RegionCalibrator.fit(none, none, none.astype(int), none.astype(bool), 2)
    assert (found.slope, found.quality) == (1.0, 0.0)
    assert found.offsets.tolist() == [0.0, 0.0]
    label = np.zeros(len(SCORES), int)
    np.testing.assert_allclose(found.p_right(SCORES, SCORES[::-1], label), SCORES)


@pytest.mark.parametrize("right", [[True], [False], [True, True], [False, True, False]])
def test_a_few_regions_move_little(right: list[bool]) -> None:
    count = len(right)
    given_label = np.zeros(count, int)
    half = np.full(count, 0.5)
    found = RegionCalibrator.fit(half, half, given_label, np.array(right), 2)
    p = found.p_right(SCORES, np.full(25, 0.5), np.zeros(25, int))
    assert np.abs(p - SCORES).max() < 0.4
    assert (np.diff(p) > 0).all()


def test_a_class_without_regions_has_what_the_others_share() -> None:
    score, quality, label, right = regions(5000, offsets=(1.0, 1.4))
    found = RegionCalibrator.fit(score, quality, label, right, 4)
    assert found.offsets[2] == found.offsets[3]
    # Between the others; nearer the middle, as the prior wants it.
    assert 0.8 < found.offsets[2] < 1.4


def test_a_class_with_few_regions_is_between_its_own_and_the_others() -> None:
    score, quality, label, right = regions(4000, offsets=(0.0, 0.0))
    few = np.flatnonzero(label == 1)[:20]
    rows = np.concatenate([np.flatnonzero(label == 0), few])
    right = right.copy()
    right[few] = True
    found = RegionCalibrator.fit(score[rows], quality[rows], label[rows], right[rows], 3)
    assert found.offsets[2] < found.offsets[1]
    assert found.offsets[0] < found.offsets[1]


def fitted_by_another(score, quality, label, right, n_classes: int) -> np.ndarray:
    """The same objective without its gradient, by another optimiser."""
    x = np.stack([logit(score), logit(quality)], 1)

    def loss(t):
        z = x @ t[:2] + t[2] + t[3:][label]
        terms = -np.where(right, -np.logaddexp(0, -z), -np.logaddexp(0, z))
        prior = ((t[0] - 1) / OF_SLOPE) ** 2 + (t[1] / OF_QUALITY) ** 2 + (t[2] / OF_OFFSET) ** 2
        return terms.sum() + 0.5 * (prior + ((t[3:] / OF_CLASS) ** 2).sum())

    start = np.zeros(3 + n_classes)
    return minimize(loss, start, method="Powell", options={"xtol": 1e-8, "ftol": 1e-14}).x


def test_the_gradient_leads_where_a_search_without_it_ends() -> None:
    score, quality, label, right = regions(60)
    found = RegionCalibrator.fit(score, quality, label, right, 3)
    t = fitted_by_another(score, quality, label, right, 3)
    np.testing.assert_allclose([found.slope, found.quality], t[:2], atol=2e-3)
    np.testing.assert_allclose(found.offsets, t[2] + t[3:], atol=2e-3)


def test_images_of_which_none_is_right_keep_their_order() -> None:
    crowded = [np.full(count, p) for count in (20, 30, 40) for p in (0.5, 0.4)]
    found = ImageCalibrator.fit(crowded, np.ones(6, np.int64), np.zeros(6, bool))
    stated = [found.p_all_right(p) for p in crowded]
    assert min(stated) > 0
    naive = [found.log_naive(p) for p in crowded]
    assert np.argsort(stated).tolist() == np.argsort(naive).tolist()
    assert len(set(stated)) == 6


def test_images_without_a_chance_are_ordered_by_what_is_to_be_corrected() -> None:
    found = ImageCalibrator()
    wrong = np.full(40, 0.5)  # twenty regions to take away
    missing = np.concatenate([np.full(30, 0.5), np.full(50, 0.1)])  # fifteen, and five to draw
    assert found.log_naive(wrong) < found.log_naive(missing) < np.log(LEAST_IMAGE)
    assert found.corrections(wrong) == pytest.approx(20)
    assert found.corrections(missing) == pytest.approx(15 + 5 * 5)
    assert found.p_all_right(missing) < found.p_all_right(wrong)
    likely = found.p_all_right(np.full(9, 0.5))
    assert LEAST_IMAGE / 2 < found.p_all_right(missing) < LEAST_IMAGE < likely
    assert likely == pytest.approx(0.5**9, rel=1e-3)


def test_both_gradients_are_those_of_their_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def check(loss, start, **options):
        for seed in range(3):
            t = start + np.random.default_rng(seed).normal(0, 0.5, len(start))
            step = 1e-6
            slopes = [
                (loss(t + step * e)[0] - loss(t - step * e)[0]) / (2 * step) for e in np.eye(len(t))
            ]
            np.testing.assert_allclose(loss(t)[1], slopes, rtol=1e-4, atol=1e-4)
            checked.append(len(t))
        return minimize(loss, start, **options)

    monkeypatch.setattr(regions_module, "minimize", check)
    monkeypatch.setattr(calibration, "minimize", check)
    RegionCalibrator.fit(*regions(50), 3)
    p, _, missed, right = images(40)
    ImageCalibrator.fit(p, missed, right)
    assert sorted(set(checked)) == [2, 6]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=8),
    st.integers(1, 1000),
)
def test_regions_are_never_certain(given_regions: list, copies: int) -> None:
    many = given_regions * (copies if len(given_regions) == 1 else 1)
    score = np.array([s for s, _, _ in many], float)
    quality = np.array([q for _, q, _ in many], float)
    right = np.array([r for _, _, r in many], bool)
    label = np.zeros(len(many), int)
    found = RegionCalibrator.fit(score, quality, label, right, 1)
    ends = np.array([0.0, 1e-300, 0.5, 1.0])
    p = found.p_right(np.repeat(ends, 4), np.tile(ends, 4), np.zeros(16, int))
    assert ((p > 0) & (p < 1)).all()


def test_a_higher_score_is_never_trusted_less() -> None:
    """Even where, by chance, low scores were right and high ones wrong."""
    rng = np.random.default_rng(0)
    score = rng.uniform(0.02, 0.98, 300)
    found = RegionCalibrator.fit(score, np.full(300, 0.5), np.zeros(300, int), score < 0.5, 1)
    p = found.p_right(SCORES, np.full(25, 0.5), np.zeros(25, int))
    assert (np.diff(p) >= 0).all()


def images(count: int, *, seed: int = 0, most: int = 6):
    """Images of independent regions whose P(right) is true, and whose leftovers are Poisson."""
    rng = np.random.default_rng(seed)
    p_right, missed, all_right = [], [], []
    for _ in range(count):
        shown = rng.uniform(0.5, 1.0, rng.integers(0, most + 1)) ** 0.3
        below = rng.uniform(0.02, SHOWN - 0.01, rng.integers(0, 3))
        gone = int(rng.poisson(below.sum()))
        p_right.append(np.sort(np.concatenate([shown, below]))[::-1])
        missed.append(gone)
        all_right.append(gone == 0 and bool((rng.random(len(shown)) < shown).all()))
    naive = [np.log(p[p >= SHOWN]).sum() - p[p < SHOWN].sum() for p in p_right]
    return p_right, np.exp(naive), np.array(missed, np.int64), np.array(all_right)


def test_an_image_is_never_trusted_more_than_its_least_trusted_region() -> None:
    bold = ImageCalibrator(slope=0.3, offset=3.0)
    assert bold.p_all_right(np.array([0.9, 0.6])) == pytest.approx(0.6)
    assert bold.p_all_right(np.array([0.05])) > 0.6  # not a region that is shown


def test_independent_regions_are_multiplied() -> None:
    p_right, _, missed, right = images(2000)
    found = ImageCalibrator.fit(p_right, missed, right)
    fresh, truth, gone, happened = images(3000, seed=1)
    stated = np.array([found.p_all_right(p) for p in fresh])
    assert ece(stated, happened) <= 0.05
    assert np.abs(stated - truth).mean() < 0.05
    expected = np.array([found.missed(p) for p in fresh])
    assert expected.sum() == pytest.approx(gone.sum(), rel=0.15)


def test_objects_that_nothing_points_to_are_expected_too() -> None:
    """Every second image has one that the head does not see at all."""
    p_right, _, missed, right = images(400)
    hidden = np.random.default_rng(5).integers(0, 2, 400)
    found = ImageCalibrator.fit(p_right, missed + hidden, right & (hidden == 0))
    fresh, _, gone, happened = images(2000, seed=1)
    more = np.random.default_rng(6).integers(0, 2, 2000)
    assert found.unseen > 0.2 or found.recall > 1.5
    expected = sum(found.missed(p) for p in fresh)
    assert expected == pytest.approx((gone + more).sum(), rel=0.15)
    stated = np.array([found.p_all_right(p) for p in fresh])
    assert ece(stated, happened & (more == 0)) <= 0.06


def test_where_nothing_is_shown_more_may_be_missing() -> None:
    """Every image has an object; of those on which nothing is found it was not recognised."""
    rng = np.random.default_rng(0)
    empty = rng.random(40) < 0.4
    p_right = [np.full(1, 0.05 if nothing else 0.9) for nothing in empty]
    right = ~empty & (rng.random(40) < 0.9)
    found = ImageCalibrator.fit(p_right, empty.astype(np.int64), right)
    nothing, one = np.array([0.05]), np.array([0.9])
    assert found.missed(nothing) == pytest.approx(1.0, abs=0.2)
    assert found.missed(one) < 0.1
    assert found.p_all_right(nothing) < 0.3 < 0.7 < found.p_all_right(one)


def test_true_negatives_are_told_apart_from_what_was_not_recognised() -> None:
    p_right = [np.full(1, 0.02 if n < 20 else 0.9) for n in range(40)]
    found = ImageCalibrator.fit(p_right, np.zeros(40, np.int64), np.ones(40, bool))
    assert found.p_all_right(np.array([0.02])) > 0.9


def test_a_version_from_before_empty_images_were_told_apart_is_read() -> None:
    regions = RegionCalibrator(1.0, 0.0, np.zeros(2))
    for images in (ImageCalibrator(0.9, 0.1, 1.5, 0.3), ImageCalibrator(0.9, 0.1, 1.5, 0.3, 0.7)):
        kept = BoxCalibration(regions, images)
        assert BoxCalibration.restore(kept.arrays()).images == images
    assert ImageCalibrator(unseen=0.3).missed(np.zeros(0)) == 0.3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_images_leave_the_product_nearly_as_it_is(count: int) -> None:
    p_right, _, missed, right = images(count, seed=8)
    found = ImageCalibrator.fit(p_right, missed, right)
    for p in ([0.9], [0.6, 0.5], [0.95, 0.2]):
        array = np.array(p)
        plain = ImageCalibrator().p_all_right(array)
        assert abs(found.p_all_right(array) - plain) < 0.3
    if not count:
        assert found == ImageCalibrator(unseen_where_empty=0.0)


def calibrators() -> list[ImageCalibrator]:
    return [
        ImageCalibrator(),
        ImageCalibrator.fit(*[images(60, seed=s)[n] for s in (1,) for n in (0, 2, 3)]),
        ImageCalibrator.fit([np.array([0.9])] * 9, np.zeros(9, np.int64), np.zeros(9, bool)),
        ImageCalibrator.fit([np.zeros(0)] * 9, np.zeros(9, np.int64), np.ones(9, bool)),
        ImageCalibrator.fit([np.zeros(0)] * 9, np.full(9, 50), np.zeros(9, bool)),
    ]


@pytest.mark.parametrize("number", range(5))
def test_an_image_is_never_certain_and_doubt_lowers_it(number: int) -> None:
    found = calibrators()[number]
    rng = np.random.default_rng(0)
    for p in ([], [0.9999] * 2, [1e-4], [1e-4] * 100, [0.31] * 100, [0.7, 0.4, 0.1]):
        array = np.array(p, float)
        stated = found.p_all_right(array)
        assert 0 < stated < 1
        assert found.missed(array) >= 0
        for extra in rng.uniform(0.01, 0.99, 5):
            more = np.append(array, extra)
            if is_empty(array) and not is_empty(more):
                continue  # what is shown of an image tells more of it than nothing does
            assert found.p_all_right(more) <= stated
            assert found.missed(more) >= found.missed(array)
    certain, doubtful = np.array([0.9, 0.95]), np.array([0.9, 0.6])
    assert found.p_all_right(doubtful) < found.p_all_right(certain) or number == 4  # at its end


@given(st.floats(1e-12, 1 - 1e-5))
def test_log_odds_of_a_log_probability(p: float) -> None:
    assert _log_odds(np.log(p)) == pytest.approx(np.log(p) - np.log1p(-p), rel=1e-6, abs=1e-6)


def test_log_odds_stay_finite() -> None:
    assert np.isfinite([_log_odds(v) for v in (0.0, -1e-300, -1e4, 1e-3)]).all()
    assert _log_odds(-1e4) == pytest.approx(-1e4)


def test_both_come_back_from_their_arrays() -> None:
    one = BoxCalibration(
        RegionCalibrator(1.2, 0.3, np.array([0.1, -0.2])), ImageCalibrator(0.7, 0.1, 1.3, 0.05)
    )
    two = BoxCalibration.restore(one.arrays())
    assert two.images == one.images
    assert (two.regions.slope, two.regions.quality) == (1.2, 0.3)
    assert two.regions.offsets.tolist() == [0.1, -0.2]
