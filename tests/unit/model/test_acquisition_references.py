"""Each rule against its definition, written out slowly."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare, entropy

from model.acquisition import select
from model.acquisition.badge import draw_gradients
from model.acquisition.base import Pool, seed_centres
from model.acquisition.coreset import coreset
from model.acquisition.disagreement import most_joint_information
from model.acquisition.dropquery import label_changes
from model.acquisition.epig import MOST_OUTCOMES, coarse, expected_information
from model.acquisition.herding import drawn_for_sums, most_covered, uncertainty_herding
from model.acquisition.power import draw_in_proportion
from model.acquisition.probcover import cover, pure_radius
from model.acquisition.variance import (
    MOST_LABELS,
    NOISE,
    least_variance,
    least_variance_of_groups,
    left_by_labels,
    nearest_to_most,
    variance_reduction,
)
from model.types import Predictions


def some_passes(items: int, passes: int, classes: int, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), (items, passes))
    return draws.astype(np.float64)


def unit(features: np.ndarray) -> np.ndarray:
    rows = features - features.mean(axis=0)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def joint_information(passes: np.ndarray) -> float:
    """Between the labels of all items of ``(N, K, C)`` and the pass, by enumeration."""
    items, count, classes = passes.shape
    mixture = []
    for outcome in itertools.product(range(classes), repeat=items):
        each = np.prod([passes[i, :, c] for i, c in enumerate(outcome)], axis=0)
        mixture.append(each.mean())
    conditional = sum(entropy(passes[i, k]) for i in range(items) for k in range(count)) / count
    return float(entropy(mixture) - conditional)


def test_scores_are_ordered_by_definition() -> None:
    passes = some_passes(40, 5, 4)
    probs = passes.mean(axis=1)
    total = entropy(probs, axis=1)
    epistemic = total - entropy(passes, axis=2).mean(axis=1)
    ordered = np.sort(probs, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    said = Predictions(
        probs, probs.argmax(axis=1), ordered[:, -1], margin, total, total - epistemic, epistemic
    )
    expected = {
        "entropy": -total,
        "least-confidence": probs.max(axis=1),
        "margin": margin,
        "bald": -epistemic,
    }
    for name, key in expected.items():
        chosen = select(
            name,
            pool=np.zeros((40, 2), np.float32),
            n=12,
            predictions=said,
            sample=lambda rows: passes[: len(rows)],
        )
        assert chosen.rows.tolist() == np.argsort(key).tolist()[:12]
        assert chosen.probability is None


def test_ties_are_broken_at_random() -> None:
    said = Predictions(np.full((6, 2), 0.5), np.zeros(6, np.int64), *[np.zeros(6)] * 5)
    pool = np.zeros((6, 2), np.float32)
    first = {
        int(select("entropy", pool=pool, n=1, predictions=said, seed=seed).rows[0])
        for seed in range(60)
    }
    assert first == set(range(6))


@pytest.mark.parametrize("classes", [2, 3])
def test_batchbald_is_the_greedy_maximum_of_the_joint_information(classes: int) -> None:
    passes = some_passes(9, 4, classes, seed=classes)
    chosen, gains = most_joint_information(passes, 4, np.random.default_rng(0))
    batch: list[int] = []
    for row, gain in zip(chosen.tolist(), gains.tolist(), strict=True):
        values = {i: joint_information(passes[[*batch, i]]) for i in range(9) if i not in batch}
        before = joint_information(passes[batch]) if batch else 0.0
        assert row == max(values, key=values.__getitem__)
        assert gain == pytest.approx(values[row] - before, abs=1e-9)
        batch.append(row)


def test_batchbald_by_drawn_outcomes_comes_close(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = some_passes(6, 8, 4)
    _, exact = most_joint_information(passes, 6, np.random.default_rng(0))
    monkeypatch.setattr("model.acquisition.disagreement.OUTCOMES", 300)
    _, drawn = most_joint_information(passes, 6, np.random.default_rng(0))
    assert exact.sum() == pytest.approx(joint_information(passes), abs=1e-9)
    assert drawn.sum() == pytest.approx(exact.sum(), rel=0.03)


def test_batchbald_takes_no_copy_of_what_it_has() -> None:
    certain = np.eye(2)[[0, 1]]  # one pass says the first class, the other the second
    doubtful = np.array([[0.6, 0.4], [0.4, 0.6]])
    passes = np.stack([certain, certain, doubtful])
    chosen, gains = most_joint_information(passes, 3, np.random.default_rng(0))
    assert chosen.tolist() == [0]
    assert gains == pytest.approx([np.log(2)])


def test_epig_is_the_mutual_information_with_the_targets() -> None:
    items, targets = some_passes(5, 6, 3, seed=1), some_passes(4, 6, 4, seed=2)
    expected = np.zeros(5)
    for i, item in enumerate(items):
        for target in targets:
            joint = sum(np.outer(item[k], target[k]) for k in range(6)) / 6
            product = np.outer(item.mean(axis=0), target.mean(axis=0))
            expected[i] += (joint * np.log(joint / product)).sum() / len(targets)
    np.testing.assert_allclose(expected_information(items, targets), expected, atol=1e-12)


def test_epig_is_zero_when_all_passes_agree_and_bald_when_the_target_is_the_pass() -> None:
    agreeing = np.repeat(some_passes(3, 1, 4), 5, axis=1)
    assert expected_information(agreeing, some_passes(3, 5, 2)) == pytest.approx(0, abs=1e-12)
    items = some_passes(4, 5, 3)
    bald = entropy(items.mean(axis=1), axis=1) - entropy(items, axis=2).mean(axis=1)
    np.testing.assert_allclose(expected_information(items, np.eye(5)[None]), bald, atol=1e-12)


def test_fewer_outcomes_are_still_probabilities_and_never_more_information() -> None:
    passes = some_passes(6, 4, 40)
    fewer = coarse(passes)
    assert fewer.shape == (6, 4, MOST_OUTCOMES)
    np.testing.assert_allclose(fewer.sum(axis=2), 1.0)
    targets = some_passes(5, 4, 3)
    exact = expected_information(passes, targets)
    assert (expected_information(fewer, targets) <= exact + 1e-12).all()


def test_badge_draws_as_k_means_plus_plus_among_explicit_gradients() -> None:
    """The origin is given to k-means++ as a row of its own that is drawn first."""
    rng = np.random.default_rng(0)
    probs, features = rng.dirichlet(np.ones(5), 60), unit(rng.normal(size=(60, 7)))
    errors = probs - np.eye(5)[probs.argmax(axis=1)]
    gradients = np.einsum("nc,nd->ncd", errors, features).reshape(60, -1)
    rows = np.concatenate([np.zeros((1, 35)), gradients]).astype(np.float32)

    class OriginFirst:
        """Gives the origin's draw, then the same numbers as the generator under test."""

        def __init__(self) -> None:
            self.values = [0.0, *np.random.default_rng(7).random(12)]

        def random(self) -> float:
            return self.values.pop(0)

    expected = seed_centres(rows, np.ones(61), 13, OriginFirst())  # type: ignore[arg-type]
    drawn = draw_gradients(errors, features, 12, np.random.default_rng(7))
    assert drawn.rows.tolist() == (expected[1:] - 1).tolist()
    squares = (gradients**2).sum(axis=1)
    assert drawn.probability is not None
    assert drawn.probability[0] == pytest.approx(squares[drawn.rows[0]] / squares.sum(), rel=1e-5)
    first = ((gradients - gradients[drawn.rows[0]]) ** 2).sum(axis=1)
    mass = np.minimum(squares, first)
    assert drawn.probability[1] == pytest.approx(mass[drawn.rows[1]] / mass.sum(), rel=1e-5)


