"""Connecting, again and out of every half-connected state."""

from __future__ import annotations

from typing import Any

import pytest
from platform_twin import PlatformTwin

from backend.connect import KEY_HEADER, SECRET_HEADER, ConnectReport, connect
from backend.edges.webhooks import WANTED_ACTIONS
from backend.errors import PlatformError
from backend.tabs import TAB_TITLE

URL = "http://127.0.0.1:9090"


def run(twin: PlatformTwin, **changes: Any) -> ConnectReport:
    arguments: dict[str, Any] = {"public_url": URL, "key": "k7", "secret": "s7", **changes}
    return connect(twin, 7, **arguments)  # type: ignore[arg-type]


def test_fresh_project_gets_all_it_needs() -> None:
    twin = PlatformTwin()
    report = run(twin)
    (row,), (hook,) = twin.rows.values(), twin.hooks.values()
    assert (row["url"], row["auth_method"], row["basic_auth_user"]) == (URL, "BASIC_AUTH", "k7")
    assert row["basic_auth_pass_is_set"]
    assert hook["url"] == f"{URL}/webhook"
    assert hook["headers"] == {KEY_HEADER: "k7", SECRET_HEADER: "s7"}
    assert hook["actions"] == sorted(WANTED_ACTIONS)
    assert not hook["send_for_all_actions"]
    assert twin.settings["sampling"] == "Uncertainty sampling"
    assert [tab["data"]["title"] for tab in twin.tabs.values()] == ["Default", TAB_TITLE]
    assert (report.backend_id, report.webhook_id) == (row["id"], hook["id"])
    assert report.changed
    assert len(report.steps) == 5


def test_title_that_label_studio_takes_for_the_version_is_cleared() -> None:
    """With the title as version the queue is random until the first version is published."""
    twin = PlatformTwin()
    run(twin)
    assert twin.settings["model_version"] == ""


def test_second_run_changes_nothing() -> None:
    twin = PlatformTwin()
    run(twin)
    twin.settings["model_version"] = "v3"
    twin.patches.clear()
    before = (str(twin.rows), str(twin.hooks), str(twin.tabs), str(twin.settings))
    report = run(twin)
    assert not report.changed
    assert (str(twin.rows), str(twin.hooks), str(twin.tabs), str(twin.settings)) == before
    assert twin.patches == []


def test_backend_without_its_webhook_gets_one() -> None:
    twin = PlatformTwin()
    run(twin)
    twin.hooks.clear()
    assert run(twin).changed
    assert len(twin.hooks) == 1


def test_webhook_left_by_a_removed_backend_is_used_again() -> None:
    twin = PlatformTwin()
    run(twin)
    twin.rows.clear()
    run(twin)
    assert len(twin.rows) == len(twin.hooks) == 1


def test_new_address_moves_both_rows() -> None:
    twin = PlatformTwin()
    run(twin)
    run(twin, public_url="https://new.example.org/doubtless/")
    (row,), (hook,) = twin.rows.values(), twin.hooks.values()
    assert row["url"] == "https://new.example.org/doubtless"
    assert hook["url"] == "https://new.example.org/doubtless/webhook"


def test_new_key_at_the_same_address_replaces_the_old_one() -> None:
    twin = PlatformTwin()
    run(twin)
    run(twin, key="k8", secret="s8")
    (row,), (hook,) = twin.rows.values(), twin.hooks.values()
    assert row["basic_auth_user"] == "k8"
    assert hook["headers"] == {KEY_HEADER: "k8", SECRET_HEADER: "s8"}


def test_rows_made_by_hand_are_taken_over_and_doubles_removed() -> None:
    twin = PlatformTwin()
    for _ in range(2):
        twin.create_ml_backend(url=f"{URL}/", title="by hand", auth_method="NONE")
    report = run(twin)
    assert len(twin.rows) == len(twin.hooks) == 1
    assert next(iter(twin.rows.values()))["auth_method"] == "BASIC_AUTH"
    assert sum("second" in step for step in report.steps) == 2


def test_rows_of_others_are_left_alone() -> None:
    twin = PlatformTwin()
    twin.create_ml_backend(url="http://other:9090", title="other", auth_method="NONE")
    before = (dict(twin.rows[1]), dict(twin.hooks[2]))
    run(twin)
    assert (twin.rows[1], twin.hooks[2]) == before
    assert twin.settings["model_version"] == "other"


def test_title_of_a_stored_version_is_avoided() -> None:
    twin = PlatformTwin()
    twin.versions = {"Doubtless": 3}
    run(twin)
    assert next(iter(twin.rows.values()))["title"] == "Doubtless backend"


def test_own_changes_to_the_tab_survive_its_repair() -> None:
    twin = PlatformTwin()
    run(twin)
    data = next(t["data"] for t in twin.tabs.values() if t["data"]["title"] == TAB_TITLE)
    mine = {"filter": "filter:tasks:data.day", "operator": "equal", "type": "String", "value": "1"}
    data |= {
        "gridWidth": 9,
        "ordering": ["-tasks:id"],
        "filters": {"conjunction": "and", "items": [mine]},
        "hiddenColumns": {"explore": ["tasks:id", "tasks:predictions_score"], "labeling": []},
    }
    assert run(twin).changed
    data = next(t["data"] for t in twin.tabs.values() if t["data"]["title"] == TAB_TITLE)
    assert data["gridWidth"] == 9
    assert data["ordering"] == ["tasks:predictions_score"]
    assert [item["filter"] for item in data["filters"]["items"]] == [
        mine["filter"],
        "filter:tasks:total_annotations",
    ]
    assert data["hiddenColumns"]["explore"] == ["tasks:id"]
    assert not run(twin).changed


@pytest.mark.parametrize("guard", ["strict", "half"])
def test_refused_address_names_the_switches_and_leaves_nothing_behind(guard: str) -> None:
    twin = PlatformTwin(guard)
    with pytest.raises(PlatformError) as caught:
        run(twin)
    text = str(caught.value)
    assert "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false" in text
    assert "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false" in text
    assert "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false" in text
    assert twin.rows == {}
    assert twin.hooks == {}


def test_unreachable_address_says_how_docker_sees_it() -> None:
    twin = PlatformTwin()
    twin.down = True
    with pytest.raises(PlatformError, match=r"host\.docker\.internal"):
        run(twin)
    twin.down = False
    run(twin)
    twin.down = True
    with pytest.raises(PlatformError, match="cannot reach"):
        run(twin)


def test_tab_waits_for_the_first_task() -> None:
    """Label Studio answers 500 for a tab ordered by score in a project without tasks."""
    twin = PlatformTwin()
    twin.settings["task_number"] = 0
    assert run(twin).view_id is None
    assert twin.tabs == {}
    twin.settings["task_number"] = 3
    assert run(twin).view_id is not None
