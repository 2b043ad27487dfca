"""``doubtless accept``: every option reaches the audit, and every answer says what comes next."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from support.looked_at import fill
from support.world import CONFIG

from backend import audits
from backend.cli import main
from backend.edges.database import Database
from backend.edges.labels.config import parse_config


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A project of 900 tasks with a version live, a third of them labelled."""
    monkeypatch.setenv("DOUBTLESS_HOME", str(tmp_path))
    database = Database(f"sqlite:///{tmp_path / 'doubtless.db'}")
    spec = parse_config(CONFIG).require_spec()
    key = database.connect_project(
        host="http://127.0.0.1:1", platform_id=1, uid="1", title="t", token="t",
        label_config=CONFIG, config_hash=spec.config_hash, problems=[],
    ).key  # fmt: skip
    tasks = list(range(1, 901))
    database.put_tasks(key, {i: f"/{i}.png" for i in tasks})
    database.mark_images(key, {i: f"h{i}" for i in tasks}, {})
    fill(database, key, tasks, ["red", "green", "blue"], spec)
    yield database
    database.close()


def accept(*options: str):
    return CliRunner().invoke(main, ["accept", *options])


def newest(database):
    (project,) = database.projects()
    return database.audits(project.key)[-1]


def test_options_reach_the_audit(database):
    asked = accept(
        "--max-error", "0.3", "--confidence", "0.9", "--of", "expected", "--by", "classes",
        "--audit", "30", "--shown", "--json",
    )  # fmt: skip
    assert asked.exit_code == 0, asked.output
    found, audit = json.loads(asked.output), newest(database)
    assert (audit.max_error, audit.confidence, audit.of) == (0.3, 0.9, "expected")
    assert audits.by_of(audit) == found["by"] == "classes"
    assert {part["audit"] for part in audit.plan["parts"]} == {30}
    assert audit.plan["blind"] is False
    assert found["audit_labels"] == 90


def test_without_options_it_is_one_promise_and_blind(database):
    asked = accept("--max-error", "0.3")
    assert asked.exit_code == 0, asked.output
    audit = newest(database)
    assert (audit.of, audits.by_of(audit), audit.plan["blind"]) == ("accepted", "tasks", True)
    assert "audit labels are there" in asked.output
    again = accept()
    assert newest(database).id == audit.id, "it goes on with the audit that is under way"
    assert again.exit_code == 0
    given_up = accept("--cancel")
    assert given_up.exit_code == 0, given_up.output
    assert newest(database).status == "cancelled"
    assert "No audit is under way" in given_up.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "regions"), "needs a project with boxes"),
        (("--max-error", "5"), "max_error is 5.0; give a share between 0 and 1, such as 0.05"),
        (("--max-error", "0.3", "--audit", "0"), "audit is 0; give 1 to"),
        (("--max-error", "0.0001"), "no audit would pay"),
        (("--undo",), "nothing was accepted unseen"),
        (("--cancel",), "no audit is under way"),
    ],
)
def test_what_cannot_be_is_one_sentence(database, options, said):
    answer = accept(*options)
    assert answer.exit_code != 0
    assert said in " ".join(answer.output.split())
    assert "Traceback" not in answer.output
    (project,) = database.projects()
    assert database.audits(project.key) == []


@pytest.mark.parametrize(
    ("option", "value", "stands"),
    [("--max-error", "0.02", "0.3"), ("--confidence", "0.9", "0.95"), ("--of", "all", "accepted"),
     ("--by", "classes", "tasks")],
)  # fmt: skip
@pytest.mark.parametrize("status", [audits.OPEN, audits.CERTIFIED])
def test_another_promise_is_not_taken_for_that_of_the_audit(
    database, status, option, value, stands
):
    assert accept("--max-error", "0.3").exit_code == 0
    database.update_audit(newest(database).id, status=status, reason="All may be accepted.")
    other = accept(option, value, "--yes", "--no-wait")
    assert other.exit_code != 0
    assert f"an audit with {option} {stands} is under way, so {option} {value}" in other.output
    assert "--cancel" in other.output
    (project,) = database.projects()
    assert not [run for run in database.runs(project.key) if run.kind == "accept"]


def test_the_same_promise_may_be_named_again(database):
    options = ("--max-error", "0.3", "--of", "all", "--audit", "50")
    first, second = accept(*options), accept(*options)
    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert "audit labels are there" in second.output