def test_drawing_in_proportion_has_the_probabilities_it_states() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    pairs: Counter[tuple[int, int]] = Counter()
    stated: dict[tuple[int, int], float] = {}
    for seed in range(4000):
        drawn = draw_in_proportion(scores, 2, seed=seed)
        pair = (int(drawn.rows[0]), int(drawn.rows[1]))
        pairs[pair] += 1
        assert drawn.probability is not None
        stated[pair] = float(drawn.probability.prod())
    for (a, b), probability in stated.items():
        assert probability == pytest.approx(scores[a] / 10 * scores[b] / (10 - scores[a]))
    order = sorted(stated)
    found = chisquare([pairs[p] for p in order], [4000 * stated[p] for p in order])
    assert found.pvalue > 0.001


def test_weights_from_the_stated_probabilities_give_unbiased_estimates() -> None:
    """LURE (Farquhar et al. 2021) of a loss that is largest where the score is."""
    scores = np.linspace(0.0, 1.0, 12)
    losses = scores**2 + 0.1
    size, picks = len(scores), 5
    number = np.arange(1, picks + 1)
    estimates = []
    for seed in range(3000):
        drawn = draw_in_proportion(scores + 0.2, picks, seed=seed)
        assert drawn.probability is not None
        inner = 1.0 / ((size - number + 1) * drawn.probability) - 1.0
        weights = 1.0 + (size - picks) / (size - number) * inner
        estimates.append((weights * losses[drawn.rows]).mean())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(losses.mean(), abs=4 * error)
    assert abs(np.mean(losses[-picks:]) - losses.mean()) > 50 * error  # what a plain mean does


