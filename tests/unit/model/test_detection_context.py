"""Where a region is, on regions whose chances are known because they are simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from support.boxes import painted, random_drawing

from model.calibration.base import logit
from model.detection import context, outcomes, regions
from model.detection.calibration import BoxCalibration, ImageCalibrator, log_all_right
from model.detection.context import (
    FAR,
    OF_IMAGE,
    OF_INSIDE,
    OF_PLACE,
    PLACES,
    Likeness,
    Seen,
    Surroundings,
    rate_effect,
)
from model.detection.maps import ImageMaps
from model.detection.outcomes import LEAST_IMAGES, OutOfFold
from model.detection.passes import Readings
from model.detection.regions import RegionCalibrator
from model.detection.types import BoxLabels
from model.errors import ModelError

INSIDE = 3  # channels of what is seen inside a region, here


@dataclass
class Regions:
    """What `OutOfFold` reads of an image's regions."""

    boxes: np.ndarray
    label: np.ndarray
    quality: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass
class World:
    """Images of two kinds; in those of the second fewer of the regions are right."""

    kept: list[Regions]
    seen: list[Seen]
    drawn: list[BoxLabels]
    score: list[np.ndarray]
    truth: list[np.ndarray]

    def out_of_fold(self, rows=slice(None), **values) -> OutOfFold:
        kept = self.kept[rows]
        readings = [Readings(one.scores[None], one.boxes[None]) for one in kept]
        data = SimpleNamespace(drawn=self.drawn[rows])
        return OutOfFold(kept, readings, data, self.seen[rows], **values)


def world(
    count: int, *, of_kind=1.5, of_inside=0.0, regions: int = 8, seed: int = 0, apart: float = 4.0
) -> World:
    rng = np.random.default_rng(seed)
    made = World([], [], [], [], [])
    across = np.linspace(0.05, 0.9, regions)
    boxes = np.stack([across, across * 0, across + 0.04, across * 0 + 0.1], 1)
    for _ in range(count):
        kind = int(rng.integers(2))
        look = rng.normal(size=6) + apart * kind * np.ones(6)
        inside = rng.normal(size=(regions, INSIDE))
        score = rng.uniform(0.05, 0.95, regions)
        chance = expit(logit(score) + of_kind * (0.5 - kind) * 2 + of_inside * inside[:, 0])
        right = rng.random(regions) < chance
        places = np.zeros((regions, PLACES))
        made.kept.append(
            Regions(boxes, np.zeros(regions, int), np.full(regions, 0.5), score[:, None])
        )
        made.seen.append(
            Seen(look.astype(np.float32), np.hstack([inside, places]).astype(np.float32))
        )
        hit = boxes[right]
        none = np.zeros((0, 4))
        made.drawn.append(BoxLabels(hit, np.zeros(len(hit), int), np.zeros(len(hit), bool), none))
        made.score.append(score)
        made.truth.append(chance)
    return made


def off(regions: RegionCalibrator, new: World) -> float:
    """Root mean square of what is stated less the chance there is."""
    stated = [
        regions.p_right(k.scores[:, 0], k.quality, k.label, s)
        for k, s in zip(new.kept, new.seen, strict=True)
    ]
    return float(np.sqrt(np.mean((np.concatenate(stated) - np.concatenate(new.truth)) ** 2)))


def test_the_kind_of_image_is_learnt_where_it_matters() -> None:
    data, new = world(120).out_of_fold(), world(60, seed=1)
    assert data.strength > 0
    found = data.calibrated().regions
    plain = world(120).out_of_fold()
    plain.__dict__["strength"] = 0.0
    assert plain.calibrated().regions.context is None
    assert off(found, new) < 0.6 * off(plain.calibrated().regions, new)


def test_what_a_region_looks_like_is_learnt_where_it_matters() -> None:
    data, new = world(150, of_kind=0, of_inside=1.5), world(60, of_kind=0, of_inside=1.5, seed=1)
    found = data.out_of_fold().calibrated().regions
    assert found.context is not None
    plain = data.out_of_fold()
    plain.__dict__["strength"] = 0.0
    assert off(found, new) < 0.7 * off(plain.calibrated().regions, new)


