from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from model.calibration.base import UNKNOWN_REST, OutOfFold, Rest, logit, with_top
from model.calibration.choose import Published, choose_calibrator, cross_fitted
from model.calibration.doubt import Doubt, fit_doubt, unseen_lift
from model.calibration.families import CALIBRATORS
from model.calibration.metrics import brier, ece
from model.calibration.temperature import fit_temperature, soften
from model.calibration.top import lift_of_rest
from model.errors import ModelError, ShapeError, UnknownNameError

NAMES = sorted(CALIBRATORS)


def drawn(count: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right by construction, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.3), count)
    labels = (probs.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return probs, np.minimum(labels, classes - 1)


def published_error(found: Published, probs: np.ndarray, labels: np.ndarray) -> float:
    right = found.probs(probs).argmax(axis=1) == labels
    return ece(found.p_right(probs), right)


BAD = {
    "no label": (np.zeros((0, 3)), np.zeros(0, np.int64)),
    "one label": (np.array([[0.2, 0.5, 0.3]]), np.array([0])),
    "one class": (np.ones((5, 1)), np.zeros(5, np.int64)),
    "single labels": (np.full((4, 4), 0.25), np.arange(4)),
    "certain and right": (np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])),
    "certain and wrong": (np.eye(3)[[0, 1, 2, 0]], np.array([1, 2, 0, 2])),
    "all the same": (np.tile([0.5, 0.3, 0.2], (40, 1)), np.arange(40) % 3),
    "a thousand classes": (np.full((30, 1000), 1e-3), np.arange(30) // 2),
}


