from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from model.heads.lbfgs import minimise_many


def quadratics(problems: int, size: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    turned = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(problems)]
    scale = np.geomspace(1.0, condition, size)
    return np.stack([q * scale @ q.T for q in turned]), rng.normal(size=(problems, size))


@pytest.mark.parametrize("condition", [1.0, 30.0, 1000.0])
def test_quadratics_end_at_the_solution_of_their_equations(condition: float) -> None:
    matrices, goals = quadratics(4, 12, condition)

    def loss(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slopes = np.einsum("bij,bj->bi", matrices, points) - goals
        values = 0.5 * np.einsum("bi,bi->b", points, slopes - goals)
        return values, slopes.astype(np.float32)

    found = minimise_many(loss, np.zeros((4, 12), np.float32), tolerance=1e-9)
    for matrix, goal, point in zip(matrices, goals, found, strict=True):
        np.testing.assert_allclose(point, np.linalg.solve(matrix, goal), atol=2e-3)


def test_a_problem_ends_where_scipy_ends_whatever_its_neighbours_do() -> None:
    """Softplus losses of very different steepness, together and each alone."""
    steep = np.array([0.01, 1.0, 50.0])

    def loss(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner = steep[:, None] * points.astype(np.float64)
        values = (np.logaddexp(0, inner) - 0.3 * inner).sum(axis=1)
        slopes = steep[:, None] * (expit(inner) - 0.3)
        return values, slopes.astype(np.float32)

    start = np.tile(np.array([1.0, -2.0, 0.5], np.float32), (3, 1))
    found = minimise_many(loss, start, tolerance=1e-12)

    for number in range(3):

        def alone(
            point: np.ndarray, number: int = number, start: np.ndarray = start
        ) -> tuple[float, np.ndarray]:
            points = start.copy()
            points[number] = point
            values, slopes = loss(points)
            return float(values[number]), slopes[number].astype(np.float64)

        reference = minimize(alone, start[number], jac=True, method="L-BFGS-B")
        assert loss(found)[0][number] <= reference.fun + 1e-6
        expected = np.log(0.3 / 0.7) / steep[number]
        np.testing.assert_allclose(found[number], expected, rtol=0.02)


def test_problems_at_their_minimum_stay_and_nothing_to_do_is_defined() -> None:
    def loss(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 0.5 * (points.astype(np.float64) ** 2).sum(axis=1), points

    start = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    np.testing.assert_allclose(minimise_many(loss, start, tolerance=1e-9), 0, atol=1e-4)
    assert minimise_many(loss, np.zeros((0, 2), np.float32), tolerance=1e-9).shape == (0, 2)


def test_the_value_never_rises() -> None:
    matrices, goals = quadratics(3, 20, 100.0)
    seen: list[np.ndarray] = []

    def loss(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slopes = np.einsum("bij,bj->bi", matrices, points) - goals
        return 0.5 * np.einsum("bi,bi->b", points, slopes - goals), slopes.astype(np.float32)

    for steps in range(12):
        found = minimise_many(
            loss, np.zeros((3, 20), np.float32), tolerance=1e-12, max_iterations=steps
        )
        seen.append(loss(found)[0])
    assert (np.diff(np.stack(seen), axis=0) <= 1e-6).all()