@pytest.mark.parametrize("seed", range(6))
def test_where_nothing_matters_hardly_anything_is_added(seed: int) -> None:
    data = world(100, of_kind=0, seed=seed).out_of_fold(seed=seed)
    assert data.strength <= 0.1
    assert off(data.calibrated().regions, world(60, of_kind=0, seed=99)) < 0.07


def test_with_few_images_it_is_not_looked_for() -> None:
    assert world(LEAST_IMAGES - 1, of_kind=5).out_of_fold().strength == 0
    assert world(LEAST_IMAGES, of_kind=5).out_of_fold().strength > 0
    assert world(LEAST_IMAGES, of_kind=5, regions=0).out_of_fold().strength == 0


def test_it_is_the_mode_of_a_gaussian_process() -> None:
    """By Newton's steps of Rasmussen and Williams 2006, algorithm 3.1, on the covariance itself."""
    made, strength = world(40, of_inside=0.8), 0.7
    likeness = Likeness.fit(made.seen, seed=0)
    score = np.concatenate([k.scores[:, 0] for k in made.kept])
    right = np.random.default_rng(3).random(len(score)) < np.concatenate(made.truth)
    image = np.repeat(np.arange(40), 8)
    zeros = np.zeros(len(score), int)
    found = RegionCalibrator.fit(
        score, np.full(len(score), 0.5), zeros, right, 1,
        around=Surroundings(made.seen, likeness, strength),
    )  # fmt: skip

    places = (np.array([s.image for s in made.seen]) - likeness.middle) / likeness.spread
    places = places @ likeness.directions.T
    apart = ((places[:, None] - places[None]) ** 2).sum(2)
    of_image = strength * OF_IMAGE * np.exp(-likeness.sharpness * apart)
    scaled = likeness.scaled(np.concatenate([s.regions for s in made.seen]))
    variance = strength * np.array([OF_INSIDE] * INSIDE + [OF_PLACE] * PLACES)
    x = logit(score)
    covariance = of_image[np.ix_(image, image)] + (scaled * variance) @ scaled.T
    covariance += 0.5**2 * np.outer(x, x) + 2.0**2 + 0.5**2  # of slope, offset and class
    f, middle = x.copy(), x
    for _ in range(60):
        p = expit(f)
        w = p * (1 - p)
        b = w * (f - middle) + right - p
        root = np.sqrt(w)
        inner = np.eye(len(f)) + root[:, None] * covariance * root[None, :]
        f = middle + covariance @ (b - root * np.linalg.solve(inner, root * (covariance @ b)))
    z = [
        found.log_odds(k.scores[:, 0], k.quality, k.label) + found.context.log_odds(s, k.label)
        for k, s in zip(made.kept, made.seen, strict=True)
    ]
    np.testing.assert_allclose(expit(np.concatenate(z)), expit(f), atol=2e-3)

    told = np.bincount(image, weights=expit(f) * (1 - expit(f)))
    new = world(10, seed=5).seen
    moved = (np.array([s.image for s in new]) - likeness.middle) / likeness.spread
    apart = ((moved @ likeness.directions.T)[:, None] - places[None]) ** 2
    across = strength * OF_IMAGE * np.exp(-likeness.sharpness * apart.sum(2))
    taken = across @ np.linalg.solve(of_image + np.diag(1 / told), across.T)
    doubt = [found.context.doubt(s) for s in new]
    np.testing.assert_allclose(doubt, strength * OF_IMAGE - np.diag(taken), atol=2e-3)


