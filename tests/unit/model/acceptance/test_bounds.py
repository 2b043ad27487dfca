"""Exact bounds against scipy, and against counting."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from model.acceptance.bounds import chance_of_so_few, labels_needed, most_wrong, too_many
from model.errors import ModelError


@given(st.integers(1, 400), st.data())
def test_the_chance_is_the_hypergeometric_distribution(size: int, data: st.DataObject) -> None:
    drawn = data.draw(st.integers(0, size))
    errors = data.draw(st.integers(0, drawn))
    wrong = data.draw(st.integers(0, size))
    expected = hypergeom.cdf(errors, size, wrong, drawn)
    assert chance_of_so_few(errors, drawn, wrong, size) == pytest.approx(expected, abs=1e-9)


def test_the_chance_by_counting_all_samples() -> None:
    items = [True] * 3 + [False] * 6
    samples = list(combinations(items, 4))
    few = sum(sum(sample) <= 1 for sample in samples) / len(samples)
    assert chance_of_so_few(1, 4, 3, 9) == pytest.approx(few)


def test_a_million_items_are_exact_enough() -> None:
    expected = hypergeom.cdf(30, 1_000_000, 50_000, 800)
    assert chance_of_so_few(30, 800, 50_000, 1_000_000) == pytest.approx(expected, rel=1e-6)


def test_more_wrong_items_than_there_are_cannot_be() -> None:
    assert chance_of_so_few(2, 3, 11, 10) == 0.0


@pytest.mark.parametrize("numbers", [(3, 2, 5, 10), (0, 11, 5, 10), (-1, 2, 5, 10)])
def test_numbers_that_cannot_belong_together_are_refused(
    numbers: tuple[int, int, int, int],
) -> None:
    with pytest.raises(ModelError, match="cannot be"):
        chance_of_so_few(*numbers)


@given(st.integers(1, 200), st.data())
def test_the_upper_bound_is_the_last_number_that_is_not_rejected(
    size: int, data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(0, size))
    errors = data.draw(st.integers(0, drawn))
    confidence = 0.95
    level = 1.0 - confidence  # a little above 0.05 in binary, which a chance may be exactly
    bound = most_wrong(errors, drawn, size, confidence=confidence)
    assert chance_of_so_few(errors, drawn, bound, size) > level
    assert bound == size - drawn + errors or (
        chance_of_so_few(errors, drawn, bound + 1, size) <= level
    )


@pytest.mark.parametrize(
    ("bound", "needed"),
    [(0.10, [29, 46, 61]), (0.05, [59, 93, 124, 153]), (0.02, [149, 236, 313]), (0.01, [299, 473])],
)
def test_labels_needed_are_those_of_clopper_and_pearson(bound: float, needed: list[int]) -> None:
    found = [labels_needed(bound, confidence=0.95, errors=k) for k in range(len(needed))]
    assert found == needed
    for k, n in enumerate(needed):
        assert binom.cdf(k, n, bound) <= 0.05 < binom.cdf(k, n - 1, bound)


def test_a_small_part_needs_fewer_labels_and_some_can_prove_nothing() -> None:
    small = labels_needed(0.05, confidence=0.95, size=200)
    assert small is not None
    assert small < 59
    assert chance_of_so_few(0, small, 11, 200) <= 0.05 < chance_of_so_few(0, small - 1, 11, 200)
    assert labels_needed(0.05, confidence=0.95, errors=20, size=200) is None


def test_a_bound_of_five_per_cent_of_a_hundred_allows_five() -> None:
    assert too_many(0.05, 100) == 6
    assert too_many(0.07, 100) == 8  # 0.07 * 100 is 7.000000000000001
    assert too_many(0.29, 100) == 30  # 0.29 * 100 is 28.999999999999996


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_has_to_be_one(share: float) -> None:
    with pytest.raises(ModelError, match="between 0 and 1"):
        labels_needed(share, confidence=0.95)
    with pytest.raises(ModelError, match="between 0 and 1"):
        most_wrong(0, 5, 10, confidence=share)
