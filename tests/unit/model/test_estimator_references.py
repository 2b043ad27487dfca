"""Each estimator against an independent way to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import check_grad
from scipy.special import gammaln, log_softmax, polygamma, psi, softmax

from model.heads.evidence import Evidence, log_gamma
from model.heads.problem import Problem
from model.heads.softmax import Basis, fit_heads
from model.uncertainty.ensemble import NetworkEnsemble, widen
from model.uncertainty.evidential import two_points
from model.uncertainty.hybrid import Hybrid, together
from model.uncertainty.laplace import BEYOND, LastLayerLaplace, Posterior
from model.uncertainty.mc_dropout import FeatureDropout, dropout_precision
from model.uncertainty.measures import decompose, dirichlet_entropy
from model.uncertainty.softmax import AveragedHeads


def problem(
    count: int = 60, dim: int = 10, classes: int = 3, *, noise: float = 1.0, seed: int = 5
) -> Problem:
    labels = np.arange(count) % classes
    x = np.random.default_rng(5).normal(size=(classes, dim))[labels]
    x = x + noise * np.random.default_rng(seed).normal(size=(count, dim))
    return Problem.of(
        x.astype(np.float32),
        labels,
        classes,
        centre=x.mean(axis=0).astype(np.float32),
        seed=0,
        progress=lambda share, what: None,
    )


def test_dropout_passes_are_plain_dropout_and_their_mean_is_that_of_many_masks() -> None:
    task = problem(dim=200)
    estimator = FeatureDropout().fit_problem(task).estimator
    rows = task.rows[:20]
    rng = np.random.default_rng(1)
    brute = np.zeros((20, 3))
    for _ in range(4000):
        kept = rng.random(200) < 0.5
        brute += softmax(rows * kept * 2 @ estimator.weights + estimator.biases, axis=1) / 4000
    probs = estimator.sample_rows(rows)
    np.testing.assert_allclose(probs.mean(axis=1), brute, atol=0.05)
    for number in (0, 1):
        kept = estimator.kept[0] ^ bool(number)
        logits = rows * kept * 2 @ estimator.weights + estimator.biases
        np.testing.assert_allclose(probs[:, number], softmax(logits, axis=1), atol=1e-4)


def test_the_precision_that_stands_for_dropout_is_the_curvature_it_adds() -> None:
    """With two classes nothing is averaged away."""
    task = problem(classes=2)
    added = dropout_precision(task)
    logits = task.basis.rows @ task.heads.weights[0] + task.heads.biases[0]
    q = softmax(logits.astype(np.float64), axis=1)[:, 0]
    # Dropout at 1/2 moves the difference of the logits with variance sum_d x_d^2 (w_0 - w_1)_d^2;
    # half of that times q (1 - q) is the penalty, and w_0 = -w_1 at the fit.
    w = np.random.default_rng(0).normal(size=10)
    penalty = 0.0
    for row, weight, p in zip(task.rows.astype(np.float64), task.weights, q, strict=True):
        penalty += weight * 0.5 * p * (1 - p) * ((row * 2 * w) ** 2).sum()
    assert 0.5 * (added * 2 * w**2).sum() == pytest.approx(penalty, rel=1e-6)


@pytest.mark.parametrize(("count", "dim"), [(100, 60), (200, 20)])
def test_the_dropout_head_is_nearly_what_training_on_masked_copies_gives(
    count: int, dim: int
) -> None:
    task = problem(count, dim, noise=3.0)
    copies = 100
    kept = np.random.default_rng(0).random((copies, count, dim)) < 0.5
    basis = Basis.of((task.rows * kept * 2).reshape(-1, dim).astype(np.float32))
    brute = fit_heads(
        basis,
        np.tile(task.labels, copies),
        3,
        weights_BN=np.tile(task.weights / copies, copies)[None],
        l2_B=np.array([task.l2]),
        tolerance=1e-7,
    )
    rows = problem(300, dim, noise=3.0, seed=1).rows
    expected = softmax(rows @ (basis.axes @ brute.weights[0]) + brute.biases[0], axis=1)
    trained = FeatureDropout().fit_problem(task).estimator
    ours = softmax(rows @ trained.weights + trained.biases, axis=1)
    plain = softmax(rows @ task.lifted[0] + task.heads.biases[0], axis=1)
    away, before = (np.abs(probs - expected).mean() for probs in (ours, plain))
    assert away < 0.03
    assert away < 0.7 * before


def test_laplace_curvature_is_the_hessian() -> None:
    """One label's share of a softmax Hessian is a Kronecker product, so one input is exact."""
    task = problem(count=40, dim=4)
    posterior = Posterior.of(task, 0)
    head = task.heads
    x = np.concatenate([task.basis.rows, np.ones((40, 1))], axis=1).astype(np.float64)
    q = softmax(task.basis.rows @ head.weights[0] + head.biases[0], axis=1).astype(np.float64)
    inputs = sum(w * np.outer(row, row) for w, row in zip(task.weights, x, strict=True))
    outputs = sum(
        w * (np.diag(p) - np.outer(p, p)) for w, p in zip(task.weights, q, strict=True)
    ) / sum(task.weights)
    a = posterior.axes * posterior.inputs @ posterior.axes.T
    b = posterior.turns * posterior.outputs @ posterior.turns.T
    np.testing.assert_allclose(a, inputs, atol=1e-6)
    np.testing.assert_allclose(b, outputs, atol=1e-6)


