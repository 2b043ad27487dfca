"""Which labelled tasks are worth another label, and whom to ask for it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from backend.again import NOTHING, ask_again, whom_to_ask
from backend.annotators import UNKNOWN
from backend.cli import main
from backend.records import Consensus
from model.annotators.base import Annotator


def person(number, low, quality=0.9):
    known = low is not None
    return Annotator(
        id=number, labels=10, shared=10 if known else 0, agreement=None, kappa=None,
        quality=quality if known else None, low=low, high=1.0 if known else None,
    )  # fmt: skip


def give(world, task, votes):
    rows = [
        {"annotation_id": 100 * task + n, "task_id": task, "label": label, "cancelled": False,
         "completed_by": who, "updated_at": f"2026-01-01T00:00:0{n}Z"}
        for n, (who, label) in enumerate(votes)
    ]  # fmt: skip
    world.database.put_annotations(world.key, rows)


@pytest.fixture
def asked(world):
    """Four tasks with a consensus, and three people of whom two are known to be good."""
    world.database.put_annotators(
        world.key, [person(1, 0.8), person(2, 0.7, 0.99), person(3, 0.4), person(4, None)]
    )
    give(world, 1, [(1, "red"), (2, "green"), (2, "blue")])  # 2 changed their mind
    give(world, 2, [(2, "red")])
    give(world, 3, [(1, "red"), (3, "red")])
    give(world, 4, [(1, "red"), (3, "blue")])
    world.database.put_consensus(
        world.key,
        [
            Consensus(task_id=1, label="blue", p_right=0.6, votes=[(1, "red"), (2, "blue")]),
            Consensus(task_id=2, label="green", p_right=0.5, votes=[(2, "red")]),
            Consensus(task_id=3, label="red", p_right=0.95, votes=[(1, "red"), (3, "red")]),
            Consensus(task_id=4, label="red", p_right=0.7, votes=[(1, "red"), (3, "blue")]),
        ],
    )
    return world


def rows(world, limit=9):
    return ask_again(world.database, world.database.project(world.key), limit)


def test_the_least_sure_come_first_with_the_best_of_those_who_have_not_labelled(asked):
    found = rows(asked)
    assert [(row["task"], row["label"], row["p_right"]) for row in found] == [
        (2, "green", 0.5), (1, "blue", 0.6), (4, "red", 0.7),
    ]  # fmt: skip
    assert [row["labels"] for row in found] == [["red"], ["blue", "red"], ["red", "blue"]]
    assert [row["ask"] for row in found] == [1, None, 2]
    assert found[0]["label_studio_url"].endswith("/data?task=2")
    assert [row["task"] for row in rows(asked, limit=2)] == [2, 1]


def test_who_has_answered_since_the_training_is_not_asked_for_again(asked):
    give(asked, 2, [(2, "red"), (1, "green")])
    assert [row["task"] for row in rows(asked)] == [1, 4]


def test_no_more_is_read_than_is_shown(asked, monkeypatch):
    """The dashboard asks every few seconds, of tens of thousands of tasks."""
    monkeypatch.setattr("backend.again.TURN", 1)
    assert [row["task"] for row in rows(asked)] == [2, 1, 4]
    read = []
    consensus = asked.database.consensus

    def spy(key, task_ids):
        read.extend(task_ids)
        return consensus(key, task_ids)

    monkeypatch.setattr(asked.database, "consensus", spy)
    assert [row["task"] for row in rows(asked, limit=2)] == [2, 1]
    assert read == [2, 1]


def test_a_label_changed_since_the_training_waits_for_the_next(asked):
    world = asked
    newer = {"annotation_id": 400, "task_id": 4, "label": "blue", "cancelled": False,
             "completed_by": 1, "updated_at": "2027-01-01T00:00:00Z"}  # fmt: skip
    world.database.put_annotations(world.key, [newer])
    assert [row["task"] for row in rows(world)] == [2, 1]


def test_a_deleted_task_is_forgotten(asked):
    asked.database.drop_tasks(asked.key, [2])
    assert [row["task"] for row in rows(asked)] == [1, 4]


def test_the_lower_end_decides_and_nobody_is_named_who_may_be_no_better_than_a_guess():
    lucky, tried = person(5, 0.55, quality=0.99), person(6, 0.8, quality=0.85)
    assert whom_to_ask([lucky, tried], []) == 6
    assert whom_to_ask([lucky, tried], [6]) == 5
    assert whom_to_ask([lucky, tried], [5, 6]) is None
    assert whom_to_ask([person(7, 0.5), person(8, None)], []) is None
    assert whom_to_ask([person(9, 0.8), tried], []) == 6, "of equals the first id"


def test_a_training_says_what_tasks_come_to_and_whom_to_ask(make_world):
    """Two agree, one of three errs; a task on which two differ is asked about, not one of all."""
    world = make_world(60, retrain_after=60)
    world.work()
    tasks = sorted(world.truth)
    for n, task in enumerate(tasks):
        world.submit(task, user=1)
        world.submit(task, user=2)
        if n % 2:
            world.submit(task, user=3)
    odd = tasks[0]
    world.truth[odd] = next(c for c in ("red", "green", "blue") if c != world.truth[odd])
    world.submit(odd, user=2)  # changes their mind
    world.work()
    found = rows(world)
    kept = {row.task_id: row for row in world.database.consensus(world.key)}
    assert kept.keys() == set(tasks)
    assert {len(kept[task].votes) for task in tasks[1::2]} == {3}
    assert kept[tasks[1]].label == world.truth[tasks[1]]
    assert kept[odd].p_right == min(row.p_right for row in kept.values())
    assert {row["task"] for row in found} <= {odd}


def test_the_command_shows_whom_to_ask(asked, monkeypatch):
    for module in ("base", "looking"):
        monkeypatch.setattr(f"backend.cli.{module}.Database", lambda url: asked.database)

    def run(*words):
        return CliRunner().invoke(main, ["annotators", *words], env={"COLUMNS": "120"})

    shown = run("--again", "2")
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.output.splitlines() if line.startswith("│")]
    assert [line.replace("│", " ").split() for line in lines] == [
        ["2", "red", "green", "0.500", "user", "1"],
        ["1", "blue,", "red", "blue", "0.600", "anyone", "else"],
    ]
    assert json.loads(run("--again", "2", "--json").output) == rows(asked, limit=2)
    assert run("--again", "0").exit_code == 2
    asked.database.put_consensus(asked.key, [])
    assert " ".join(run("--again", "2").output.split()) == NOTHING
    asked.database.put_annotators(asked.key, [])
    assert " ".join(run("--again", "2").output.split()) == UNKNOWN
