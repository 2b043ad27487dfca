"""The dashboard beside a real Label Studio: its buttons, its pictures and its links."""

from __future__ import annotations

import pytest
from support.real import until

pytestmark = pytest.mark.acceptance


def test_the_owner_trains_examines_and_looks_at_the_most_doubtful(
    start_stack, make_project, page, artifacts
):
    stack = start_stack(retrain_after=10, quiet_s=600)
    project = make_project(title="Digits to look at")
    project.upload(120)
    key = project.connect(stack)
    cold = project.wait_for_version(prefix="cold")
    errors: list[str] = []
    page.on("pageerror", lambda exc: errors.append(str(exc)))
    page.on("response", lambda r: r.status >= 400 and errors.append(f"{r.status} {r.url}"))
    page.goto(stack.command("dashboard")["address"])
    page.get_by_role("link", name="Digits to look at").click()
    page.get_by_text(f"{cold} is an order without a model").first.wait_for()

    project.label(9)
    page.get_by_role("button", name="Train now").click()
    version = project.wait_for_version(cold, prefix="v")
    # Nobody reloads the page.
    page.locator(".numbers dd").get_by_text(version, exact=True).wait_for()
    page.locator(".doubtful-list img").first.wait_for()
    page.locator(".doubtful-list img").first.scroll_into_view_if_needed()  # they are read lazily
    until(
        lambda: page.locator(".doubtful-list img").first.evaluate("i => i.naturalWidth") > 0,
        30,
        "the picture of the most doubtful image is there",
    )
    shown = page.locator(".doubtful-list h3").first.inner_text().removeprefix("Task ")
    live = stack.database.project(key).live_version
    rows = stack.database.scores(key, live).values()
    touched = stack.database.touched_tasks(key)
    doubtful = min(
        (r for r in rows if r.task_id not in touched), key=lambda r: (r.p_right, r.task_id)
    )
    assert shown == str(doubtful.task_id)

    # Another rule puts the real queue into another order, by the same model.
    page.get_by_label("Acquisition rule").select_option("margin")
    page.locator(".methods").get_by_role("button", name="Change…").nth(1).click()
    page.get_by_role("button", name="Change", exact=True).click()
    page.get_by_text(f"acquisition margin: {version} chooses again").wait_for()
    reordered = project.wait_for_version(version, prefix="v")
    page.locator(".numbers dd").get_by_text(reordered, exact=True).wait_for()
    number = stack.database.project(key).live_version
    assert {rule for _, rule, _ in stack.database.acquired(key, number)} == {"margin"}
    shown = page.locator(".doubtful-list h3").first.inner_text().removeprefix("Task ")
    rows = stack.database.scores(key, number)
    doubtful = rows[int(shown)]

    page.get_by_role("button", name="Examine now").click()
    page.get_by_text("checks are fine").wait_for()
    assert page.locator(".findings .error").all_inner_texts() == []
    page.screenshot(path=artifacts / "dashboard.png", full_page=True)
    assert errors == []

    with page.context.expect_page() as opened:
        page.get_by_role("link", name=f"Task {shown}", exact=True).click()
    # The tab of our prediction, with its score, stands beside the annotation of this very task.
    score = f"{100 * doubtful.score:.2f}%"
    until(lambda: score in opened.value.inner_text("body"), 60, "Label Studio shows the task")
    opened.value.screenshot(path=artifacts / "dashboard-task.png")
