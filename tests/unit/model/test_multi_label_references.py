"""Several classes an image: each estimator against an independent way to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import check_grad
from scipy.special import expit, logit
from test_multi_label import tagged

from model.heads.evidence import BinaryEvidence, Evidence
from model.heads.problem import Problem
from model.heads.softmax import Search
from model.uncertainty import ESTIMATORS
from model.uncertainty.ensemble import NetworkEnsemble, widen
from model.uncertainty.evidential import HELD, Evidential
from model.uncertainty.hybrid import Hybrid
from model.uncertainty.laplace import BEYOND, LastLayerLaplace, Posterior
from model.uncertainty.mc_dropout import FeatureDropout, dropout_precision
from model.uncertainty.measures import decompose_multi_label
from model.uncertainty.softmax import AveragedHeads

VARIED = range(3)  # the questions of `tagged` that have a yes and a no


@pytest.fixture(scope="module")
def task() -> Problem:
    x, y = tagged(100)
    return Problem.of(x, y, 5, centre=x.mean(axis=0), seed=0, progress=lambda share, what: None)


def logistic(rows: np.ndarray, answers: np.ndarray, l2: float) -> np.ndarray:
    """Scikit-learn's coefficients and intercept."""
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LogisticRegression(C=1 / l2, max_iter=5000, tol=1e-9).fit(rows, answers)
    return np.append(model.coef_[0], model.intercept_)


def test_softmax_reads_the_head_without_a_quarter_of_the_features(task: Problem) -> None:
    estimator = AveragedHeads().fit_problem(task).estimator
    logits = logit(estimator.sample_rows(task.rows))
    for c in VARIED:
        found = logistic(task.rows, task.labels[:, c], task.l2)
        mean = logits[:, :, c].mean(axis=1)
        np.testing.assert_allclose(mean, task.rows @ found[:-1] + found[-1], rtol=0.03, atol=0.1)
        kept = (estimator.part != 2) * 4 / 3
        one = task.rows * kept @ found[:-1] + found[-1]
        np.testing.assert_allclose(logits[:, 2, c], one, rtol=0.03, atol=0.15)


def test_dropout_passes_are_masks_of_a_head_with_the_prior_of_dropout(task: Problem) -> None:
    estimator = FeatureDropout().fit_problem(task).estimator
    scale = np.sqrt(1 + dropout_precision(task) / task.l2)
    probs = estimator.sample_rows(task.rows)
    for c in VARIED:
        found = logistic(task.rows / scale, task.labels[:, c], task.l2)
        weights = found[:-1] / scale
        for number in (0, 1):
            kept = estimator.kept[0] ^ bool(number)
            expected = expit(task.rows * kept * 2 @ weights + found[-1])
            np.testing.assert_allclose(probs[:, number, c], expected, atol=0.03)


def test_members_of_the_ensemble_are_regressions_on_widened_rows(task: Problem) -> None:
    estimator = NetworkEnsemble().fit_problem(task).estimator
    probs = estimator.sample_rows(task.rows)
    for k in (0, 3):
        wide = widen(task.rows, estimator.hidden[k])
        for c in VARIED:
            found = logistic(wide, task.labels[:, c], task.l2)
            expected = expit(wide @ found[:-1] + found[-1])
            np.testing.assert_allclose(probs[:, k, c], expected, atol=0.05)


def test_laplace_draws_have_the_covariance_of_each_question_by_itself(task: Problem) -> None:
    posterior = Posterior.of(task, 0)
    x = np.concatenate([task.basis.rows, np.ones((100, 1))], axis=1).astype(np.float64)
    q = expit(task.heads.logits(task.basis.rows)[:, 0])
    width = x.shape[1]
    noise = np.random.default_rng(0).standard_normal((40_000, width + BEYOND, 5), np.float32)
    shifts = posterior.draw(noise, 2.0)
    for c in VARIED:
        curvature = x.T @ x * (q[:, c] * (1 - q[:, c])).mean()
        expected = np.linalg.inv(curvature + 2.0 * np.eye(width))
        np.testing.assert_allclose(np.cov(shifts[:, :width, c].T), expected, atol=0.02)
    between = np.corrcoef(shifts[:, 0, 0], shifts[:, 0, 1])[0, 1]
    assert abs(between) < 0.02
    assert not shifts[:, :, 3:].any()  # a question with one answer has nothing to draw
    estimator = LastLayerLaplace().fit_problem(task).estimator
    mean = logit(estimator.sample_rows(task.rows)[:, :, :3]).mean(axis=1)
    plain = task.heads.logits(task.basis.rows)[:, 0, :3]
    np.testing.assert_allclose(mean, plain, atol=1e-3)


