from __future__ import annotations

import pytest

from backend.pacing import rest_after, seconds_until_good_moment, usual_gap


def every(gap: float, n: int = 10, until: float = 1000.0) -> list[float]:
    return [until - gap * i for i in range(n)][::-1]


def moment(submits, now, takes=1.0, waited=0.0, patience=10.0):
    return seconds_until_good_moment(
        submits, now, takes_s=takes, waited_s=waited, patience_s=patience
    )


def test_nobody_labels_so_now_is_good():
    assert moment([], 5.0) == 0.0
    assert moment(every(2.0), 1000.0 + 60) == 0.0


def test_right_after_a_submit_label_studio_serves_the_next_task_first():
    assert 0 < moment(every(5.0), 1000.1) <= 0.3


def test_a_pause_long_enough_is_used_and_a_short_one_is_not():
    assert moment(every(5.0, 30), 1000.5, takes=4.0) == 0.0
    assert moment(every(5.0, 30), 1003.0, takes=4.0) > 0.0
    assert moment(every(5.0), 1000.5, takes=4.0) > 0.0  # few gaps were seen yet
    assert moment(every(1.0), 1000.5, takes=4.0) > 0.0


def test_after_waiting_long_it_goes_right_after_a_submit():
    assert moment(every(1.0), 1000.4, takes=4.0, waited=11.0) == 0.0
    assert moment(every(1.0), 1000.8, takes=4.0, waited=11.0) > 0.0
    assert moment(every(1.0), 1000.8, takes=4.0, waited=41.0) == 0.0


def test_usual_gap_leaves_pauses_out():
    times = [2.0 * n for n in range(20)]
    assert usual_gap([*times, 600.0, 602.0]) == pytest.approx(2.0)
    assert usual_gap(times[:5]) == pytest.approx(0.8 * 2.0)
    assert usual_gap([1.0, 2.0]) is None


def test_series_rest_longer_while_people_label():
    assert rest_after(0.1, every(2.0), 1001.0) > rest_after(0.1, every(2.0), 1100.0)


def test_a_burst_sets_no_rhythm():
    burst = [1000 + 0.03 * n for n in range(26)]
    paced = [burst[-1] + 2.5 * n for n in range(1, 5)]
    assert usual_gap([*burst, *paced]) == pytest.approx(0.8 * 2.5)


def test_after_a_first_submit_brief_requests_leave_room_for_the_second():
    assert moment([1000.0], 1000.5, takes=0.1) == 0.0
    assert moment([1000.0], 1002.0, takes=0.1) == pytest.approx(1.0)
    assert moment([1000.0], 1003.5, takes=0.1) == 0.0
    assert moment([1000.0], 1002.0, takes=3.0) == 0.0  # an import cannot wait for that


def test_usual_gap_is_shorter_than_nearly_all_gaps_of_an_uneven_rhythm():
    gaps = [2.0 + (7 * i % 29) / 29 for i in range(29)]
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    assert sum(gap < usual_gap(times) - 1e-9 for gap in gaps) == 1
