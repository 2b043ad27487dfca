"""Limited-memory BFGS on many independent convex problems at once, in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

MEMORY = 6
_DECREASE = 1e-4  # Armijo's constant
_TRIALS = 16
_FLAT = 1e-4  # cosine of step and change of slope below which a pair is rounding

Loss = Callable[[F32], tuple[F64, F32]]


def minimise_many(loss: Loss, start_BP: F32, *, tolerance: float, max_iterations: int = 300) -> F32:
    """Minimise B convex functions of P variables each, side by side.

    Each problem has its own memory, its own step and its own end, so that none waits for the
    curvature of another; what they share is the one call of `loss` that evaluates them all.

    Args:
        loss: ``(B, P)`` points to ``(B,)`` values and ``(B, P)`` gradients.
        start_BP: where to begin.
        tolerance: a problem ends when an iteration lowers its value by less than this share.
        max_iterations: of all.

    Returns:
        ``(B, P)`` the lowest points found.

    Source:
        Nocedal 1980, with the inner products of the memory gathered in one matrix product as in
        Chen et al. 2014 (vector-free L-BFGS), and backtracking to Armijo's condition.
    """
    point = start_BP
    value, slope = loss(point)
    memory = _Memory(*point.shape)
    active = (slope != 0).any(axis=1)
    for _ in range(max_iterations):
        if not active.any():
            break
        direction = memory.direction(slope)
        direction[~active] = 0.0
        decrease = np.einsum("bp,bp->b", direction, slope).astype(np.float64)
        moved, new_value, new_slope = _step(loss, point, value, direction, decrease, active)
        gain = value - new_value
        memory.add(moved - point, new_slope - slope)
        point, value, slope = moved, new_value, new_slope
        active &= gain > tolerance * np.maximum(np.abs(value), 1e-12)
    return point


def _step(
    loss: Loss, point: F32, value: F64, direction: F32, decrease: F64, active: Bools
) -> tuple[F32, F64, F32]:
    """A step along each direction that lowers the value enough: 1, or where parabolas lead to."""
    length = active.astype(np.float64)
    for _ in range(_TRIALS):
        moved = point + length.astype(np.float32)[:, None] * direction
        new_value, slope = loss(moved)
        fails = active & ~(new_value <= value + _DECREASE * length * decrease)
        if not fails.any():
            return moved, new_value, slope
        rise = new_value[fails] - value[fails] - length[fails] * decrease[fails]
        vertex = -0.5 * length[fails] ** 2 * decrease[fails] / np.maximum(rise, 1e-300)
        length[fails] = np.clip(vertex, 0.1 * length[fails], 0.5 * length[fails])
    length[fails] = 0.0  # rounding hides what is left to gain
    moved = point + length.astype(np.float32)[:, None] * direction
    return moved, *loss(moved)


class _Memory:
    """The last steps and changes of slope of each problem, and their inner products."""

    def __init__(self, problems: int, size: int) -> None:
        self._pairs = np.zeros((problems, 2 * MEMORY, size), np.float32)  # steps, then changes
        self._dots = np.zeros((problems, 2 * MEMORY, 2 * MEMORY))
        self._added = 0

    def add(self, step: F32, change: F32) -> None:
        """Replace the oldest pair."""
        slot = self._added % MEMORY
        for place, vector in ((slot, step), (MEMORY + slot, change)):
            self._pairs[:, place] = vector
        for place, vector in ((slot, step), (MEMORY + slot, change)):
            dots = np.matmul(self._pairs, vector[:, :, None])[:, :, 0]
            self._dots[:, place] = dots
            self._dots[:, :, place] = dots
        self._added += 1

    def direction(self, slope: F32) -> F32:
        """Minus the approximate inverse curvature times the slope, by the two loops.

        Everything is a combination of the stored vectors and the slope, so the loops run on its
        coefficients and the long vectors are read twice.
        """
        unit = 1.0 / np.maximum(np.linalg.norm(slope, axis=1).astype(np.float64), 1e-30)
        if self._added == 0:
            descent: F32 = -slope * unit.astype(np.float32)[:, None]
            return descent
        with_slope = np.matmul(self._pairs, slope[:, :, None])[:, :, 0].astype(np.float64)
        order = [(self._added - 1 - age) % MEMORY for age in range(min(self._added, MEMORY))]
        dots = self._dots
        part = np.zeros(with_slope.shape)  # coefficients of the stored vectors
        share = {}
        usable = {}
        for s in order:
            y = MEMORY + s
            usable[s] = dots[:, s, y] > _FLAT * np.sqrt(dots[:, s, s] * dots[:, y, y])
            product = (dots[:, s] * part).sum(axis=1) + with_slope[:, s]
            share[s] = np.divide(product, dots[:, s, y], out=np.zeros(len(part)), where=usable[s])
            part[:, y] -= share[s]
        y = MEMORY + order[0]
        scale = np.divide(dots[:, order[0], y], dots[:, y, y], out=unit, where=usable[order[0]])
        part *= scale[:, None]
        for s in reversed(order):
            y = MEMORY + s
            product = (dots[:, y] * part).sum(axis=1) + scale * with_slope[:, y]
            back = np.divide(product, dots[:, s, y], out=np.zeros(len(part)), where=usable[s])
            part[:, s] += share[s] - back
        combined: F32 = np.matmul(part[:, None, :].astype(np.float32), self._pairs)[:, 0]
        combined += scale[:, None].astype(np.float32) * slope
        np.negative(combined, out=combined)
        return combined