def test_all_scores_zero_draw_uniformly() -> None:
    drawn = draw_in_proportion(np.zeros(5), 5, seed=0)
    assert drawn.probability == pytest.approx([1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0])
    uniform = select("random", pool=np.zeros((5, 1), np.float32), n=5)
    assert uniform.probability == pytest.approx([1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0])


@pytest.mark.parametrize("known", [0, 5])
def test_coreset_is_naive_greedy_k_center(known: int) -> None:
    rng = np.random.default_rng(known)
    features = rng.normal(size=(50, 6)).astype(np.float32)
    labelled = rng.normal(size=(known, 6)).astype(np.float32) if known else None
    centre = features.mean(axis=0)
    rows = unit(features)
    if labelled is None:
        chosen = [int(np.linalg.norm(rows - rows.mean(axis=0), axis=1).argmin())]
        taken = [rows[chosen[0]]]
    else:
        shifted = labelled - centre
        taken = list(shifted / np.linalg.norm(shifted, axis=1, keepdims=True))
        chosen = []
    while len(chosen) < 10:
        distances = [min(float(np.linalg.norm(row - t)) for t in taken) for row in rows]
        chosen.append(int(np.argmax(distances)))
        taken.append(rows[chosen[-1]])
    assert coreset(Pool(features, labelled, None, None), 10, seed=0).rows.tolist() == chosen


def test_cover_is_the_naive_greedy_cover() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 2)).astype(np.float32)
    is_open = rng.random(60) < 0.8
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    uncovered = set(np.flatnonzero(is_open).tolist())
    expected: list[int] = []
    while uncovered and len(expected) < 60:
        balls = [{j for j in uncovered if distances[i, j] < 0.5} for i in range(60)]
        expected.append(max(range(60), key=lambda i: len(balls[i])))
        uncovered -= balls[expected[-1]]
    assert cover(rows, 0.5, is_open, 60).tolist() == expected
    assert cover(rows, 0.5, is_open, 3).tolist() == expected[:3]


def test_the_radius_leaves_95_percent_of_the_balls_pure() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2)).astype(np.float32)
    cluster = (rows[:, 0] > 0.3).astype(np.int64)
    radius = pure_radius(rows, cluster)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)

    def purity(size: float) -> float:
        return float(
            np.mean([len(set(cluster[distances[i] < size].tolist())) == 1 for i in range(200)])
        )

    assert purity(radius * (1 - 1e-4)) >= 0.95
    assert purity(radius * 1.05) < 0.95


def test_probcover_skips_what_labelled_items_cover() -> None:
    rng = np.random.default_rng(0)
    number = np.arange(4).repeat(30)
    features = (np.eye(4)[number] * 5 + 0.1 * rng.normal(size=(120, 4))).astype(np.float32)
    chosen = select(
        "probcover", pool=features, n=2, labelled=features[[0, 30]], label_counts=np.ones(4, int)
    )
    assert set(number[chosen.rows].tolist()) == {2, 3}


