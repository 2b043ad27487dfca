"""New tasks that are unlike the others are noticed, told and asked for."""

from __future__ import annotations

import pytest
from support.looked_at import fill_audit

from backend.drift import ASKED, DRIFT, PROVED, alarm_of


@pytest.fixture
def trained(make_world):
    world = make_world(120, retrain_after=20)
    world.work()
    world.label(20)
    world.work()
    return world


def more(world, n, colours):
    tasks = [world.import_image(colours[i % len(colours)], 1000 + i) for i in range(n)]
    world.database.update_project(world.key, full_sync_at=0.0, sync_requested_at=1.0)
    return tasks, world.work()


def test_more_of_the_same_raises_no_alarm(trained):
    _, said = more(trained, 60, (0, 1, 2))
    assert any("60 new tasks have predictions" in line for line in said)
    assert not any("unlike" in line for line in said)
    assert trained.project.drift["tests"] == 1
    assert alarm_of(trained.database, trained.project) is None


def test_a_flood_of_one_kind_is_noticed_and_asked_for(trained):
    tasks, said = more(trained, 60, (0,))
    assert any("the 60 newest tasks are unlike the others" in line for line in said)
    drawn = trained.database.draws(trained.key, kind=DRIFT)
    assert len(drawn) == ASKED
    assert drawn.keys() <= set(tasks)
    served = [trained.platform.next_task()]
    for _ in range(ASKED - 1):
        trained.submit(served[-1])
        served.append(trained.platform.next_task())
    assert set(served) == drawn.keys()
    told = alarm_of(trained.database, trained.project)
    assert told["tasks"] == 60
    assert "1 of them come first" in told["sentence"]
    assert PROVED not in told["sentence"]
    fill_audit(trained.database, trained.key, status="accepted", size=2)
    assert PROVED in alarm_of(trained.database, trained.project)["sentence"]
    trained.submit(served[-1])
    assert alarm_of(trained.database, trained.project) is None


def test_draws_by_drift_are_no_random_share(trained):
    more(trained, 60, (0,))
    drawn = trained.database.draws(trained.key, kind=DRIFT).keys()
    assert not drawn & trained.database.draws(trained.key).keys()


def test_what_raised_an_alarm_is_part_of_what_is_compared_with(trained):
    flood, _ = more(trained, 60, (0,))
    fresh, said = more(trained, 60, (0, 0, 0, 0, 0, 1, 1, 2, 2))  # as in all there are now
    drift = trained.project.drift
    assert (drift["tests"], drift["before"], drift["until"]) == (2, flood[-1], fresh[-1])
    assert not any("unlike" in line for line in said)


def test_few_new_tasks_wait_for_more(trained):
    more(trained, 12, (0,))
    assert trained.project.drift["tests"] == 0
    more(trained, 12, (0,))
    assert trained.project.drift["tests"] == 1


def test_new_tasks_are_looked_at_too_when_a_training_is_first_to_score_them(trained):
    trained.label(20)
    tasks, said = more(trained, 60, (0,))
    train = [line for line in said if line.startswith("train")]
    assert len(train) == 1
    assert trained.project.drift["tests"] == 1
    assert trained.project.drift["until"] == tasks[-1]


def test_deleted_tasks_do_not_keep_an_alarm_alive(trained):
    more(trained, 60, (0,))
    drawn = trained.database.draws(trained.key, kind=DRIFT)
    trained.database.drop_tasks(trained.key, list(drawn))
    assert alarm_of(trained.database, trained.project) is None