def test_what_is_not_known_of_an_image_draws_towards_one_half() -> None:
    data = world(80)
    found = data.out_of_fold().calibrated().regions
    near, far = data.seen[0], Seen(np.full(6, 1e3, np.float32), data.seen[0].regions)
    assert 0 <= found.context.doubt(near) < found.context.doubt(far)
    assert found.context.doubt(far) == pytest.approx(found.context.variance)
    k = data.kept[0]
    z = found.log_odds(k.scores[:, 0], k.quality, k.label) + found.context.log_odds(far, k.label)
    stated = found.p_right(k.scores[:, 0], k.quality, k.label, far)
    assert (np.abs(stated - 0.5) < np.abs(expit(z) - 0.5)).all()
    drawn = np.random.default_rng(0).normal(size=100_000) * np.sqrt(found.context.variance)
    averaged = [expit(one + drawn).mean() for one in z]
    np.testing.assert_allclose(stated, averaged, atol=0.01)


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    data, checked = world(10, of_inside=0.5), []
    labels = np.random.default_rng(0).integers(0, 3, 80)

    def check(loss, start, **options):
        t = start + np.random.default_rng(1).normal(0, 0.5, len(start))
        slopes = [(loss(t + e)[0] - loss(t - e)[0]) / 2e-6 for e in 1e-6 * np.eye(len(t))]
        np.testing.assert_allclose(loss(t)[1], slopes, rtol=1e-4, atol=1e-4)
        checked.append(len(t))
        return minimize(loss, start, **options)

    monkeypatch.setattr(regions, "minimize", check)
    score = np.concatenate(data.score)
    RegionCalibrator.fit(
        score, score[::-1], labels, score > 0.5, 3,
        around=Surroundings(data.seen, Likeness.fit(data.seen, seed=0), 1.0),
    )  # fmt: skip
    assert checked == [2 + 1 + 3 + 10 + (1 + 3) * (INSIDE + PLACES)]


def test_far_from_all_labelled_images_nothing_is_added_for_the_image() -> None:
    data = world(80)
    found = data.out_of_fold().calibrated().regions.context
    far = Seen(np.full(6, 1e3, np.float32), np.zeros((2, INSIDE + PLACES), np.float32))
    of_regions = found.of_image.likeness.scaled(far.regions) @ found.of_regions[0]
    label = np.zeros(2, int)
    np.testing.assert_allclose(found.log_odds(far, label), of_regions, atol=1e-9)


def test_a_property_never_seen_before_counts_within_limits() -> None:
    likeness = Likeness.fit(world(20).seen, seed=0)
    odd = np.full((1, INSIDE + PLACES), 1e9, np.float32)
    np.testing.assert_array_equal(likeness.scaled(odd), np.full_like(odd, FAR))


def test_images_that_are_copies_of_each_other_are_compared() -> None:
    data = world(LEAST_IMAGES)
    one = data.seen[0].image
    seen = [Seen(one, s.regions) for s in data.seen]
    around = Surroundings(seen, Likeness.fit(seen, seed=0), 1.0)
    assert np.isfinite(around.images).all()
    assert np.isfinite(around.regions).all()


def test_of_very_many_images_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "MOST_CENTRES", 30)
    monkeypatch.setattr(outcomes, "MOST_IMAGES", 70)
    asked = []
    fit = RegionCalibrator.fit

    def counted(score, *rest, **more):
        asked.append(len(score))
        return fit(score, *rest, **more)

    monkeypatch.setattr(RegionCalibrator, "fit", counted)
    found = world(120).out_of_fold().calibrated().regions
    assert found.context.of_image.likeness.centres.shape[0] == 30
    assert asked[-1 - outcomes.FOLDS] == 70 * 8
    assert off(found, world(60, seed=1)) < 0.15


def test_areas_of_which_nothing_is_known_teach_nothing() -> None:
    data = world(80)
    before = data.out_of_fold().calibrated().regions
    for n in range(80):
        k, s, d = data.kept[n], data.seen[n], data.drawn[n]
        box = np.array([[0.1, 0.5, 0.2, 0.6]])
        data.kept[n] = Regions(
            np.concatenate([k.boxes, box]), np.append(k.label, 0), np.append(k.quality, 0.5),
            np.concatenate([k.scores, [[0.9]]]),
        )  # fmt: skip
        data.seen[n] = Seen(s.image, np.concatenate([s.regions, s.regions[:1]]))
        data.drawn[n] = BoxLabels(d.boxes, d.labels, d.accepted, box)
    after = data.out_of_fold().calibrated().regions
    assert after.slope == pytest.approx(before.slope, abs=0.02)