def test_label_changes_count_the_passes_whose_label_differs() -> None:
    """A head that says the second class while any feature is left of those it looks at."""
    features = np.zeros((5000, 6), np.float32)
    features[:, 0] = 1.0
    features[::2, 1:5] = 1.0
    pool_mean = features.mean(axis=0)

    def sample(rows: np.ndarray) -> np.ndarray:
        seen = (np.abs(rows[:, 1:5] - pool_mean[1:5]) > 0.01).any(axis=1).astype(np.float64)
        return np.stack([1 - seen, seen], axis=1)[:, None, :]

    passes = sample(features)
    zeros = np.zeros(len(features))
    said = Predictions(
        passes[:, 0], np.ones(len(features), np.int64), zeros + 1, zeros, zeros, zeros, zeros
    )
    items = np.arange(len(features))
    pool = Pool(features, None, None, said, sample)
    changes = label_changes(pool, items, np.random.default_rng(0))
    assert set(changes.tolist()) == {0, 1, 2, 3}
    dropped = 0.75**4  # all four features it looks at
    assert changes.mean() == pytest.approx(3 * dropped, abs=4 * (3 * dropped / 5000) ** 0.5)


def test_most_covered_is_the_naive_greedy_maximum() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3))
    kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2)).astype(np.float32)
    weights, start = rng.random(40), (0.5 * rng.random(40)).astype(np.float32)
    covered = start.astype(np.float64)
    expected: list[int] = []
    for _ in range(15):
        sums = [(weights * np.maximum(covered, kernel[i])).sum() for i in range(40)]
        expected.append(int(np.argmax(sums)))
        covered = np.maximum(covered, kernel[expected[-1]])
    assert most_covered(kernel, weights, start, 15).tolist() == expected


def test_most_covered_stops_when_nothing_is_left_to_cover() -> None:
    copies = np.ones((5, 5), np.float32)
    assert most_covered(copies, np.ones(5), np.zeros(5, np.float32), 5).tolist() == [0]
    assert most_covered(copies, np.ones(5), np.ones(5, np.float32), 5).tolist() == []


def fifty_items(known: int) -> tuple[np.ndarray, np.ndarray | None, Predictions]:
    """Features of a pool and of so many labelled items, and margins drawn at random."""
    rng = np.random.default_rng(known)
    features = rng.normal(size=(50, 4)).astype(np.float32)
    labelled = rng.normal(size=(known, 4)).astype(np.float32) if known else None
    zeros, margins = np.zeros(50), rng.random(50)
    said = Predictions(zeros[:, None], np.zeros(50, np.int64), zeros, margins, *[zeros] * 3)
    return features, labelled, said


@pytest.mark.parametrize("known", [0, 7])
def test_herding_is_uncertainty_herding_written_out(known: int) -> None:
    features, labelled, said = fifty_items(known)
    margins, zeros = said.margin, np.zeros(50)
    pool = Pool(features, labelled, None, said if known else None)
    chosen = uncertainty_herding(pool, 6, seed=0).rows.tolist()
    rows, doubt = pool.rows.astype(np.float64), 1 - margins if known else np.ones(50)
    labels = pool.known_rows if known else rows[np.random.default_rng(0).permutation(50)[:6]]
    squares = ((rows[:, None] - labels[None]) ** 2).sum(axis=2).min(axis=1)
    radius = np.median(squares)
    covered = np.exp(-squares / radius) if known else zeros
    kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2) / radius)
    for row in chosen:
        sums = [(doubt * np.maximum(covered, kernel[i])).sum() for i in range(50)]
        assert row == int(np.argmax(sums))
        covered = np.maximum(covered, kernel[row])


