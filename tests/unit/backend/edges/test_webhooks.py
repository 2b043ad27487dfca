"""Events, read from bodies that Label Studio 1.23.2 really sent."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.webhooks import WANTED_ACTIONS, parse_event, project_uid
from backend.errors import BadRequestError

PAYLOADS = Path(__file__).parents[3] / "payloads"


def body(name: str) -> dict[str, Any]:
    loaded = json.loads((PAYLOADS / f"webhook-{name}-1.23.2.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def setup_project() -> str:
    return str(json.loads((PAYLOADS / "setup-1.23.2.json").read_text())["project"])


@pytest.mark.parametrize("action", [*WANTED_ACTIONS, "START_TRAINING"])
def test_every_wanted_action_is_read_and_names_the_project_as_setup_does(action: str) -> None:
    event = parse_event(body(action))
    assert event.action == action
    assert event.project_uid == setup_project()
    assert event.project_uid.startswith(f"{event.project_id}.")
    assert event.label_config is not None
    assert "<Choices" in event.label_config


def test_submitted_annotation_comes_whole() -> None:
    event = parse_event(body("ANNOTATION_CREATED"))
    (annotation,) = event.annotations
    assert event.annotation_ids == (annotation.id,)
    assert event.task_ids == (annotation.task_id,)
    assert annotation.result[0]["value"] == {"choices": ["cat"]}
    assert not annotation.was_cancelled
    assert annotation.completed_by == 1


def test_skip_is_a_cancelled_annotation() -> None:
    (annotation,) = parse_event(body("ANNOTATION_CREATED-skip")).annotations
    assert annotation.was_cancelled
    assert annotation.result == []


def test_batch_of_annotations_under_the_singular_name_is_read() -> None:
    event = parse_event(body("ANNOTATIONS_CREATED"))
    assert len(event.annotations) == 1
    assert event.task_ids == (event.annotations[0].task_id,)


def test_deleted_annotations_have_ids_only() -> None:
    event = parse_event(body("ANNOTATIONS_DELETED"))
    assert len(event.annotation_ids) == 1
    assert event.annotations == ()
    assert event.task_ids == ()


@pytest.mark.parametrize("action", ["TASKS_CREATED", "TASKS_DELETED"])
def test_tasks_are_named(action: str) -> None:
    event = parse_event(body(action))
    assert event.task_ids
    assert event.annotation_ids == ()


def test_key_is_the_same_only_for_the_same_event() -> None:
    created, updated = body("ANNOTATION_CREATED"), body("ANNOTATION_UPDATED")
    assert parse_event(created).key == parse_event(created).key
    again = {**updated, "annotation": {**updated["annotation"], "updated_at": "later"}}
    keys = {parse_event(b).key for b in (created, updated, again)}
    assert len(keys) == 3


def test_each_press_of_start_training_counts() -> None:
    pressed = body("START_TRAINING")
    assert parse_event(pressed).key != parse_event(pressed).key


def test_unknown_action_is_passed_on() -> None:
    event = parse_event({**body("PROJECT_UPDATED"), "action": "LABEL_LINK_CREATED"})
    assert event.action == "LABEL_LINK_CREATED"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": None}, "no 'action'"),
        ({"project": "4.1"}, "no 'project' object"),
        ({"project": {"id": 4}}, "created_at"),
        ({"project": {"id": True, "created_at": "2026-01-01T00:00:00Z"}}, "where an id belongs"),
        ({"annotation": None}, "names no annotation"),
        ({"annotation": ["x"]}, "where an object belongs"),
        ({"annotation": {"id": "x"}}, "unusable annotation"),
        ({"annotation": {"id": 2**70, "task": 1}}, "where an id belongs"),
    ],
)
def test_malformed_events_are_bad_requests(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        parse_event({**body("ANNOTATION_CREATED"), **change})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"annotation": JSON, "task": JSON, "project": JSON}))
def test_any_json_is_read_or_refused(parts: dict[str, Any]) -> None:
    good = body("ANNOTATION_CREATED")
    for change in (parts, {**parts, "project": good["project"]}):
        with contextlib.suppress(BadRequestError):
            parse_event({**good, **change})


def test_uid_refuses_a_project_without_a_time() -> None:
    with pytest.raises(BadRequestError, match="created_at"):
        project_uid({"id": 4, "created_at": "yesterday"})