def test_a_calibration_with_a_context_is_stored_and_asks_for_what_was_seen() -> None:
    data = world(LEAST_IMAGES)
    found = data.out_of_fold().calibrated()
    assert found.needs_seen
    back = BoxCalibration.restore(found.arrays())
    kept, seen, score = data.kept[0], data.seen[0], data.score[0]
    p = found.p_right(kept, score, seen)
    np.testing.assert_array_equal(back.p_right(kept, score, seen), p)
    assert back.images.missed(p, seen) == found.images.missed(p, seen)
    assert back.images.missed(p, seen) != replace(back.images, effect=None).missed(p)
    with pytest.raises(ModelError, match="needs what was seen"):
        back.p_right(kept, score)
    plain = BoxCalibration(RegionCalibrator(1.0, 0.0, np.zeros(1)), ImageCalibrator())
    assert not plain.needs_seen
    assert not BoxCalibration.restore(plain.arrays()).needs_seen


def test_an_image_is_trusted_with_regard_to_what_its_regions_share() -> None:
    found = world(LEAST_IMAGES).out_of_fold().calibrated()
    far = Seen(np.full(6, 1e3, np.float32), np.zeros((3, INSIDE + PLACES), np.float32))
    p = np.array([0.9, 0.8, 0.8])
    shared = found.regions.context.doubt(far)
    assert found.p_all_right(p, far) == found.images.p_all_right(p, far, shared)
    # Regions that are right or wrong together are all right more often.
    assert found.p_all_right(p, far) > found.images.p_all_right(p, far) + 1e-3


def test_images_are_calibrated_with_the_doubt_of_contexts_that_do_not_know_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = world(LEAST_IMAGES)
    data, given, fit = made.out_of_fold(), [], ImageCalibrator.fit

    def spy(*args):
        given.append(args)
        return fit(*args)

    monkeypatch.setattr(ImageCalibrator, "fit", spy)
    rows = np.random.default_rng(0).permutation(LEAST_IMAGES)[:40]
    found = data.calibrated(rows)
    p_right, missed, right, around, doubt = given[0]
    stated, shared = data._cross_fitted(rows, data.strength)
    np.testing.assert_array_equal(doubt, shared)
    np.testing.assert_array_equal(p_right, stated)
    known = [found.regions.doubt(made.seen[n]) for n in rows]
    assert (doubt > known).all()
    assert fit(p_right, missed, right, around, doubt).offset == found.images.offset
    assert fit(p_right, missed, right, around).offset != found.images.offset


