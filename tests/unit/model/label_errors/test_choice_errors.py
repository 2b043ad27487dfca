"""Labels that the out-of-fold model contradicts: by hand, by properties, by what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from model.errors import ModelError, ShapeError
from model.label_errors.choices import (
    NOBODY,
    confident_class,
    confident_thresholds,
    find_choice_errors,
)
from model.label_errors.noise import MOST_NOISE, USUAL_NOISE, sharpen_and_weigh

# Thresholds are (0.9 + 0.8 + 0.1) / 3 = 0.6 and (0.2 + 0.9 + 0.7) / 3 = 0.6.
PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
LABELS = np.array([0, 0, 0, 1, 1, 1])


def some(seed: int, count: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which 15 % are random, and probabilities that lean to what they were before."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)) + 3.0 * np.eye(classes)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    is_wrong = rng.random(count) < 0.15
    return probs, np.where(is_wrong, rng.integers(classes, size=count), truth)


def test_confident_learning_as_computed_by_hand() -> None:
    np.testing.assert_allclose(confident_thresholds(PROBS, LABELS), [0.6, 0.6])
    found = find_choice_errors(PROBS, LABELS)
    assert found.is_issue.tolist() == [False, False, True, True, False, False]
    assert found.suggested.tolist() == [0, 0, 1, 0, 1, 1]


def test_score_is_bayes_rule_as_computed_by_hand() -> None:
    found = find_choice_errors(PROBS, LABELS)
    e = float(found.noise[0])
    p = sharpen_and_weigh(PROBS, LABELS)[0]
    expected = (1 - e) * p[2] / ((1 - e) * p[2] + e * (1 - p[2]))
    assert found.score[2] == pytest.approx(expected)
    assert found.ranking.tolist() == [2, 3, 5, 1, 0, 4]
    np.testing.assert_array_equal(found.per_class, found.score[:, None])


def test_row_below_every_threshold_belongs_nowhere_and_of_two_the_likelier_counts() -> None:
    """Thresholds are (0.8 + 0.4) / 2 and (0.1 + 0.3) / 2; nobody has the third label."""
    probs = np.array([[0.8, 0.1, 0.1], [0.4, 0.15, 0.45], [0.65, 0.1, 0.25], [0.1, 0.3, 0.6]])
    labels = np.array([0, 0, 1, 1])
    np.testing.assert_allclose(confident_thresholds(probs, labels), [0.6, 0.2, np.inf])
    assert confident_class(probs, labels).tolist() == [0, NOBODY, 0, 1]
    probs[2] = [0.65, 0.35, 0.0]  # reaches 0.6 and (0.35 + 0.3) / 2
    assert confident_class(probs, labels)[2] == 0


def test_what_is_as_probable_as_the_given_label_does_not_contradict_it() -> None:
    probs = np.full((4, 2), 0.5)
    labels = np.array([0, 1, 1, 0])
    assert confident_class(probs, labels).tolist() == labels.tolist()


def test_flat_guess_among_many_classes_contradicts_nobody() -> None:
    classes = 43
    probs = np.full((classes, classes), 1 / classes)
    found = find_choice_errors(probs, np.arange(classes))
    assert (found.score > 0.9).all()
    assert not found.is_issue.any()


@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_about_that_of_self_confidence_and_every_score_a_probability(seed: int) -> None:
    probs, labels = some(seed)
    found = find_choice_errors(probs, labels)
    given = probs[np.arange(len(labels)), labels]
    assert spearmanr(found.score, given).statistic > 0.98
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert (found.is_issue == (found.suggested != labels)).all()
    assert 0 < found.is_issue.sum() < len(labels) / 2


def test_order_of_images_and_of_classes_does_not_matter() -> None:
    probs, labels = some(7)
    found = find_choice_errors(probs, labels)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(labels)), rng.permutation(probs.shape[1])
    number = np.argsort(columns)
    other = find_choice_errors(probs[rows][:, columns], number[labels[rows]])
    np.testing.assert_allclose(other.score, found.score[rows])
    np.testing.assert_array_equal(other.is_issue, found.is_issue[rows])
    np.testing.assert_array_equal(other.suggested, number[found.suggested[rows]])
    assert other.noise == pytest.approx(found.noise)


def test_class_without_a_label_is_never_suggested() -> None:
    probs = np.array([[0.1, 0.1, 0.8], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1]])
    found = find_choice_errors(probs, np.array([0, 1, 0]))
    assert 2 not in found.suggested.tolist()


def test_only_class_there_is_cannot_be_wrong() -> None:
    found = find_choice_errors(np.ones((3, 1)), np.zeros(3, np.int64))
    assert found.score.tolist() == [1.0, 1.0, 1.0]
    assert not found.is_issue.any()


def test_no_label_gives_no_score() -> None:
    found = find_choice_errors(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert len(found) == 0
    assert found.noise == pytest.approx(0.033)


def test_several_classes_are_questions_of_their_own_and_the_image_their_product() -> None:
    """Each column is what its yes-or-no question is by itself."""
    yes = np.array([[0.9, 0.2], [0.8, 0.1], [0.1, 0.9], [0.2, 0.95]])
    labels = np.array([[True, False], [True, False], [True, True], [False, False]])
    found = find_choice_errors(yes, labels)
    for column in range(2):
        both = np.stack([1 - yes[:, column], yes[:, column]], axis=1)
        alone = find_choice_errors(both, labels[:, column].astype(np.int64))
        np.testing.assert_allclose(found.per_class[:, column], alone.score)
        np.testing.assert_array_equal(found.suggested[:, column], alone.suggested.astype(bool))
        assert found.noise[column] == alone.noise[0]
    np.testing.assert_allclose(found.score, found.per_class.prod(axis=1))
    assert found.is_issue.tolist() == [False, False, True, True]
    assert found.suggested[2].tolist() == [False, True]
    assert found.suggested[3].tolist() == [False, True]
    assert set(found.ranking[:2].tolist()) == {2, 3}


def test_many_answers_do_not_underflow_to_a_tie() -> None:
    probs = np.tile([[1e-9], [1e-8]], (1, 40))
    found = find_choice_errors(probs, np.ones((2, 40), bool))
    assert 0 <= found.score[0] <= found.score[1]


@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        (np.ones(3), np.zeros(3, int), ShapeError, r"probs has shape \(3,\); expected \(N, C>=1\)"),
        (np.ones((3, 0)), np.zeros(3, int), ShapeError, r"probs has shape \(3, 0\)"),
        (PROBS, LABELS[:4], ShapeError, r"labels has shape \(4,\); expected \(6,\) or \(6, 2\)"),
        (PROBS, np.ones((6, 3), bool), ShapeError, r"labels has shape \(6, 3\)"),
        (PROBS - 0.5, LABELS, ModelError, r"no probabilities; all must be in \[0, 1\]"),
        (PROBS * np.nan, LABELS, ModelError, "no probabilities"),
        (PROBS * 3, LABELS, ModelError, "no probabilities"),
        (PROBS / 2, LABELS, ModelError, r"miss 1 by 0\.5; with one class an image they sum to 1"),
        (PROBS, LABELS + 1, ModelError, "label 2 is outside the 2 classes"),
        (PROBS, LABELS - 1, ModelError, "label -1 is outside the 2 classes"),
        (PROBS, LABELS.astype(float), ModelError, "labels are float64; give whole numbers"),
        (PROBS, np.ones((6, 2), int), ModelError, "labels are int64; give whole numbers"),
    ],
)
def test_what_is_refused(
    probs: np.ndarray, labels: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_choice_errors(probs, labels)


def test_sharpness_and_noise_are_found_again() -> None:
    """Truth from known probabilities, a tenth of the labels flipped; given are flatter ones."""
    rng = np.random.default_rng(3)
    count, classes = 4000, 4
    logits = 3.0 * rng.normal(size=(count, classes))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.random((count, 1)) > true.cumsum(1)).sum(1)
    is_wrong = rng.random(count) < 0.1
    labels = np.where(is_wrong, (truth + rng.integers(1, classes, count)) % classes, truth)
    flat = np.exp(logits / 1.4) / np.exp(logits / 1.4).sum(1, keepdims=True)
    p_given, noise = sharpen_and_weigh(flat, labels)
    assert noise == pytest.approx(0.1, abs=0.015)
    np.testing.assert_allclose(p_given, true[np.arange(count), labels], atol=0.03)
    score = find_choice_errors(flat, labels).score
    assert (1 - score).sum() == pytest.approx(is_wrong.sum(), rel=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_fitted_is_the_maximum_of_the_likelihood(seed: int) -> None:
    """Against a search on a grid, written another way."""
    probs, labels = some(seed, count=60, classes=3)
    p_given, noise = sharpen_and_weigh(probs, labels)

    def cost(sharpness: float, e: float) -> float:
        powered = probs**sharpness
        p = (powered / powered.sum(1, keepdims=True))[np.arange(60), labels]
        prior = 60 * (0.033 * np.log(e) + 0.967 * np.log(1 - e)) - np.log(sharpness) ** 2 / 0.32
        return -float(np.log((1 - e) * p + e / 2 * (1 - p)).sum() + prior)

    grid = [(s, e) for s in np.linspace(0.3, 3, 136) for e in np.linspace(0.005, 0.4, 159)]
    sharpness, e = min(grid, key=lambda point: cost(*point))
    assert noise == pytest.approx(e, abs=0.004)
    powered = probs**sharpness
    np.testing.assert_allclose(
        p_given, (powered / powered.sum(1, keepdims=True))[np.arange(60), labels], atol=0.02
    )


def test_clean_labels_of_a_good_model_are_not_doubted() -> None:
    """A calibrated model leaves even a sure class some probability elsewhere; that is no error."""
    rng = np.random.default_rng(2)
    truth = rng.integers(10, size=400)
    probs = np.full((400, 10), 0.01)
    probs[np.arange(400), truth] = 0.91
    found = find_choice_errors(probs, truth)
    assert (found.score > 0.99).all()
    assert found.noise[0] < USUAL_NOISE / 2
    assert find_choice_errors(probs, (truth + 1) % 10).noise[0] <= MOST_NOISE


def test_one_clear_contradiction_is_more_probably_wrong_than_right() -> None:
    """Calibrated to labels of which 2 % are wrong, the model leaves the others 2 % everywhere."""
    probs = np.tile([[0.98, 0.01, 0.01]], (100, 1))
    labels = np.repeat([0, 1], [98, 2])
    found = find_choice_errors(probs, labels)
    assert (found.score[98:] < 0.4).all()
    assert (found.score[:98] > 0.99).all()
