"""Tabs of the Data Manager: the most doubtful tasks first, and the three piles of the pool."""

from __future__ import annotations

from typing import Any

from backend.edges.labelstudio_api import LabelStudio
from backend.edges.labelstudio_queries import ANNOTATED, condition
from backend.triage import DOUBTED, REVIEW_FROM

TAB_TITLE = "Most doubtful first"
SCORE_COLUMN = "tasks:predictions_score"
LABEL_TAB, REVIEW_TAB, ACCEPT_TAB = "To label", "To review", "May be accepted"
CHECK_TAB = "Labels to check"
# Unreadable images have a score of 1, above every other; they are in no pile.
READABLE = 0.9995
_OPEN_FILTER = {
    "filter": "filter:tasks:total_annotations",
    "operator": "equal",
    "type": "Number",
    "value": 0,
}
_HIDDEN = [
    "tasks:annotations_results",
    "tasks:annotations_ids",
    "tasks:predictions_results",
    "tasks:file_upload",
    "tasks:storage_filename",
    "tasks:created_at",
    "tasks:updated_at",
    "tasks:updated_by",
    "tasks:avg_lead_time",
    "tasks:draft_exists",
    "tasks:inner_id",
]


def ensure_tab(platform: LabelStudio, project_id: int) -> tuple[int | None, str, bool]:
    """Add or repair the tab "Most doubtful first"; cheap when it is as it should be.

    Label Studio 1.23.2 answers 500 for a tab that is ordered by score in a project without tasks,
    so such a project gets the tab later.

    Returns:
        Id of the tab or ``None``, one sentence on what was done, and whether anything was changed.
    """
    if not platform.project(project_id).get("task_number"):
        return None, f"The tab '{TAB_TITLE}' is added once the project has tasks.", False
    views = platform.views(project_id)
    view = next((v for v in views if v.get("data", {}).get("title") == TAB_TITLE), None)
    if view is None:
        if not views:
            # Label Studio makes its own first tab only when there is none at all.
            hidden = {"explore": [*_HIDDEN, SCORE_COLUMN], "labeling": _HIDDEN}
            platform.create_view(
                project_id, _tab_data({"title": "Default", "hiddenColumns": hidden})
            )
        made = platform.create_view(project_id, _repaired_tab({"title": TAB_TITLE}))
        return int(made["id"]), f"Added the tab '{TAB_TITLE}' to the Data Manager.", True
    data = dict(view["data"])
    repaired = _repaired_tab(data)
    if repaired == data:
        return int(view["id"]), f"The tab '{TAB_TITLE}' is there.", False
    platform.update_view(int(view["id"]), project_id, repaired)
    return int(view["id"]), f"Repaired the tab '{TAB_TITLE}'.", True


def _tab_data(data: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "type": "list",
        "target": "tasks",
        "gridWidth": 4,
        "columnsDisplayType": {},
        "columnsWidth": {},
        "filters": {"conjunction": "and", "items": []},
        "ordering": [],
    }
    return {**empty, **data}


def _repaired_tab(data: dict[str, Any]) -> dict[str, Any]:
    """Lowest score first, only open tasks, score column shown; everything else as it was."""
    data = _tab_data(data)
    if data.get("ordering") != [SCORE_COLUMN]:
        data["ordering"] = [SCORE_COLUMN]
    items = list((data.get("filters") or {}).get("items") or [])
    if not any(item.get("filter") == _OPEN_FILTER["filter"] for item in items):
        data["filters"] = {"conjunction": "and", "items": [*items, _OPEN_FILTER]}
    hidden = data.get("hiddenColumns") or {"explore": _HIDDEN, "labeling": _HIDDEN}
    if any(SCORE_COLUMN in columns for columns in hidden.values()) or not data.get("hiddenColumns"):
        data["hiddenColumns"] = {
            where: [column for column in columns if column != SCORE_COLUMN]
            for where, columns in hidden.items()
        }
    return data


def ensure_piles(platform: LabelStudio, project_id: int, *, accept_from: float | None) -> bool:
    """Add, repair or remove the tabs of the piles, which never overlap, and of doubted labels.

    Args:
        platform: Label Studio.
        project_id: the project; one without tasks gets no tabs.
        accept_from: P(right) from which predictions may be accepted; None where none may, and then
            there is no tab for them.

    Returns:
        Whether anything was changed.
    """
    if not platform.project(project_id).get("task_number"):
        return False
    views = {v.get("data", {}).get("title"): v for v in platform.views(project_id)}
    top = READABLE if accept_from is None else min(accept_from, READABLE)
    wanted = {
        LABEL_TAB: _pile(None, min(REVIEW_FROM, top)),
        REVIEW_TAB: _pile(min(REVIEW_FROM, top), top),
    }
    if accept_from is not None:
        wanted[ACCEPT_TAB] = _pile(top, READABLE)
    # The score of a labelled task is that of its label.
    doubted = condition("predictions_score", "less", "Number", DOUBTED)
    wanted[CHECK_TAB] = {"conjunction": "and", "items": [ANNOTATED, doubted]}
    changed = False
    for title, filters in wanted.items():
        data = {"title": title, "filters": filters, "ordering": [SCORE_COLUMN]}
        view = views.get(title)
        if view is None:
            hidden = {"explore": _HIDDEN, "labeling": _HIDDEN}
            platform.create_view(project_id, _tab_data({**data, "hiddenColumns": hidden}))
            changed = True
        elif view["data"].get("filters") != filters:
            platform.update_view(int(view["id"]), project_id, {**view["data"], **data})
            changed = True
    if accept_from is None and ACCEPT_TAB in views:
        platform.delete_view(int(views[ACCEPT_TAB]["id"]))
        changed = True
    return changed


def _pile(low: float | None, high: float) -> dict[str, Any]:
    """Open tasks with a score of at least `low` and below `high`."""
    items: list[dict[str, Any]] = [_OPEN_FILTER]
    if low is not None:
        items.append(condition("predictions_score", "greater_or_equal", "Number", low))
    items.append(condition("predictions_score", "less", "Number", high))
    return {"conjunction": "and", "items": items}
