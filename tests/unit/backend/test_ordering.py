from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.ordering import (
    HIGHEST,
    LOWEST,
    MOST_TAGGED,
    cold_order,
    draws_wanted,
    interleave,
    place,
    published_score,
    random_draws,
)
from model.detection.calibration import LEAST_IMAGE, ImageCalibrator


@given(st.floats(0, 1))
def test_published_scores_are_valid_and_above_every_draw(p):
    score = published_score(p)
    assert LOWEST <= score <= HIGHEST


def test_crowded_images_keep_their_order_in_label_studio():
    stated = [ImageCalibrator().p_all_right(np.full(n, 0.4)) for n in (20, 40, 80, 300)]
    published = [published_score(p) for p in stated]
    assert published == sorted(set(published), reverse=True)
    assert len(published) == 4
    assert all(LOWEST < p < LEAST_IMAGE for p in published)


@pytest.mark.parametrize("p", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(p):
    with pytest.raises(ValueError, match="must be a number"):
        published_score(p)


def test_draws_come_first_in_their_order_then_the_front_by_doubt():
    p_right = {i: 0.1 + 0.08 * i for i in range(10)}
    placed = place(p_right, front=[3, 5], draws=[9, 0], first_cluster=100)
    by_score = [p.task_id for p in sorted(placed, key=lambda p: p.score)]
    assert by_score[:2] == [9, 0]
    assert {p.task_id: p.cluster for p in placed if p.cluster is not None} == {
        9: 100, 3: 101, 5: 102, 0: 103,
    }  # fmt: skip
    assert len({p.score for p in placed}) == 10


def test_cold_order_is_the_rank_below_every_calibrated_score():
    placed = cold_order([7, 3], [5, 1])
    assert [p.task_id for p in sorted(placed, key=lambda p: p.score)] == [7, 3, 5, 1]
    assert all(0 < p.score < LOWEST for p in placed)


def test_a_fifth_of_every_stretch_is_drawn():
    order = interleave(list(range(100, 140)), list(range(10)), 0.2)
    for end in range(10, 51, 10):
        assert sum(i < 100 for i in order[:end]) == pytest.approx(end / 5, abs=1)
    assert sorted(order) == [*range(10), *range(100, 140)]


def test_share_of_draws_is_reached_and_kept():
    labels = drawn = 0
    for _ in range(20):
        n = draws_wanted(share=0.2, labels=labels, drawn_labels=drawn, waiting=0, size=10)
        labels, drawn = labels + 10, drawn + n
    assert drawn == 40


def test_waiting_draws_are_not_drawn_again():
    assert draws_wanted(share=0.2, labels=100, drawn_labels=20, waiting=2, size=10) == 0


def test_catching_up_does_not_flood_a_round():
    assert draws_wanted(share=0.2, labels=500, drawn_labels=0, waiting=0, size=10) == 4


def test_no_share_no_draws():
    assert draws_wanted(share=0.0, labels=50, drawn_labels=0, waiting=0, size=10) == 0


def test_draws_are_uniform_and_repeatable():
    pool = np.arange(20)
    counts = np.zeros(20)
    for seed in range(4000):
        drawn, probability = random_draws(pool, 4, seed=seed)
        assert probability == pytest.approx(0.2)
        counts[drawn] += 1
    # 4000 draws at 0.2: standard deviation 25
    assert np.abs(counts - 800).max() < 110
    assert (random_draws(pool, 4, seed=7)[0] == random_draws(pool[::-1], 4, seed=7)[0]).all()


def test_an_empty_pool_gives_no_draws():
    drawn, probability = random_draws(np.empty(0, np.int64), 5, seed=0)
    assert len(drawn) == 0
    assert probability == 0.0


def test_only_so_many_tasks_are_tagged_and_a_fifth_of_them_are_draws():
    p_right = {i: 0.5 for i in range(2000)}
    placed = place(p_right, list(range(500, 1500)), list(range(300)), 1)
    tagged = [p.task_id for p in placed if p.cluster is not None]
    assert len(tagged) == MOST_TAGGED
    assert sum(i < 300 for i in tagged) == pytest.approx(MOST_TAGGED / 5, abs=1)