def test_an_image_is_seen_by_its_maps_and_the_regions_on_it() -> None:
    maps: ImageMaps = painted(random_drawing(np.random.default_rng(0)), rows=2, columns=3)
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.99, 1.0]])
    kept = SimpleNamespace(boxes=boxes, score=np.array([0.9, 0.5, 0.2]))
    seen = Seen.of(maps, kept)
    channels = [len(level) for level in maps.levels]
    assert seen.image.shape == (2 * sum(channels),)
    first = maps.levels[0].astype(np.float32).reshape(channels[0], -1)
    np.testing.assert_allclose(seen.image[: channels[0]], first.mean(1), rtol=1e-5)
    np.testing.assert_allclose(
        seen.image[sum(channels) :][: channels[0]], first.std(1), rtol=1e-4, atol=1e-6
    )
    places = seen.regions[:, -PLACES:]
    np.testing.assert_allclose(places[:, :2], boxes[:, 2:] - boxes[:, :2], atol=1e-6)
    np.testing.assert_allclose(places[:, 2:6], boxes, atol=1e-6)
    np.testing.assert_allclose(places[:, 6], [0, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(places[:, 7], [0.25, 0.25, 0], atol=1e-6)  # with any
    np.testing.assert_allclose(places[:, 8], [0, 0.25, 0], atol=1e-6)  # with a better one
    np.testing.assert_allclose(places[:, 9], [0.25, 0.25, 0], atol=1e-6)  # with bold ones
    none = Seen.of(maps, SimpleNamespace(boxes=np.zeros((0, 4)), score=np.zeros(0)))
    assert none.regions.shape == (0, channels[0] + PLACES)


def test_more_is_missed_in_images_of_some_kinds() -> None:
    data, rng = world(200, regions=1), np.random.default_rng(4)
    kind = np.array([one.image.mean() > 2 for one in data.seen])
    missed = rng.poisson(np.where(kind, 1.2, 0.2))
    p_right = [np.array([0.1, 0.9])] * 200
    around = Surroundings(data.seen, Likeness.fit(data.seen, seed=0), 1.0)
    found = ImageCalibrator.fit(p_right, missed, missed == 0, around)
    new = world(40, regions=1, seed=5)
    of_kind = np.array([one.image.mean() > 2 for one in new.seen])
    stated = np.array([found.missed(p_right[0], one) for one in new.seen])
    plain = ImageCalibrator.fit(p_right, missed, missed == 0)
    alike = plain.missed(p_right[0])
    assert stated[of_kind].mean() > 1.3 * alike
    assert stated[~of_kind].mean() < 0.75 * alike
    trusted = np.array([found.p_all_right(p_right[0], one) for one in new.seen])
    assert trusted[of_kind].mean() < trusted[~of_kind].mean() - 0.1
    far = Seen(np.full(6, 1e3, np.float32), new.seen[0].regions)
    assert found.missed(p_right[0], far) == pytest.approx(alike)
    with pytest.raises(ModelError, match="needs what was seen"):
        found.missed(p_right[0])


def test_how_much_is_missed_is_learnt_from_images_that_are_less_alike() -> None:
    found = world(LEAST_IMAGES).out_of_fold().calibrated()
    near, effect = found.regions.context.of_image.likeness, found.images.effect.likeness
    assert effect.sharpness == pytest.approx(near.sharpness / 16)
    np.testing.assert_array_equal(effect.centres, near.centres)


def test_the_effect_on_counts_is_the_mode_of_its_posterior() -> None:
    """By scipy's Newton steps on the logarithms of the rates themselves."""
    data, rng = world(25), np.random.default_rng(6)
    counts, expected = rng.poisson(1.0, 25), rng.uniform(0.2, 2.0, 25)
    likeness = Likeness.fit(data.seen, seed=0)
    effect = rate_effect(Surroundings(data.seen, likeness, 0.8), counts, expected)
    images = np.array([one.image for one in data.seen])
    places = (images - likeness.middle) / likeness.spread @ likeness.directions.T
    apart = ((places[:, None] - places[None]) ** 2).sum(2)
    covariance = 0.8 * OF_IMAGE * np.exp(-likeness.sharpness * apart) + 1e-9 * np.eye(25)
    inverse = np.linalg.inv(covariance)
    f = np.zeros(25)
    for _ in range(50):
        rate = expected * np.exp(f)
        f = f + np.linalg.solve(np.diag(rate) + inverse, counts - rate - inverse @ f)
    np.testing.assert_allclose([effect.of(one) for one in data.seen], f, atol=2e-3)


@pytest.mark.parametrize("doubt", [0.0, 0.05, 0.5, 2.0])
def test_regions_of_an_image_are_right_or_wrong_together(doubt: float) -> None:
    z = np.array([-1.0, 0.5, 1.0, 2.5])
    drawn = np.random.default_rng(0).normal(size=400_000) * np.sqrt(doubt)
    each = np.log(expit(z[:, None] + drawn)).sum(axis=0)
    p_right = expit(z / np.sqrt(1 + np.pi / 8 * doubt))
    assert log_all_right(p_right, doubt) == pytest.approx(np.log(np.exp(each).mean()), abs=0.01)
    assert log_all_right(p_right, doubt) >= np.log(p_right).sum() - 1e-9
    assert log_all_right(p_right[:0], doubt) == pytest.approx(0, abs=1e-12)
