"""New images that are like the old ones raise no alarm; others do."""

from __future__ import annotations

import numpy as np
import pytest

from model.drift import PERMUTATIONS, level_of_test, shift_of
from model.errors import ModelError, ShapeError


def images(n: int, seed: int, centre: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 16)) + centre * np.eye(16)[0] + 2.0).astype(np.float32)


def test_what_is_alike_is_called_different_as_rarely_as_stated() -> None:
    p = np.array([shift_of(images(120, s), images(40, 10_000 + s)).p_value for s in range(120)])
    assert (p < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert (p < 0.5).mean() > 0.3  # and the test is not simply deaf


def test_what_is_unlike_is_seen() -> None:
    found = shift_of(images(300, 0), images(40, 1, centre=-6.0))
    assert found.p_value == 1 / (PERMUTATIONS + 1)
    assert found.novelty_now > found.novelty_before


def test_copies_of_few_old_images_are_unlike_too() -> None:
    old = images(300, 0)
    found = shift_of(old, np.repeat(old[:2], 40, axis=0))
    assert found.p_value < 1e-3


def test_large_pools_are_sampled() -> None:
    assert shift_of(images(5000, 0), images(3000, 1)).p_value > 1e-4


def test_all_tests_together_keep_the_rate() -> None:
    levels = [level_of_test(0.05, n) for n in range(1, 1000)]
    assert levels == sorted(levels, reverse=True)
    assert sum(levels) <= 0.05
    with pytest.raises(ModelError, match="test is 0"):
        level_of_test(0.05, 0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ShapeError, match="fresh"):
        shift_of(images(5, 0), np.zeros((3, 2), np.float32))
    with pytest.raises(ModelError, match="1 old and 3 new"):
        shift_of(images(1, 0), images(3, 0))
    with pytest.raises(ModelError, match="new images"):
        shift_of(images(5, 0), np.full((3, 16), np.nan, np.float32))


def test_the_fortieth_test_of_a_series_can_still_raise_an_alarm() -> None:
    level = level_of_test(0.05, 40)
    found = shift_of(images(60, 0), images(40, 1, centre=-6.0), level=level)
    assert found.p_value <= level
