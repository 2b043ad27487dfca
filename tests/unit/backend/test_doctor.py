"""Every known way to break a project, found and fixed in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from platform_twin import PlatformTwin

from backend.connect import connect
from backend.doctor import Finding, examine
from backend.errors import TokenError

URL = "http://doubtless.example.org:9090"
Change = Callable[[PlatformTwin], Any]


def healthy() -> PlatformTwin:
    twin = PlatformTwin()
    connect(twin, 7, public_url=URL, key="k7", secret="s7")  # type: ignore[arg-type]
    twin.settings["model_version"] = "v3"
    twin.versions = {"v3": 20}
    return twin


def look(twin: PlatformTwin, **changes: Any) -> dict[str, Finding]:
    arguments: dict[str, Any] = {
        "public_url": URL,
        "key": "k7",
        "live_version": "v3",
        "probe": lambda url: None,
        **changes,
    }
    found = examine(twin, 7, **arguments)  # type: ignore[arg-type]
    return {finding.code: finding for finding in found}


def test_connected_project_is_fine() -> None:
    found = look(healthy())
    assert [f for f in found.values() if not f.ok] == []
    assert all(f.fix == "" for f in found.values())
    assert len(found) > 20


def test_project_before_its_first_version_is_fine() -> None:
    twin = healthy()
    twin.settings["model_version"], twin.versions = "", {}
    assert [f for f in look(twin, live_version=None).values() if not f.ok] == []


def first_row(twin: PlatformTwin) -> dict[str, Any]:
    return next(iter(twin.rows.values()))


def first_hook(twin: PlatformTwin) -> dict[str, Any]:
    return next(iter(twin.hooks.values()))


def other_backend_first(twin: PlatformTwin) -> None:
    twin.rows[0] = {**first_row(twin), "id": 0, "url": "http://other:1", "basic_auth_user": "x"}


BROKEN: list[tuple[str, Change, str]] = [
    ("labeling-config", lambda t: t.settings.update(label_config="<View/>"), "<Choices"),
    ("backend", lambda t: t.rows.clear(), "doubtless connect --project 7"),
    ("backend", lambda t: first_row(t).update(url="http://old:9090"), "doubtless connect"),
    ("backend-state", lambda t: first_row(t).update(state="DI"), "DOUBTLESS_PUBLIC_URL"),
    ("backend-password", lambda t: first_row(t).update(basic_auth_user="k1"), "connect"),
    ("backend-password", lambda t: first_row(t).update(auth_method="NONE"), "connect"),
    ("several-backends", other_backend_first, "Settings > Model"),
    ("title-is-version", lambda t: t.versions.update(Doubtless=1), "connect"),
    ("webhook", lambda t: t.hooks.clear(), "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false"),
    ("webhook-settings", lambda t: first_hook(t).update(headers={}), "connect"),
    ("webhook-settings", lambda t: first_hook(t).update(is_active=False), "connect"),
    ("webhook-settings", lambda t: first_hook(t).update(send_payload=True), "connect"),
    ("webhook-settings", lambda t: first_hook(t)["actions"].pop(), "connect"),
    ("webhook-settings", lambda t: first_hook(t).update(url="http://old/webhook"), "connect"),
    ("sampling", lambda t: t.settings.update(sampling="Uniform sampling"), "connect"),
    ("model-version", lambda t: t.settings.update(model_version="Doubtless"), "--publish"),
    ("predictions", lambda t: t.versions.clear(), "--publish"),
    ("unscored-tasks", lambda t: setattr(t, "unscored", 4), "--publish"),
    (
        "evaluate-automatically",
        lambda t: t.settings.update(evaluate_predictions_automatically=True),
        "connect",
    ),
    (
        "many-versions",
        lambda t: t.versions.update({f"old-{i}": 1 for i in range(25)}),
        "Predictions",
    ),
    ("tab", lambda t: t.tabs.clear(), "connect"),
]


@pytest.mark.parametrize(("code", "break_it", "fix"), BROKEN)
def test_fault_is_found_with_its_fix(code: str, break_it: Change, fix: str) -> None:
    twin = healthy()
    break_it(twin)
    finding = look(twin)[code]
    assert not finding.ok
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        ("train-on-submit", {"min_annotations_to_start_training": 5}),
        ("several-annotations", {"maximum_annotations": 2}),
        ("show-predictions", {"show_collab_predictions": False}),
    ],
)
def test_matters_of_taste_are_told_but_are_fine(code: str, setting: dict[str, Any]) -> None:
    twin = healthy()
    twin.settings |= setting
    finding = look(twin)[code]
    assert finding.ok
    assert finding.severity == "info"
    assert finding.fix


def test_connect_repairs_what_doctor_sends_to_connect() -> None:
    for code, break_it, fix in BROKEN:
        if "connect" not in fix or code == "title-is-version":
            continue
        twin = healthy()
        break_it(twin)
        connect(twin, 7, public_url=URL, key="k7", secret="s7")  # type: ignore[arg-type]
        assert look(twin)[code].ok, code


def test_title_as_version_is_noticed_before_the_first_version() -> None:
    twin = healthy()
    twin.settings["model_version"] = "Doubtless"
    assert not look(twin, live_version=None)["model-version"].ok


def test_dead_webhooks_of_removed_backends_are_named() -> None:
    twin = healthy()
    twin.create_webhook(url="http://gone:9090/webhook", send_for_all_actions=True)
    twin.create_webhook(url="https://chat.example.org/hook")
    found = look(twin, probe=lambda url: "ConnectionError" if "gone" in url else None)
    assert not found["dead-webhooks"].ok
    assert "http://gone:9090/webhook" in found["dead-webhooks"].message
    assert "chat" not in found["dead-webhooks"].message
    assert look(twin)["dead-webhooks"].ok


def test_address_that_does_not_answer_or_means_another_machine() -> None:
    twin = healthy()
    assert not look(twin, probe=lambda url: "ConnectTimeout")["public-url"].ok
    local = look(twin, public_url="http://127.0.0.1:9090")["public-url-local"]
    assert not local.ok
    assert "ls.example.org" in local.message
    twin.url = "http://localhost:8080"
    assert look(twin, public_url="http://127.0.0.1:9090")["public-url-local"].ok


def test_refused_token_ends_the_examination() -> None:
    twin = healthy()

    def refuse() -> dict[str, Any]:
        raise TokenError("Label Studio does not accept the token. Copy a token again.", 401)

    twin.whoami = refuse  # type: ignore[method-assign]
    (finding,) = look(twin).values()
    assert not finding.ok
    assert "Copy a token" in finding.fix


def test_short_lived_token_and_missing_project_are_said() -> None:
    twin = healthy()
    twin.token_kind = "access"
    assert not look(twin)["token-kind"].ok
    found = examine(
        twin,
        8,
        public_url=URL,
        key="k7",
        live_version=None,
        probe=lambda url: None,  # type: ignore[arg-type]
    )
    assert not found[-1].ok
    assert found[-1].code == "project"
