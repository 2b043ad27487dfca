"""Filters and selections of tasks, as the Data Manager's API takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from backend.edges.labelstudio_records import JsonObject


def condition(name: str, operator: str, kind: str, value: object) -> JsonObject:
    """One filter on a column of tasks; `kind` is the column's type there."""
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}


def query_of(items: list[JsonObject]) -> JsonObject:
    """Tasks that meet all conditions, by id."""
    return {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}


def selection(task_ids: Sequence[int]) -> JsonObject:
    """These tasks, by id."""
    return {
        "selectedItems": {"all": False, "included": list(task_ids)},
        "ordering": ["tasks:id"],
    }


def changed_since(moment: datetime) -> JsonObject:
    """Changed at or after a moment; without a zone it is UTC."""
    return condition("updated_at", "greater_or_equal", "Datetime", _text(moment))


def changed_until(moment: datetime) -> JsonObject:
    """Changed at a moment or before; without a zone it is UTC."""
    return condition("updated_at", "less_or_equal", "Datetime", _text(moment))


def _text(moment: datetime) -> str:
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


ANNOTATED = condition("total_annotations", "greater", "Number", 0)
SKIPPED_ONLY = [
    condition("total_annotations", "equal", "Number", 0),
    condition("cancelled_annotations", "greater", "Number", 0),
]
