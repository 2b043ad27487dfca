"""Several people label the same tasks: who is how good, what is doubted, what is trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from support.several import WorldOfSeveral
from support.world import COLOURS

from backend.annotators import (
    UNKNOWN,
    meaning,
    one_label_each,
    people,
    weights_of,
    who_says_what,
)
from backend.cli import main
from backend.edges.labels.config import parse_config
from backend.edges.labels.merge import weighted
from backend.records import Consensus
from backend.triage import doubted_labels
from model.annotators.base import Annotator
from model.engine import fit


def says(world, task, user, label):
    truth, world.truth[task] = world.truth[task], label
    world.submit(task, user=user)
    world.truth[task] = truth


def of_people(world):
    return {row["id"]: row for row in people(world.database, world.key)}


def spec_of(world):
    return parse_config(world.config).spec


@pytest.fixture
def crowd(make_world):
    """Sixty tasks, each labelled by user 1, who is right, and by 2, who errs on a third."""
    world = make_world(60, retrain_after=60)
    world.work()
    rng = np.random.default_rng(0)
    wrong = {}
    for n, task in enumerate(sorted(world.truth)):
        world.submit(task, user=1)
        label = world.truth[task]
        if n // 3 % 3 == 0:  # of every colour as many
            label = wrong[task] = str(rng.choice([c for c in COLOURS if c != label]))
        says(world, task, 2, label)
    world.work()
    return world, wrong


def test_quality_is_told_after_a_training(crowd):
    world, _ = crowd
    found = of_people(world)
    assert set(found) == {1, 2}
    assert found[1]["quality"] > 0.9
    assert found[2]["quality"] == pytest.approx(39 / 60, abs=0.05)
    assert found[2]["low"] < 39 / 60 < found[2]["high"] < found[1]["quality"]
    assert found[1]["labels"] == found[2]["shared"] == 60
    assert found[1]["agreement"] == found[2]["agreement"] == pytest.approx(39 / 60)
    assert [row["id"] for row in people(world.database, world.key)] == [2, 1], "worst first"


def test_tasks_where_the_wrong_one_was_newer_are_to_be_checked(crowd):
    world, wrong = crowd
    told = {row["task"]: row for row in doubted_labels(world.database, world.project, 100)}
    assert len(told.keys() & wrong.keys()) >= 0.9 * len(wrong)
    for task in told.keys() & wrong.keys():
        first, second = sorted([world.truth[task], wrong[task]])
        assert told[task]["label"] == wrong[task]
        assert told[task]["why"] == (
            f"1 says {first}, 1 says {second}; probably {world.truth[task]}"
        )
    agreed = [task for task in told if task not in wrong]
    assert not agreed, "two people and the model say the same"


def test_the_next_training_is_on_labels_weighed_by_quality(crowd):
    world, wrong = crowd
    labels = world.app.labels(world.key, spec_of(world))
    assert labels == world.truth
    majority = world.database.labels(world.key)
    assert {task for task in majority if majority[task] != world.truth[task]} == set(wrong)
    world.database.update_project(world.key, requested_at=1.0, request_reason="now")
    world.work()
    assert not doubted_labels(world.database, world.project, 100)


def test_labels_of_several_people_count_as_probably_as_they_are_right(crowd, monkeypatch):
    """In the next training; what has changed since counts in full."""
    world, wrong = crowd
    tasks = sorted(world.truth)
    labels = {task: wrong.get(task, world.truth[task]) for task in tasks}
    weights = weights_of(world.database, world.key, labels)
    is_wrong = np.array([task in wrong for task in tasks])
    assert weights.max() <= 1.0
    assert np.median(weights[is_wrong]) < 0.2 < 0.95 < np.median(weights[~is_wrong])

    first = tasks[0]
    says(world, first, 2, "red" if labels[first] != "red" else "green")
    changed = weights_of(world.database, world.key, labels)
    assert changed[0] == 1.0
    np.testing.assert_array_equal(changed[1:], weights[1:])

    used = []

    def spy(data, *given, **named):
        used.append(data)
        return fit(data, *given, **named)

    monkeypatch.setattr("backend.kinds.choices.fit", spy)
    expected = weights_of(world.database, world.key, world.app.labels(world.key, spec_of(world)))
    world.database.update_project(world.key, requested_at=1.0, request_reason="now")
    world.work()
    np.testing.assert_array_equal(used[0].weights, expected)


def test_a_label_of_one_person_counts_in_full(world):
    """However little the last version believes it."""
    give(world, 1, [(1, "red")])
    give(world, 2, [(1, "red"), (2, "green")])
    give(world, 3, [(1, "red"), (2, "red")])
    labels = {1: "red", 2: "green", 3: "red"}
    assert weights_of(world.database, world.key, labels) is None
    votes = {1: [(1, "red")], 2: [(1, "red"), (2, "green")], 3: [(1, "red"), (2, "red")]}
    world.database.put_consensus(
        world.key,
        [
            Consensus(task_id=1, label="blue", p_right=0.9, votes=votes[1], probs={"red": 0.05}),
            Consensus(
                task_id=2, label="red", p_right=0.7, votes=votes[2],
                probs={"red": 0.7, "green": 0.2},
            ),
            Consensus(task_id=3, label="red", p_right=0.99, votes=votes[3], probs={"red": 0.99}),
        ],
    )  # fmt: skip
    np.testing.assert_allclose(weights_of(world.database, world.key, labels), [1.0, 0.2, 0.99])


def test_labels_of_several_people_count_in_full_where_nothing_is_known(world):
    """As of sets, whose consensus says nothing of each label."""
    give(world, 1, [(1, "red"), (2, "red")])
    told = Consensus(task_id=1, label="red", p_right=0.3, votes=[(1, "red"), (2, "red")])
    world.database.put_consensus(world.key, [told])
    assert world.database.consensus(world.key) == [told]
    assert weights_of(world.database, world.key, {1: "red"}) is None


def test_a_person_who_could_not_be_judged_counts_as_the_others_do(world):
    database, key = world.database, world.key
    database.put_annotators(
        key,
        [person(1, 0.9), person(2, 0.5), person(3, None)],
    )
    give(world, 1, [(2, "red"), (3, "green")])  # 0.5 against the mean
    give(world, 2, [(3, "green"), (1, "red"), (9, "blue")])
    give(world, 3, [(None, "blue"), (2, "red"), (None, "blue")])
    give(world, 4, [(3, "blue"), (9, "red")])  # as good: the newest
    assert one_label_each(database, key, spec_of(world)) == {
        1: "green", 2: "red", 3: "blue", 4: "red",
    }  # fmt: skip


def test_only_a_persons_newest_label_counts(world):
    world.database.put_annotators(world.key, [person(1, 0.8), person(2, 0.9)])
    give(world, 1, [(1, "red"), (1, "red"), (2, "green")])
    give(world, 2, [(2, "red"), (1, "green"), (2, "blue")])
    assert one_label_each(world.database, world.key, spec_of(world)) == {1: "green", 2: "blue"}


def test_without_qualities_it_is_the_majority(world):
    give(world, 1, [(1, "red"), (2, "green"), (3, "red")])
    give(world, 2, [(1, "red"), (2, "green")])
    assert one_label_each(world.database, world.key, spec_of(world)) == {1: "red", 2: "green"}


def test_one_person_alone_is_not_judged(world):
    world.work()
    world.label(10)
    world.work()
    assert world.versions()[-1] == "v2 live"
    assert people(world.database, world.key) == []


def test_tasks_of_one_label_are_judged_by_the_model_alone(make_world):
    world = make_world(60, retrain_after=30)
    world.work()
    tasks = sorted(world.truth)
    for n, task in enumerate(tasks[:30]):
        world.submit(task, user=1)
        if n < 15:
            world.submit(task, user=2)
    world.work()
    told = {row.task_id: row for row in world.database.label_errors(world.key, below=2, limit=99)}
    assert told.keys() == set(tasks[:30])
    by_both = {task for task, row in told.items() if row.why.startswith("2 say ")}
    assert by_both == set(tasks[:15])
    assert all(row.why in ("not clear",) or row.why.startswith("probably ")
               for task, row in told.items() if task not in by_both)  # fmt: skip


def test_people_who_share_nothing_any_more_are_forgotten(crowd):
    world, _ = crowd
    gone = [a.id for a in world.platform.annotations.values() if a.completed_by == 2]
    for annotation in gone:
        del world.platform.annotations[annotation]
    world.database.drop_annotations(world.key, gone)
    world.work()
    assert people(world.database, world.key) == []


@pytest.fixture
def of_several(tmp_path):
    """Sets of colours by user 1, who is right, and by 2, who misses one on a third of them."""
    world = WorldOfSeveral(tmp_path)
    world.work()
    tasks = world.label(48)
    missed = {}
    for n, task in enumerate(sorted(tasks)):
        chosen = json.loads(world.truth[task])
        if chosen and n % 3 == 0:
            missed[task] = json.dumps(chosen[1:])
        says(world, task, 2, missed.get(task, world.truth[task]))
    world.work()
    return world, sorted(tasks), missed


def test_people_who_choose_several_are_judged_by_whole_sets(of_several):
    world, tasks, missed = of_several
    found = of_people(world)
    assert set(found) == {1, 2}
    share = 1 - len(missed) / len(tasks)
    for person in found.values():
        assert (person["labels"], person["shared"]) == (48, 48)
        assert person["agreement"] == pytest.approx(share)
        assert share < person["kappa"] < 1, "of single choices, of which most are equal"
    assert found[1]["quality"] > found[2]["high"]
    assert found[2]["low"] < share < found[2]["high"]
    assert found[2]["recall"] < 0.9 < found[1]["recall"]
    assert found[2]["precision"] > 0.9
    kept = {row.task_id: row for row in world.database.consensus(world.key)}
    assert kept.keys() == set(tasks)
    right = [kept[task].label == world.truth[task] for task in missed]
    assert np.mean(right) > 0.8, "the model tells who is right"


def test_sets_are_still_merged_by_votes(of_several):
    world, tasks, _ = of_several
    task = min(set(world.truth) - set(tasks))
    world.database.put_annotators(world.key, [person(1, 0.9), person(2, 0.4)])
    give(world, task, [(1, '["red"]'), (2, '["blue"]')])
    assert one_label_each(world.database, world.key, world.spec)[task] == '["blue"]'


def test_nobody_is_judged_by_sets_that_nobody_shares(tmp_path, monkeypatch):
    world = WorldOfSeveral(tmp_path)
    world.work()
    world.label(12)
    world.work()
    assert people(world.database, world.key) == []
    assert world.database.consensus(world.key) == []
    use_database(world, monkeypatch)
    shown = " ".join(CliRunner().invoke(main, ["annotators"]).output.split())
    assert shown == UNKNOWN


def test_the_command_says_what_is_measured_of_sets(of_several, monkeypatch):
    world, _, _ = of_several
    use_database(world, monkeypatch)
    shown = CliRunner().invoke(main, ["annotators"], env={"COLUMNS": "140"})
    assert shown.exit_code == 0, shown.output
    assert "recall" in shown.output
    assert " ".join(shown.output.split()).endswith(meaning(world.spec))
    doubted = Consensus(
        task_id=1, label='["blue", "red"]', p_right=0.3, votes=[(1, "[]"), (2, '["blue"]')]
    )
    world.database.put_consensus(world.key, [doubted])
    world.database.put_annotations(
        world.key,
        [{"annotation_id": 9000 + who, "task_id": 1, "label": label, "cancelled": False,
          "completed_by": who, "updated_at": "2030-01-01T00:00:00Z"}
         for who, label in doubted.votes],
    )  # fmt: skip
    shown = CliRunner().invoke(main, ["annotators", "--again", "5"], env={"COLUMNS": "140"})
    assert shown.exit_code == 0, shown.output
    assert "blue; (none)" in shown.output
    assert "red, blue" in shown.output


def test_what_the_figures_mean_depends_on_the_question():
    texts = [
        '<Choices name="c" toName="i"><Choice value="a"/><Choice value="b"/></Choices>',
        '<Choices name="c" toName="i" choice="multiple"><Choice value="a"/></Choices>',
        '<RectangleLabels name="c" toName="i"><Label value="a"/></RectangleLabels>',
    ]
    said = [
        meaning(parse_config(f'<View><Image name="i" value="$image"/>{text}</View>').spec)
        for text in texts
    ]
    assert "set of theirs" not in said[0]
    assert said[0] == meaning(None)
    assert "right as a whole" in said[1]
    assert "IoU 0.5" in said[2]
    assert all("kappa" in one for one in said), "every column is explained"
    assert all("beyond chance" in one for one in said[:2])


def test_votes_in_words():
    assert who_says_what(["b", "a", "a", "c"], "d") == "2 say a, 1 says b, 1 says c; probably d"


def test_equal_sums_are_decided_by_the_newest_in_any_order():
    assert weighted([("a", 0.1), ("a", 0.2), ("b", 0.3)]) == "b"
    assert weighted([("b", 0.3), ("a", 0.2), ("a", 0.1)]) == "a"
    assert weighted([]) is None


def test_the_command_shows_people(crowd, monkeypatch):
    world, _ = crowd
    for module in ("base", "looking"):
        monkeypatch.setattr(f"backend.cli.{module}.Database", lambda url: world.database)
    shown = CliRunner().invoke(main, ["annotators"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "1.000" not in shown.output.split("quality")[0]
    assert "0.650" in shown.output
    found = json.loads(CliRunner().invoke(main, ["annotators", "--json"]).output)
    assert found == people(world.database, world.key)
    world.database.put_annotators(world.key, [])
    assert "cannot be told" in CliRunner().invoke(main, ["annotators"]).output
    assert json.loads(CliRunner().invoke(main, ["annotators", "--json"]).output) == []


def use_database(world, monkeypatch):
    for module in ("base", "looking"):
        monkeypatch.setattr(f"backend.cli.{module}.Database", lambda url: world.database)


def person(number, quality):
    known = quality is not None
    return Annotator(
        id=number, labels=10, shared=10 if known else 0, agreement=0.5 if known else None,
        kappa=None, quality=quality, low=0.1 if known else None, high=1.0 if known else None,
    )  # fmt: skip


def give(world, task, votes):
    rows = [
        {"annotation_id": 100 * task + n, "task_id": task, "label": label, "cancelled": False,
         "completed_by": who, "updated_at": f"2026-01-01T00:00:0{n}Z"}
        for n, (who, label) in enumerate(votes)
    ]  # fmt: skip
    world.database.put_annotations(world.key, rows)