def test_evidence_of_each_question_is_that_of_two_classes(task: Problem) -> None:
    """The loss is the sum of the questions', and so is the fit."""
    yes = task.labels[:, :3]
    loss = BinaryEvidence(yes, 0.3)
    logits = np.random.default_rng(0).normal(size=(2, 6, 100)).astype(np.float32)
    weights = np.random.default_rng(1).random((2, 100)).astype(np.float32)
    value, slope = loss(logits.copy(), weights)
    alone = [
        Evidence(yes[:, c].astype(np.int64), 2, 0.3)(logits[:, [c, c + 3]], weights)
        for c in range(3)
    ]
    np.testing.assert_allclose(value, sum(one for one, _ in alone), rtol=1e-6)
    for c, (_, one) in enumerate(alone):
        np.testing.assert_allclose(slope[:, [c, c + 3]], one, rtol=1e-5)

    estimator = Evidential().fit_problem(task).estimator
    alpha = estimator.alpha(task.rows)
    for c in VARIED:
        own = Evidence(task.labels[:, c].astype(np.int64), 2, HELD)
        search = Search(task.basis, own, task.fit_weights[:1], np.array([task.l2]))
        head = search.run(1e-7)
        expected = 1 + np.exp(np.minimum(head.logits(task.basis.rows)[:, 0], 12))
        share = alpha[:, c, 1] / alpha[:, c].sum(axis=1)
        np.testing.assert_allclose(share, expected[:, 1] / expected.sum(axis=1), atol=0.03)


def test_the_loss_of_evidence_has_its_slope() -> None:
    loss = BinaryEvidence(np.array([[True, False], [False, False], [True, True]]), 0.2)
    weights = np.array([[1.0, 0.5, 1.0], [2.0, 1.0, 0.5]])
    logits = np.random.default_rng(0).normal(size=(2, 4, 3))

    def value(flat: np.ndarray) -> float:
        return loss(flat.reshape(2, 4, 3), weights)[0].sum()

    def slope(flat: np.ndarray) -> np.ndarray:
        return loss(flat.reshape(2, 4, 3), weights)[1].ravel().astype(np.float64)

    assert check_grad(value, slope, logits.ravel()) < 1e-4


def test_two_passes_of_evidence_have_the_parts_of_its_betas(task: Problem) -> None:
    estimator = Evidential().fit_problem(task).estimator
    rows = task.rows[:20]
    alpha = estimator.alpha(rows)[:, :3]
    passes = estimator.sample_rows(rows)[:, :, :3]
    mean = alpha[:, :, 1] / alpha.sum(axis=2)
    np.testing.assert_allclose(passes.mean(axis=1), mean, atol=1e-9)
    _, aleatoric, epistemic = decompose_multi_label(passes)
    for row in range(20):
        entropies = [
            stats.beta(b, a).expect(lambda p: stats.bernoulli(p).entropy())
            for a, b in alpha[row].tolist()
        ]
        assert aleatoric[row] == pytest.approx(sum(entropies), abs=2e-3)
        total = stats.bernoulli(mean[row]).entropy().sum()
        assert epistemic[row] == pytest.approx(total - sum(entropies), abs=2e-3)


def test_hybrid_is_the_mean_of_its_members(task: Problem) -> None:
    families = {"mc-dropout": FeatureDropout(), "evidential": Evidential()}
    fitted = Hybrid(families).fit_problem(task)
    members = [family.fit_problem(task) for family in families.values()]
    expected = np.mean([m.estimator.sample_rows(task.rows).mean(axis=1) for m in members], axis=0)
    x, _ = tagged(100)
    np.testing.assert_allclose(fitted.estimator.sample(x).mean(axis=1), expected, atol=1e-6)
    held_out = np.mean([m.out_of_fold.mean(axis=1) for m in members], axis=0)
    np.testing.assert_allclose(fitted.out_of_fold.mean(axis=1), held_out, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"laplace"}))
def test_the_order_of_labels_does_not_matter(name: str) -> None:
    x, y = tagged(80)
    turned = np.array([2, 4, 0, 1, 3])

    def passes(labels: np.ndarray) -> np.ndarray:
        fitted = ESTIMATORS[name].fit(
            x, labels, 5, centre=x.mean(axis=0), seed=0, progress=lambda share, what: None
        )
        return fitted.estimator.sample(x)

    np.testing.assert_allclose(passes(y[:, turned]), passes(y)[:, :, turned], atol=0.02)