def test_laplace_curvature_agrees_with_autograd_where_inputs_are_equal() -> None:
    torch = pytest.importorskip("torch")
    task = problem(count=40, dim=4)
    same = np.tile(task.basis.rows[:1], (40, 1))
    object.__setattr__(task, "basis", Basis(same, task.basis.scale, task.basis.axes))
    posterior = Posterior.of(task, 0)
    head = task.__dict__["heads"]
    x = torch.tensor(np.concatenate([same, np.ones((40, 1))], axis=1), dtype=torch.float64)
    weights = torch.tensor(task.weights)
    targets = torch.tensor(task.labels)
    start = np.concatenate([head.weights[0], head.biases[:1]]).astype(np.float64)

    def loss(flat):
        logp = torch.log_softmax(x @ flat.reshape(start.shape), dim=1)
        return -(weights * logp[torch.arange(40), targets]).sum()

    hessian = torch.autograd.functional.hessian(loss, torch.tensor(start.ravel())).numpy()
    a = posterior.axes * posterior.inputs @ posterior.axes.T
    b = posterior.turns * posterior.outputs @ posterior.turns.T
    np.testing.assert_allclose(np.kron(a, b), hessian, atol=1e-4)


def test_laplace_draws_have_the_covariance_of_the_posterior() -> None:
    posterior = Posterior.of(problem(count=40, dim=4), 0)
    noise = np.random.default_rng(0).standard_normal((40_000, 5 + BEYOND, 3), np.float32)
    shifts = posterior.draw(noise, 2.0)
    a = posterior.axes * posterior.inputs @ posterior.axes.T
    b = posterior.turns * posterior.outputs @ posterior.turns.T
    expected = np.linalg.inv(np.kron(a, b) + 2.0 * np.eye(15))
    found = np.cov(shifts[:, :5].reshape(len(shifts), 15).T)
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(shifts[:, 5:].var(axis=0), 0.5, atol=0.03)


def test_laplace_is_the_head_on_average_and_doubts_what_no_label_has() -> None:
    task = problem(count=30, dim=60)
    estimator = LastLayerLaplace().fit_problem(task).estimator
    rows = np.random.default_rng(3).normal(size=(5, 60)).astype(np.float32)
    rows -= rows @ task.basis.axes @ task.basis.axes.T
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    where = estimator.coordinates(rows.astype(np.float32))
    np.testing.assert_allclose((where**2).sum(axis=1), 2, atol=1e-4)
    np.testing.assert_allclose(estimator.shifts.mean(axis=0), 0, atol=1e-6)
    known, unknown = (decompose(estimator.sample_rows(r))[2].mean() for r in (task.rows, rows))
    assert unknown > known


@pytest.mark.parametrize("classes", [2, 3, 10, 200])
@pytest.mark.parametrize("evidence", [0.0, 0.3, 5.0, 2000.0])
def test_two_points_have_the_parts_of_the_dirichlet(classes: int, evidence: float) -> None:
    rng = np.random.default_rng(0)
    alpha = 1.0 + evidence * np.exp(2 * rng.normal(size=(50, classes)))
    points = two_points(alpha)
    assert points.min() >= 0
    np.testing.assert_allclose(points.sum(axis=2), 1)
    np.testing.assert_allclose(points.mean(axis=1), alpha / alpha.sum(axis=1, keepdims=True))
    total, aleatoric, _ = decompose(points)
    closed = [stats.entropy(row) for row in alpha]
    np.testing.assert_allclose(total, closed)
    np.testing.assert_allclose(aleatoric, dirichlet_entropy(alpha), atol=1e-9)


