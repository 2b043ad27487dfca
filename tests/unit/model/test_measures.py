from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as reference

from model.errors import ShapeError
from model.uncertainty.measures import decompose, entropy, margin


@given(st.integers(0, 500), st.integers(1, 6), st.integers(1, 5))
def test_parts_add_up_and_are_never_negative(seed: int, passes: int, classes: int) -> None:
    probs = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (7, passes))
    total, aleatoric, epistemic = decompose(probs)
    np.testing.assert_allclose(total, reference(probs.mean(axis=1), axis=1), atol=1e-9)
    np.testing.assert_allclose(aleatoric, reference(probs, axis=2).mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(aleatoric + epistemic, total, atol=1e-12)
    assert (epistemic >= 0).all()
    assert (epistemic <= math.log(max(1, min(passes, classes))) + 1e-9).all()


def test_two_certain_passes_that_disagree_are_all_epistemic() -> None:
    total, aleatoric, epistemic = decompose(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    assert total[0] == epistemic[0] == pytest.approx(math.log(2))
    assert aleatoric[0] == 0


def test_equal_passes_have_no_epistemic_part() -> None:
    assert decompose(np.full((3, 4, 5), 0.2))[2].max() == 0


def test_entropy_at_zero_is_not_nan() -> None:
    assert entropy(np.array([0.0, 1.0])) == 0


def test_margin() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert margin(probs) == pytest.approx([0.2, 0.0])
    assert margin(np.ones((2, 1))).tolist() == [1.0, 1.0]
    with pytest.raises(ShapeError):
        margin(np.zeros((2, 0)))
    with pytest.raises(ShapeError):
        decompose(np.zeros((2, 3)))
