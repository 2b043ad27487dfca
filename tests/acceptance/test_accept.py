"""Accepting unseen on a real Label Studio: until it is allowed, checked, withdrawn, taken back."""

from __future__ import annotations

import pytest
from support.real import until

from backend import audits

pytestmark = pytest.mark.acceptance

TASKS, DISTINCT = 2000, 1700


def test_label_until_allowed_accept_check_withdraw_and_take_back(start_stack, make_project):
    stack = start_stack(retrain_after=150, quiet_s=600)
    project = make_project(title="Accepted unseen")
    project.import_inline(TASKS, DISTINCT)
    key = project.connect(stack)
    project.wait_for_version(prefix="cold", seconds=300)
    too_soon = stack.command("accept", "--max-error", "0.05", ok=False)
    assert "nothing is trained yet" in too_soon["error"]

    audit = label_until_allowed(project, stack, key)
    assert audit["status"] == "open"
    wanted = audit["audit_labels"]
    until(lambda: not active(stack, key), 120, "the audit is in front of the queue")
    project.label(wanted)
    found = until(
        lambda: (a := describe(stack, key))["status"] != "open" and a, 120, "the audit is judged"
    )
    people = annotations(project)
    assert found["status"] == "certified", found["sentence"]
    assert not [
        r for r in stack.command("status")["projects"][0]["running"] if r["kind"] == "train"
    ]

    found = stack.command("accept", "--yes")
    assert found["status"] == "accepted"
    assert found["accepted"] > 0.4 * TASKS
    made = annotations(project)
    assert people.items() <= made.items()
    assert len(made) == len(people) + found["accepted"]
    unseen = [i for i in made if i not in people]
    said = {i.annotation_id: i.said for i in items(stack, key, "accepted")}
    assert all(made[i][1] == [said[i]] for i in unseen)
    right = sum(project.truth[made[i][0]] == said[i] for i in unseen)
    assert right / len(unseen) >= 0.95
    assert stack.command("status")["projects"][0]["labels"] == len(people)

    # The world changes: people who check see something else than was accepted.
    watched = {i.task_id: i.said for i in items(stack, key, audits.WATCHED)}
    until(lambda: not active(stack, key), 120, "what is to be checked comes first")
    for task, label in watched.items():
        project.truth[task] = str((int(label) + 1) % 10)
    served = project.label(12)
    assert set(served) <= watched.keys()
    found = until(
        lambda: (a := describe(stack, key))["status"] == "withdrawn" and a, 120, "it is withdrawn"
    )
    assert "--undo" in found["sentence"]

    people = {i: value for i, value in annotations(project).items() if i not in unseen}
    stack.command("accept", "--undo")
    assert describe(stack, key) is None
    assert annotations(project) == people
    assert stack.command("status")["projects"][0]["labels"] == len(people)


def label_until_allowed(project, stack, key) -> dict:
    """Labels in rounds of 150, as the queue serves them, until an audit would pay."""
    version = project.live()
    refused = {}
    for _ in range(4):
        project.label(150)
        version = project.wait_for_version(version, prefix="v", seconds=300)
        until(lambda: not active(stack, key), 120, f"{version} is published and tagged")
        found = stack.command("accept", "--max-error", "0.05", ok=None)
        if "audit_labels" in found:
            return found
        refused = found
        assert "no audit would pay" in refused["error"]
    raise AssertionError(f"an audit was never allowed: {refused}")


def annotations(project) -> dict[int, tuple[int, list[str]]]:
    """Annotation -> task and choices, as Label Studio has them."""
    return {
        a.id: (task.id, a.result[0]["value"]["choices"])
        for task in project.api.tasks(project.id, only_annotated=True)
        for a in task.annotations
    }


def describe(stack, key):
    database = stack.database
    found = audits.describe(database, database.project(key))
    database.close()
    return found


def items(stack, key, state):
    database = stack.database
    audit = audits.current(database, database.project(key))
    found = database.audit_items(audit.id, state=state)
    database.close()
    return found


def active(stack, key):
    database = stack.database
    found = [r for r in database.runs(key) if r.kind != "prune"]
    database.close()
    return found