@pytest.mark.parametrize("name", [*NAMES, "auto"])
@pytest.mark.parametrize("case", BAD)
def test_whatever_comes_probabilities_come_out(name: str, case: str) -> None:
    probs, labels = BAD[case]
    found = choose_calibrator(
        OutOfFold.of(probs, labels, np.arange(len(labels)) % 2 == 0), name=name
    )
    fresh = np.random.default_rng(1).dirichlet(np.full(probs.shape[1], 0.2), 50)
    fresh[0] = np.eye(probs.shape[1])[0]
    for raw in (fresh, fresh[:0]):
        before = raw.copy()
        calibrated, p = found.probs(raw), found.p_right(raw)
        np.testing.assert_array_equal(raw, before)
        assert calibrated.shape == raw.shape
        assert np.isfinite(calibrated).all()
        assert (calibrated >= 0.0).all()
        np.testing.assert_allclose(calibrated.sum(axis=1), 1.0, atol=1e-9)
        assert p.shape == (len(raw),)
        assert ((p > 0.0) & (p < 1.0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_arrays_bring_it_back_through_json(name: str) -> None:
    probs, labels = drawn(300)
    found = choose_calibrator(OutOfFold.of(probs, labels), name=name)
    text = json.dumps({key: value.tolist() for key, value in found.arrays().items()})
    back = Published.restore(name, {key: np.array(v) for key, v in json.loads(text).items()})
    np.testing.assert_array_equal(back.probs(probs), found.probs(probs))
    np.testing.assert_array_equal(back.p_right(probs), found.p_right(probs))


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_influence_each_other(name: str) -> None:
    probs, labels = drawn(200)
    found = CALIBRATORS[name].fit(OutOfFold.of(probs, labels))
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_allclose(found.p_right(probs[order]), found.p_right(probs)[order])
    np.testing.assert_allclose(found.probs(probs[order]), found.probs(probs)[order])


@pytest.mark.parametrize("name", NAMES)
def test_renaming_classes_renames_the_result(name: str) -> None:
    probs, labels = drawn(200)
    new = np.array([2, 0, 3, 1])
    renamed = np.empty_like(probs)
    renamed[:, new] = probs
    there = CALIBRATORS[name].fit(OutOfFold.of(probs, labels))
    back = CALIBRATORS[name].fit(OutOfFold.of(renamed, new[labels]))
    np.testing.assert_allclose(back.probs(renamed)[:, new], there.probs(probs), atol=2e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
@pytest.mark.parametrize("power", [0.4, 1.0, 3.0])
def test_many_labels_calibrate_any_temperature(name: str, power: float) -> None:
    probs, labels = drawn(23_000)
    raw = soften(probs, 1.0 / power)
    found = choose_calibrator(OutOfFold.of(raw[:3000], labels[:3000]), name=name)
    assert published_error(found, raw[3000:], labels[3000:]) < 0.03


def test_calibrated_probabilities_stay_as_they_are() -> None:
    probs, labels = drawn(4000)
    for name in NAMES:
        found = CALIBRATORS[name].fit(OutOfFold.of(probs, labels))
        assert np.abs(found.p_right(probs) - probs.max(axis=1)).mean() < 0.025, name


@pytest.mark.parametrize("loss", ["brier", "likelihood"])
def test_temperature_is_where_a_grid_finds_the_least_loss(loss: str) -> None:
    probs, labels = drawn(400)
    raw = soften(probs, 0.5)
    grid = np.linspace(-3, 3, 2001)
    rows = np.arange(400)

    def cost(log_t: float) -> float:
        scaled = soften(raw, float(np.exp(log_t)))
        if loss == "brier":
            total = ((scaled - np.eye(4)[labels]) ** 2).sum()
        else:
            total = -np.log(np.maximum(scaled[rows, labels], 1e-12)).sum()
        return float(total + 2.0 * np.log1p(((log_t - np.log(0.9)) / 0.35) ** 2 / 4.0))

    best = grid[int(np.argmin([cost(value) for value in grid]))]
    found = fit_temperature(raw, labels, loss=loss)  # type: ignore[arg-type]  # of a parameter
    assert np.log(found) == pytest.approx(best, abs=5e-3)


def test_platt_equals_scikit_learn_where_labels_outweigh_the_prior() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    probs, _ = drawn(20_000)
    x = logit(probs.max(axis=1))
    right = rng.random(20_000) < expit(0.9 * x - 0.5)
    labels = np.where(right, probs.argmax(axis=1), probs.argmin(axis=1))
    found = CALIBRATORS["platt"].fit(OutOfFold.of(probs, labels))
    temperature = float(found.arrays()["logistic"][0])
    top = logit(soften(probs, temperature).max(axis=1))
    reference = linear.LogisticRegression(C=1e6).fit(top[:, None], right)
    expected = reference.predict_proba(top[:, None])[:, 1]
    np.testing.assert_allclose(found.p_right(probs), expected, atol=0.01)


def test_isotonic_equals_scikit_learn_up_to_its_prior() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    probs, labels = drawn(20_000)
    raw = soften(probs, 0.4)
    x, right = raw.max(axis=1), (raw.argmax(axis=1) == labels).astype(float)
    found = CALIBRATORS["isotonic"].fit(OutOfFold.of(raw, labels)).p_right(raw)
    reference = isotonic.IsotonicRegression().fit_transform(x, right)
    assert np.abs(found - reference).mean() < 0.01
    order = np.argsort(x)
    assert (np.diff(found[order]) >= -1e-12).all()


def test_vector_scaling_mends_classes_that_are_overrated() -> None:
    probs, labels = drawn(8000)
    raw = probs * np.array([3.0, 1.0, 1.0, 0.4])
    raw /= raw.sum(axis=1, keepdims=True)
    data = OutOfFold.of(raw[:4000], labels[:4000])
    vector = CALIBRATORS["vector"].fit(data).probs(raw[4000:])
    plain = CALIBRATORS["temperature"].fit(data).probs(raw[4000:])
    assert brier(vector, labels[4000:]) < brier(plain, labels[4000:]) - 0.005
    assert brier(vector, labels[4000:]) == pytest.approx(
        brier(probs[4000:], labels[4000:]), abs=5e-3
    )


def test_with_top_keeps_the_order_and_says_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    probs, p = rng.dirichlet(np.ones(5), 500), rng.random(500)
    found = with_top(probs, p)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.max(axis=1), np.maximum(p, 0.2))
    bold = p > 0.2
    np.testing.assert_array_equal(np.argsort(found[bold]), np.argsort(probs[bold]))
    np.testing.assert_allclose(with_top(probs, probs.max(axis=1)), probs)


# --- the rule ------------------------------------------------------------------------------------


def selected(
    labels: int, seed: int, *, power: float = 1.0, handicap: float = 0.3
) -> tuple[OutOfFold, np.ndarray, np.ndarray]:
    """A pool of 10 classes, a fifth of the labels drawn, the rest asked for in doubt.

    What is asked for is harder than its probability says: its log odds of being right are lower
    by `handicap`. Returns the labels, and probabilities and truth of the pool.
    """
    rng = np.random.default_rng(seed)
    pool, truth = drawn(4000, 10, seed)
    pool = soften(pool, 0.6)
    truth = np.where(
        rng.random(4000) < expit(logit(pool.max(axis=1)) + 0.5), pool.argmax(axis=1), truth
    )
    share = rng.choice(4000, labels // 5, replace=False)
    doubtful = np.argsort(pool.max(axis=1) + 0.15 * rng.random(4000))[: labels - len(share)]
    rows = np.concatenate([share, doubtful])
    random = np.arange(labels) < len(share)
    p = expit(logit(pool[rows].max(axis=1)) - handicap)
    second = np.argsort(pool[rows], axis=1)[:, -2]
    missed = ~random & (rng.random(labels) > p)
    seen = np.where(missed, second, np.where(random, truth[rows], pool[rows].argmax(axis=1)))
    pool = soften(pool, 1.0 / power)
    rest = np.setdiff1d(np.arange(4000), rows)
    return (
        OutOfFold.of(pool[rows], seen, random, rest=Rest(pool[rest][::3], len(rest))),
        pool,
        truth,
    )


def test_selection_bias_is_taken_out_by_the_random_share() -> None:
    """Out of fold far fewer are right than in the pool; the published number follows the pool."""
    errors: dict[str, list[float]] = {"auto": [], "temperature": []}
    for seed in range(4):
        data, pool, truth = selected(400, seed)
        accuracy = (data.probs.argmax(axis=1) == data.labels).mean()
        assert accuracy < (pool.argmax(axis=1) == truth).mean() - 0.2
        for name, found in errors.items():
            found.append(published_error(choose_calibrator(data, name=name), pool, truth))
    assert np.mean(errors["auto"]) < 0.08
    assert np.mean(errors["auto"]) < 0.8 * np.mean(errors["temperature"])


def test_the_rest_of_a_small_pool_is_easier_by_what_was_taken_out() -> None:
    """Brute force: a pool of known chances, the doubtful taken out with their handicap."""
    rng = np.random.default_rng(0)
    whole = rng.normal(1.0, 1.5, 20_000)
    chosen = whole < 0.0
    lift = lift_of_rest(whole[chosen], whole[~chosen][::7], float((~chosen).sum()), 0.4)
    kept = expit(whole[chosen] - 0.4).sum() + expit(whole[~chosen] + lift).sum()
    assert kept == pytest.approx(expit(whole).sum(), rel=2e-3)
    assert lift > 0.1


@pytest.mark.parametrize(("handicap", "expected"), [(0.0, 0.0), (20.0, 3.0), (-20.0, -3.0)])
def test_the_lift_of_the_rest_has_its_limits(handicap: float, expected: float) -> None:
    assert lift_of_rest(np.zeros(900), np.zeros(5), 9.0, handicap) == pytest.approx(
        expected, abs=1e-3
    )


def test_the_rest_matters_where_much_of_it_was_chosen() -> None:
    data, pool, _ = selected(400, 0)
    known = choose_calibrator(data).p_right(pool).mean()
    unknown = choose_calibrator(replace(data, rest=UNKNOWN_REST)).p_right(pool).mean()
    large = choose_calibrator(replace(data, rest=Rest(data.rest.probs, 1e9))).p_right(pool).mean()
    assert known > unknown + 0.005
    assert large == pytest.approx(unknown, abs=1e-4)


@pytest.mark.parametrize("labels", [200, 400])
@pytest.mark.parametrize("power", [4.0, 12.0])
def test_an_overfitted_head_is_not_believed(labels: int, power: float) -> None:
    """Its own confidence is off by far, what is published by 0.05 at most (drawn labels)."""
    probs, truth = drawn(6000, 10, 3)
    raw = soften(probs, 1.0 / power)
    errors = []
    for seed in range(4):
        rows = np.random.default_rng(seed).choice(6000, labels, replace=False)
        found = choose_calibrator(OutOfFold.of(raw[rows], truth[rows]))
        errors.append(published_error(found, raw, truth))
    assert ece(raw.max(axis=1), raw.argmax(axis=1) == truth) > 0.12
    assert np.mean(errors) <= 0.05


def test_few_labels_or_no_share_leave_one_number() -> None:
    probs, labels = drawn(40)
    few = OutOfFold.of(probs, labels, np.arange(40) < 4)
    none = OutOfFold.of(probs, labels, np.zeros(40, bool))
    assert choose_calibrator(few).name == choose_calibrator(none).name == "temperature"
    probs, labels = drawn(100)
    assert choose_calibrator(OutOfFold.of(probs, labels, np.arange(100) < 20)).name == "selection"


def test_many_labels_let_the_data_decide() -> None:
    probs, labels = drawn(5000)
    assert choose_calibrator(OutOfFold.of(probs, labels)).name == "selection"
    overrated = probs * np.array([4.0, 1.0, 1.0, 0.3])
    overrated /= overrated.sum(axis=1, keepdims=True)
    chosen = choose_calibrator(OutOfFold.of(overrated, labels))
    assert chosen.name == "vector"
    assert (
        chosen.facts["calibrator_scores"]["vector"] < chosen.facts["calibrator_scores"]["selection"]
    )


def test_a_curve_that_no_line_fits_gets_steps() -> None:
    rng = np.random.default_rng(0)
    top = rng.uniform(0.4, 0.99, 8000)
    raw = np.column_stack([top, (1 - top) * 0.6, (1 - top) * 0.4])
    right = rng.random(8000) < np.where(top < 0.7, 0.3, 0.9)
    labels = np.where(right, 0, rng.integers(1, 3, 8000))
    found = choose_calibrator(OutOfFold.of(raw[:4000], labels[:4000]))
    line = choose_calibrator(OutOfFold.of(raw[:4000], labels[:4000]), name="selection")
    assert found.name == "isotonic"
    mended = published_error(found, raw[4000:], labels[4000:])
    assert mended < 0.04
    assert mended < 0.5 * published_error(line, raw[4000:], labels[4000:])


@pytest.mark.slow
def test_a_hundred_thousand_labels_are_used() -> None:
    probs, labels = drawn(100_000, 10)
    found = choose_calibrator(OutOfFold.of(soften(probs, 0.5), labels))
    assert published_error(found, soften(probs, 0.5), labels) < 0.01


def test_cross_fitting_predicts_every_label_without_it() -> None:
    probs, labels = drawn(50)
    data = OutOfFold.of(probs, labels)
    found = cross_fitted(data, CALIBRATORS["temperature"])
    fold = np.random.default_rng(0).permutation(50) % 5
    for number in range(5):
        held = fold == number
        again = CALIBRATORS["temperature"].fit(data.take(~held)).probs(probs[held])
        np.testing.assert_allclose(found[held], again)
    assert cross_fitted(data.take(slice(0, 0)), CALIBRATORS["platt"]).shape == (0, 4)


def test_doubt_shrinks_towards_what_was_right() -> None:
    right = np.array([True, True, False, True])
    found = fit_doubt(right, np.array([1.0, 1.0, 1.0, 0.0]), 10)
    assert found.base == pytest.approx((2 + 0.1) / 4)
    assert found.trust == pytest.approx(4 / 4.5)
    stated = found.trust + (1 - found.trust) * found.base
    assert found.apply(np.array([1.0]))[0] == pytest.approx(stated)
    assert Doubt(1.0, 0.5).apply(np.array([0.0, 1.0])).tolist() == [1e-6, 1 - 1e-6]
    assert fit_doubt(np.zeros(0, bool), np.zeros(0), 4) == Doubt(0.0, 0.25)


def test_classes_without_a_label_lower_what_is_stated() -> None:
    """The mean comes down by the share of unseen classes, and the order stays."""
    probs, labels = drawn(400)
    wide = np.column_stack([probs, np.zeros((400, 6))])
    data = OutOfFold.of(wide, labels)
    p = np.random.default_rng(0).beta(4, 1, 2000)
    lift = unseen_lift(data, p)
    mass = data.weights.sum()
    share = 6 / (400 + 10) * mass / (mass + 3)
    lowered = Doubt(1.0, 0.0, lift).apply(p)
    assert lowered.mean() == pytest.approx(p.mean() * (1 - share), abs=1e-4)
    assert (np.diff(lowered[np.argsort(p)]) >= 0).all()
    assert unseen_lift(OutOfFold.of(probs, labels), p) == 0.0
    assert unseen_lift(data, p[:0]) == 0.0
    assert unseen_lift(data.take(slice(0, 0)), p) == 0.0
    single = OutOfFold.of(wide[:4], np.arange(4))
    assert unseen_lift(single, p) == pytest.approx(0.0, abs=1e-3)  # no label counts: the head's own


def test_versions_stored_before_there_was_a_lift_are_read() -> None:
    probs, labels = drawn(100)
    arrays = choose_calibrator(OutOfFold.of(probs, labels)).arrays()
    old = arrays | {"doubt": arrays["doubt"][:2]}
    assert Published.restore("selection", old).doubt.lift == 0.0


def test_bad_input_is_refused() -> None:
    probs, labels = drawn(10)
    with pytest.raises(ShapeError):
        OutOfFold.of(probs[None], labels)
    with pytest.raises(ShapeError):
        OutOfFold.of(probs, labels[:3])
    with pytest.raises(ShapeError):
        OutOfFold.of(probs, labels, np.ones(3, bool))
    with pytest.raises(ModelError, match="probabilities"):
        OutOfFold.of(probs * np.nan, labels)
    with pytest.raises(ModelError, match="outside"):
        OutOfFold.of(probs, labels + 9)
    with pytest.raises(UnknownNameError, match="Did you mean 'platt'"):
        choose_calibrator(OutOfFold.of(probs, labels), name="plat")
