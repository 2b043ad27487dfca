"""How heads are trained follows from the finest level and the number of images."""

from __future__ import annotations

import pytest
from support.boxes import head_shape

from model.backbones.pyramid import STRIDES
from model.detection.schedule import MOST_TIMES, SCHEDULES, schedule_for


def test_every_level_has_a_schedule() -> None:
    assert set(SCHEDULES) == set(STRIDES)
    shape = head_shape()
    assert schedule_for(shape) is SCHEDULES[shape.strides[0]]


@pytest.mark.parametrize("stride", STRIDES)
def test_few_images_get_as_many_steps_as_more_and_none_more_than_three_times(stride: int) -> None:
    schedule = SCHEDULES[stride]
    steps = [schedule.steps_for(n) for n in range(2, 5000)]
    assert steps[0] == schedule.steps_for(schedule.images) == schedule.steps
    assert steps == sorted(steps)
    assert steps[-1] == MOST_TIMES * schedule.steps
    twice = schedule.steps_for(2 * schedule.images) / schedule.steps
    assert twice == pytest.approx(2**schedule.power, rel=0.01)


def test_only_where_steps_are_dear_calibration_gets_half_of_them() -> None:
    assert SCHEDULES[8].steps_to_calibrate(261) == 130
    assert SCHEDULES[8].steps_to_calibrate(1) == 1
    assert SCHEDULES[32].steps_to_calibrate(261) == 261
