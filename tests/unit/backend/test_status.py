from __future__ import annotations

import pytest

from backend.status import overview, seconds_left


@pytest.mark.parametrize(
    ("progress", "seconds", "earlier", "wanted"),
    [
        (0.0, 0.0, [], None),
        (0.04, 60.0, [], None),  # too little to tell a rate
        (0.5, 1.0, [], None),
        (0.25, 30.0, [], 90.0),
        (0.0, 3.0, [40.0], 40.0),
        (0.5, 30.0, [40.0], 25.0),  # half from 20 as usual, half from 30 at its own rate
        (1.0, 30.0, [40.0], 0.0),
        (1.2, 30.0, [], 0.0),
        (0.0, 0.0, [10.0, 900.0, 20.0], 20.0),  # one that waited long does not count more
    ],
)
def test_seconds_left(progress, seconds, earlier, wanted):
    assert seconds_left(progress, seconds, earlier) == wanted


def test_time_left_counts_earlier_runs_of_the_same_kind_and_project(world):
    database, key = world.database, world.key
    for kind, took in (("train", 100.0), ("train", 120.0), ("train", 140.0), ("prune", 1.0)):
        database.update_run(
            database.add_run(key, kind), status="done", started_at=5.0, finished_at=5.0 + took
        )
    failed = database.add_run(key, "train")
    database.update_run(failed, status="failed", started_at=5.0, finished_at=6.0)
    run = database.add_run(key, "train")
    database.claim_run(run, "w")
    waiting = database.add_run(key, "prune")
    found = {
        r["id"]: r["seconds_left"]
        for r in overview(world.settings, database, world.queue)["projects"][0]["running"]
    }
    assert found == {run: 120.0, waiting: None}


def test_a_failure_is_told_until_a_run_of_its_kind_succeeds(world):
    database, key = world.database, world.key

    def ended(kind, status, error=None):
        run = database.add_run(key, kind)
        database.update_run(run, status=status, error=error, started_at=5.0, finished_at=6.0)

    def told():
        project = overview(world.settings, database, world.queue)["projects"][0]
        return project["last_error"] and project["last_error"]["error"]

    ended("train", "done")
    assert told() is None
    ended("train", "failed", "no object")
    ended("prune", "done")
    assert told() == "no object"
    ended("train", "done")
    assert told() is None
    ended("train", "failed", "again")
    assert told() == "again"


def test_counts_are_those_of_the_rows(world):
    world.work()
    world.label(12)
    draws = world.database.draws(world.key).keys()
    labels = world.database.labels(world.key).keys()
    assert 0 < len(draws & labels) < 12
    assert world.database.random_label_count(world.key) == len(draws & labels)
    assert world.database.touched_count(world.key) == len(world.database.touched_tasks(world.key))


def test_a_queue_that_does_not_answer_is_named(world, monkeypatch):
    monkeypatch.setattr(world.queue, "workers", lambda: 1 / 0)
    assert overview(world.settings, world.database, world.queue)["queue"]["state"].startswith(
        "down: "
    )
    assert overview(world.settings, world.database, None)["queue"]["state"] == "not running"