@pytest.mark.parametrize("known", [0, 7])
def test_v_optimal_is_the_posterior_variance_written_out(known: int) -> None:
    """After each choice the variance, conditioned anew and weighted by doubt, is least."""
    features, labelled, said = fifty_items(known)
    margins = said.margin
    pool = Pool(features, labelled, None, said)
    chosen = variance_reduction(pool, 6, seed=0).rows.tolist()
    rows, given = pool.rows.astype(np.float64), pool.known_rows.astype(np.float64)
    start = given if known else rows[np.random.default_rng(0).permutation(50)[:6]]
    radius = np.median(((rows[:, None] - start[None]) ** 2).sum(axis=2).min(axis=1))

    def kernel(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.exp(-((some[:, None] - others[None]) ** 2).sum(axis=2) / radius)

    for row in chosen:
        left = np.full(50, np.inf)
        for i in set(range(50)) - set(chosen[: chosen.index(row)]):
            at = np.concatenate([given, rows[[*chosen[: chosen.index(row)], i]]])
            across = kernel(rows, at)
            among = kernel(at, at) + NOISE * np.eye(len(at))
            variance = 1.0 - (across * np.linalg.solve(among, across.T).T).sum(axis=1)
            left[i] = ((1 - margins) * variance).sum()
        assert left[row] == pytest.approx(left.min(), abs=1e-5)


def some_rows(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, 3)))


def test_groups_of_one_are_items() -> None:
    rows, weights = some_rows(60), np.random.default_rng(1).random(60)
    covariance = left_by_labels(rows, some_rows(5, 2), 0.3)
    alone = least_variance(covariance, weights, 12).tolist()
    assert least_variance_of_groups(covariance.copy(), weights, np.arange(60), 12) == alone


@pytest.mark.parametrize("known", [0, 4])
def test_groups_leave_the_least_posterior_variance_written_out(known: int) -> None:
    """Labels of a whole group, conditioned anew on all before; the last group has one item."""
    rows, weights, radius = some_rows(41), np.random.default_rng(1).random(41), 0.3
    given = some_rows(known, 2) if known else rows[:0]
    first = np.array([0, 3, 4, 9, 15, 22, 30, 40])
    groups = np.split(np.arange(41), first[1:])
    chosen = least_variance_of_groups(left_by_labels(rows, given, radius), weights, first, 5)

    def kernel(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.exp(-((some[:, None] - others[None]) ** 2).sum(axis=2).astype(float) / radius)

    def left(taken: list[int]) -> float:
        at = np.concatenate([given, *(rows[groups[g]] for g in taken)])
        across = kernel(rows, at)
        among = kernel(at, at) + NOISE * np.eye(len(at))
        return float(weights @ (1 - (across * np.linalg.solve(among, across.T).T).sum(axis=1)))

    assert len(set(chosen)) == 5
    for n, group in enumerate(chosen):
        others = [left([*chosen[:n], g]) for g in set(range(len(first))) - set(chosen[:n])]
        assert left([*chosen[:n], group]) == pytest.approx(min(others), abs=1e-4)


def test_copies_and_rounding_do_not_break_groups() -> None:
    rows = np.repeat(some_rows(4), 30, axis=0)
    first = np.arange(0, 120, 3)
    chosen = least_variance_of_groups(
        left_by_labels(rows, rows[:1], 0.3), np.ones(120), first, len(first)
    )
    assert sorted(chosen) == list(range(len(first)))
    assert {group // 10 for group in chosen[:3]} == {1, 2, 3}


def test_of_many_labels_those_near_doubt_stay() -> None:
    known = np.arange(MOST_LABELS + 40, dtype=np.float32)[:, None]
    nearest = np.arange(100)
    kept = nearest_to_most(known, nearest, np.ones(100))
    assert len(kept) == MOST_LABELS
    assert set(range(100)) <= set(kept[:, 0].astype(int).tolist())
    np.testing.assert_array_equal(nearest_to_most(known[:5], nearest[:3], np.ones(3)), known[:5])


def test_drawn_items_give_the_sums_of_all() -> None:
    rng = np.random.default_rng(0)
    values, other = rng.random(60) ** 3 + 1e-6, rng.random(60)
    estimates = []
    for seed in range(2000):
        rows, weights = drawn_for_sums(values, 15, np.random.default_rng(seed))
        assert len(set(rows.tolist())) == 15
        estimates.append((weights * other[rows]).sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx((values * other).sum(), abs=4 * error)