def test_two_points_against_draws_from_scipy() -> None:
    alpha = np.array([[1.0, 4.0, 2.5]])
    draws = stats.dirichlet(alpha[0]).rvs(200_000, random_state=0)
    total, aleatoric, epistemic = decompose(draws[None])
    for found, expected in zip(
        decompose(two_points(alpha)), (total, aleatoric, epistemic), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_evidence_loss_has_its_slope_and_its_closed_form() -> None:
    labels = np.array([0, 2, 1])
    loss = Evidence(labels, 4, 0.3)  # class 3 has no label
    weights = np.array([[1.0, 2.0, 0.5], [1.0, 0.0, 1.0]])
    logits = np.random.default_rng(0).normal(size=(2, 4, 3))

    def value(flat: np.ndarray) -> float:
        return loss(flat.reshape(2, 4, 3), weights)[0].sum()

    def slope(flat: np.ndarray) -> np.ndarray:
        return loss(flat.reshape(2, 4, 3), weights)[1].ravel().astype(np.float64)

    assert check_grad(value, slope, logits.ravel()) < 1e-5
    alpha = 1 + np.exp(logits[0, :3].T)
    expected = 0.0
    for row, label, weight in zip(alpha, labels, weights[0], strict=True):
        draws = stats.dirichlet(row).rvs(400_000, random_state=1)
        rest = np.where(np.arange(3) == label, 1.0, row)
        other = stats.dirichlet(rest)
        flat = stats.dirichlet(np.ones(3))
        seen = other.rvs(400_000, random_state=2).T
        divergence = (np.log(other.pdf(seen)) - np.log(flat.pdf(seen))).mean()
        expected += weight * (-np.log(draws[:, label]).mean() + 0.3 * divergence)
    alone = loss(logits.copy(), weights)[0]
    assert alone[0] == pytest.approx(expected, abs=0.02)


def test_log_gamma_and_its_derivatives() -> None:
    x = np.concatenate([np.linspace(1, 10, 200), np.geomspace(10, 1e6, 50)])
    expected = gammaln(x), psi(x), polygamma(1, x)
    for found, right in zip(log_gamma(x), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-7, atol=1e-9)
    for found, right in zip(log_gamma(x.astype(np.float32)), expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=2e-6, atol=2e-6)


def test_every_member_of_the_ensemble_is_a_fit_of_its_own() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    task = problem(count=90)
    estimator = NetworkEnsemble().fit_problem(task).estimator
    probs = estimator.sample_rows(task.rows)
    for k in range(estimator.passes):
        wide = widen(task.rows, estimator.hidden[k])
        model = linear.LogisticRegression(C=1 / task.l2, max_iter=20_000, tol=1e-8)
        model.fit(wide, task.labels, sample_weight=task.weights)
        np.testing.assert_allclose(probs[:, k], model.predict_proba(wide), atol=0.05)
    assert decompose(probs)[2].max() > 0


def test_the_hybrid_is_the_mean_of_its_members() -> None:
    task = problem()
    families = {"a": AveragedHeads(), "b": FeatureDropout()}
    fitted = Hybrid(families).fit_problem(task)
    each = [family.fit_problem(task) for family in families.values()]
    features = task.rows + task.centre
    probs = fitted.estimator.sample(features)
    assert probs.shape[1] == fitted.estimator.passes
    members = np.stack([one.estimator.sample(features).mean(axis=1) for one in each])
    np.testing.assert_allclose(probs.mean(axis=1), members.mean(axis=0))
    left_out = np.stack([one.out_of_fold.mean(axis=1) for one in each])
    np.testing.assert_allclose(fitted.out_of_fold.mean(axis=1), left_out.mean(axis=0))


def test_members_with_different_numbers_of_passes_count_the_same() -> None:
    a = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    b = np.full((1, 3, 2), [1.0, 0.0])
    mixed = together([a, b])
    assert mixed.shape == (1, 12, 2)
    assert mixed.mean(axis=1)[0].tolist() == pytest.approx([0.75, 0.25])


def test_logits_and_log_probabilities_agree() -> None:
    task = problem()
    estimator = AveragedHeads().fit_problem(task).estimator
    logits = task.rows[:3] @ estimator.weights + estimator.biases
    mean = np.log(estimator.sample_rows(task.rows[:3])).mean(axis=1)
    np.testing.assert_allclose(log_softmax(mean, axis=1), log_softmax(logits, axis=1), atol=1e-4)


@pytest.mark.parametrize("dim", [1, 3, 10, 12])
def test_each_pass_is_the_head_without_a_part_of_the_features(dim: int) -> None:
    task = problem(dim=dim)
    estimator = AveragedHeads().fit_problem(task).estimator
    probs = estimator.sample_rows(task.rows)
    for number in range(estimator.passes):
        kept = (estimator.part != number) * (estimator.passes / (estimator.passes - 1.0))
        logits = (task.rows * kept) @ estimator.weights + estimator.biases
        expected = estimator.frame.probs(logits.astype(np.float64))
        np.testing.assert_allclose(probs[:, number], expected, atol=1e-5)
