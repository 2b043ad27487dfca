"""The three piles: they add up to the open tasks, and their tabs never overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest
from platform_twin import PlatformTwin

from backend import acceptance, acts, audits
from backend.tabs import ACCEPT_TAB, CHECK_TAB, LABEL_TAB, REVIEW_TAB, ensure_piles
from backend.triage import piles
from model.acceptance.plan import Promise


@pytest.fixture
def trained(make_world):
    world = make_world(300, retrain_after=30)
    world.work()
    world.label(30)
    world.work()
    return world


def found(world):
    return piles(world.database, world.project)


def opened(world):
    return len(world.database.tasks(world.key)) - len(world.database.touched_tasks(world.key))


def test_there_are_no_piles_before_there_is_a_version(world):
    assert found(world) is None


def test_before_anything_is_trained_all_is_to_be_labelled(world):
    world.work()
    assert found(world) == {
        "accept": 0, "review": 0, "label": 60, "accept_from": None,
        "minutes": {"review": None, "label": None},
    }  # fmt: skip


def test_piles_go_by_p_right_and_add_up(trained):
    rows = trained.database.scores(trained.key, trained.project.live_version)
    doubtful = [replace(row, p_right=0.4) for i, row in rows.items() if i % 3 == 0]
    trained.database.put_scores(trained.key, trained.project.live_version, doubtful)
    now = found(trained)
    touched = trained.database.touched_tasks(trained.key)
    rows = trained.database.scores(trained.key, trained.project.live_version)
    assert now["label"] == sum(r.p_right < 0.5 for i, r in rows.items() if i not in touched) > 50
    assert now["accept"] == 0
    assert now["review"] + now["label"] == opened(trained)


def test_what_an_audit_proves_is_a_pile_until_it_is_accepted(trained):
    told = []
    trained.app.piles_changed = lambda project, accept_from: told.append(accept_from)
    audit = acceptance.propose(trained.database, trained.project, Promise(0.05, 0.9))
    trained.work()
    items = trained.database.audit_items(audit.id, state=audits.DRAWN)
    for item in items:
        trained.truth[item.task_id] = item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    now = found(trained)
    size = audits.describe(trained.database, trained.project)["may_be_accepted"]
    assert now["accept"] == size - len(items) > 50
    assert now["accept"] + now["review"] + now["label"] == opened(trained)
    rows = trained.database.scores(trained.key, audit.version)
    ranked = trained.database.audit_items(audit.id, ranks=[(0, size)])
    assert now["accept_from"] == rows[ranked[-1].task_id].p_right == told[-1]
    trained.database.add_run(trained.key, "accept", payload={"audit": audit.id})
    trained.work()
    now = found(trained)
    assert now["accept"] == 0
    assert now["review"] + now["label"] == opened(trained)
    assert told[-1] is None


def test_the_tab_is_gone_once_an_audit_is_given_up(trained):
    told = []
    trained.app.piles_changed = lambda project, accept_from: told.append(accept_from)
    audit = acceptance.propose(trained.database, trained.project, Promise(0.05, 0.9))
    for item in trained.database.audit_items(audit.id, state=audits.DRAWN):
        trained.truth[item.task_id] = item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    acts.pause(trained.database, trained.project)
    trained.work()
    assert told[-1] is not None
    acts.cancel_audit(trained.database, trained.project, "rather not")
    trained.work()
    assert told[-1] is None


def test_minutes_go_by_the_pace_of_people(trained):
    for n, row in enumerate(trained.platform.annotations.values()):
        trained.platform._touch(row.task_id)
        later = trained.platform.updated[row.task_id]
        took = replace(row, lead_time=10.0 + n % 3, updated_at=later)
        trained.platform.annotations[row.id] = took
    trained.database.update_project(trained.key, full_sync_at=0.0, sync_requested_at=1.0)
    trained.work()
    now = found(trained)
    assert now["minutes"]["review"] == pytest.approx(now["review"] * 11 / 60, abs=0.06)


def scores_of(tab):
    """Lowest and highest score of a tab's filters."""
    low, high = 0.0, 1.0
    for item in tab["filters"]["items"]:
        if item["filter"] == "filter:tasks:predictions_score":
            low = item["value"] if item["operator"] == "greater_or_equal" else low
            high = item["value"] if item["operator"] == "less" else high
    return low, high


def tabs(twin):
    return {t["data"]["title"]: t["data"] for t in twin.tabs.values()}


@pytest.mark.parametrize("accept_from", [0.93, 0.4])
def test_tabs_follow_the_piles(accept_from):
    twin = PlatformTwin()
    assert ensure_piles(twin, 7, accept_from=None)
    assert {name: scores_of(tab) for name, tab in tabs(twin).items()} == {
        LABEL_TAB: (0.0, 0.5), REVIEW_TAB: (0.5, 0.9995), CHECK_TAB: (0.0, 0.5),
    }  # fmt: skip
    assert not ensure_piles(twin, 7, accept_from=None)
    assert ensure_piles(twin, 7, accept_from=accept_from)
    found = {name: scores_of(tab) for name, tab in tabs(twin).items()}
    assert found[LABEL_TAB][1] == found[REVIEW_TAB][0]
    assert found[REVIEW_TAB][1] == found[ACCEPT_TAB][0] == accept_from
    assert ensure_piles(twin, 7, accept_from=None)
    assert ACCEPT_TAB not in tabs(twin)


def test_a_project_without_tasks_gets_no_tabs():
    twin = PlatformTwin()
    twin.settings["task_number"] = 0
    assert not ensure_piles(twin, 7, accept_from=None)
    assert not twin.tabs
