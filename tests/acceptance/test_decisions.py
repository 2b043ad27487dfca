"""What the owner decides on the page, each beside a real Label Studio and with what comes of it."""

from __future__ import annotations

import re
import time

import pytest
from support.real import until

pytestmark = pytest.mark.acceptance

TASKS, LABELS = 400, 80


@pytest.fixture
def make_owner(start_stack, make_project, page):
    """A project with only a cold start, its stack, and its page, open since it was connected."""

    def make(**settings):
        stack = start_stack(**settings)
        project = make_project(title="Decided on the page")
        project.import_inline(TASKS, TASKS)
        key = project.connect(stack)
        page.wrong = []
        page.on("pageerror", lambda exc: page.wrong.append(str(exc)))
        page.on("response", lambda r: r.status >= 400 and page.wrong.append(f"{r.status} {r.url}"))
        page.goto(stack.command("dashboard")["address"])
        page.get_by_role("link", name="Decided on the page").click()
        page.evaluate(WATCH_THE_BARS)
        page.get_by_text("is an order without a model").first.wait_for()
        return Owner(stack, project, key, page)

    return make


class Owner:
    """What is pressed and what the page, the database and Label Studio say of it."""

    def __init__(self, stack, project, key, page):
        self.stack, self.project, self.key, self.page = stack, project, key, page
        self.card = page.locator("section.accept")

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def confirm(self, name):
        """In the dialog that was opened."""
        self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()

    def says(self, text):
        self.page.get_by_text(text).first.wait_for()

    def live(self, version):
        """Until the page shows it as the live version; nobody reloads."""
        self.page.locator(".numbers dd").get_by_text(version, exact=True).wait_for()

    def status(self):
        return self.stack.command("status")["projects"][0]

    def idle(self):
        until(lambda: not self.runs(), 120, "nothing runs")

    def runs(self):
        database = self.stack.database
        found = [r for r in database.runs(self.key) if r.kind != "prune"]
        database.close()
        return found

    def annotations(self):
        """Annotation -> task and choices, as Label Studio has them."""
        api, project = self.project.api, self.project.id
        return {
            a.id: (task.id, a.result[0]["value"]["choices"])
            for task in api.tasks(project, only_annotated=True)
            for a in task.annotations
        }

    def ask_for_an_audit(self):
        """Ask, at most 30 % wrong; returns its description once the queue begins with it."""
        self.card.get_by_label("At most").fill("30")
        self.press("Ask for an audit")
        bar = self.card.get_by_role("progressbar", name="Audit labels that are there")
        bar.wait_for()
        self.idle()
        found = self.status()["acceptance"]
        assert found["status"] == "open"
        assert bar.get_attribute("value") == "0"
        assert bar.get_attribute("max") == str(found["audit_labels"])
        return found

    def answer(self, audit):
        """Label what the audit asks for; returns the tasks once the page says what is proved."""
        served = self.project.label(audit["audit_labels"])
        self.card.get_by_role("button", name=re.compile(r"^Accept \d+")).wait_for()
        assert self.drawn(audit) == set(served)
        return served

    def drawn(self, audit):
        database = self.stack.database
        found = {i.task_id for i in database.audit_items(audit["audit"], state="drawn")}
        database.close()
        return found


def test_pause_estimator_and_roll_back(make_owner, artifacts):
    owner = make_owner(retrain_after=LABELS, quiet_s=1)
    project, page = owner.project, owner.page
    # What runs was followed without a reload, its progress and the time that is left.
    bars = page.evaluate("window.bars.map(bar => bar.seen)")
    assert all(seen == sorted(seen) for seen in bars)
    assert max(len(seen) for seen in bars) > 1, bars
    assert "left" in page.evaluate("window.left")

    owner.press("Pause")
    owner.says("Paused: no training starts by itself.")
    project.label(LABELS)
    until(lambda: owner.status()["labels"] == LABELS, 60, "the labels are read")
    time.sleep(5)  # five times as long as people must be quiet
    assert owner.runs() == []
    assert project.live().startswith("cold")

    owner.press("Go on")
    first = project.wait_for_version(prefix="v")
    owner.live(first)
    owner.idle()

    page.get_by_label("Uncertainty estimator").select_option("laplace")
    page.locator(".methods").get_by_role("button", name="Change…").nth(0).click()
    owner.confirm("Change")
    owner.says("estimator laplace: a new version is trained with it")
    second = project.wait_for_version(first, prefix="v")
    owner.live(second)
    owner.idle()
    estimators = {v.name: v.metrics["estimator"] for v in owner.stack.database.versions(owner.key)
                  if v.bundle}  # fmt: skip
    assert estimators == {first: "evidential", second: "laplace"}

    page.get_by_label("Earlier version").select_option(first)
    owner.press("Roll back…")
    owner.confirm(f"Roll back to {first}")
    owner.says(f"{first} is being published again")
    third = project.wait_for_version(second, prefix="v")
    owner.live(third)
    owner.idle()
    database = owner.stack.database
    numbers = {v.name: v for v in database.versions(owner.key)}
    assert numbers[third].bundle == numbers[first].bundle
    assert numbers[third].metrics["estimator"] == "evidential"
    # Label Studio has what the page says: predictions of the old model, in the order of it.
    expected = owner.project.our_order(owner.stack, owner.key, 5)
    assert project.label(5) == expected
    page.screenshot(path=artifacts / "dashboard-rolled-back.png", full_page=True)
    assert page.wrong == []


def test_an_audit_is_given_up_refused_accepted_and_taken_back(make_owner, artifacts):
    owner = make_owner(retrain_after=1000, quiet_s=600)
    project, page, card = owner.project, owner.page, owner.card
    project.label(LABELS)
    owner.press("Train now")
    owner.live(project.wait_for_version(prefix="v"))
    owner.says("Ask for an audit: people label")
    owner.idle()

    given_up = owner.ask_for_an_audit()
    assert set(project.label(2)) <= owner.drawn(given_up)
    owner.press("Give up the audit")
    owner.says("The audit is given up")
    owner.idle()
    ordered = project.our_order(owner.stack, owner.key, 5)
    assert project.label(5) == ordered  # the queue teaches again

    audit = owner.ask_for_an_audit()
    owner.answer(audit)
    people = owner.annotations()
    owner.press("Do not accept")
    card.get_by_role("button", name="Ask for an audit").wait_for()
    owner.idle()
    assert owner.annotations() == people
    assert owner.status()["acceptance"] is None

    audit = owner.ask_for_an_audit()
    owner.answer(audit)
    people = owner.annotations()
    proved = owner.status()["piles"]["accept"]
    button = card.get_by_role("button", name=re.compile(r"^Accept \d+"))
    assert button.inner_text() == f"Accept {proved}…"
    button.click()
    owner.confirm("Accept")
    owner.says("accepted unseen")
    back = card.get_by_role("button", name="Take accepted labels back…")
    back.wait_for()
    owner.idle()
    accepted = owner.status()["acceptance"]
    assert accepted["status"] == "accepted"
    owner.says("what was proved is accepted")
    made = owner.annotations()
    assert people.items() <= made.items()
    assert len(made) - len(people) == accepted["accepted"] > 0
    unseen = [value for i, value in made.items() if i not in people]
    right = sum([project.truth[task]] == said for task, said in unseen)
    assert right / len(unseen) >= 0.7
    page.screenshot(path=artifacts / "dashboard-accepted.png", full_page=True)

    back.click()
    page.get_by_text(re.compile(r"^\d+ annotations? made of predictions will be")).wait_for()
    owner.confirm("Take back")
    card.get_by_role("button", name="Ask for an audit").wait_for()
    owner.idle()
    assert owner.annotations() == people
    assert owner.status()["labels"] == len(people)
    assert page.wrong == []


# Every value that the progress bar of each run shows, as it comes, and what is said of the time.
WATCH_THE_BARS = """() => {
window.bars = [];
window.left = "";
const look = () => { for (const bar of document.querySelectorAll('[aria-label^="Progress of"]')) {
  if (!bar.seen) { bar.seen = []; window.bars.push(bar) }
  if (bar.value !== bar.seen.at(-1)) bar.seen.push(bar.value);
  window.left += bar.parentNode.innerText } };
new MutationObserver(look).observe(document.body,
  { subtree: true, childList: true, attributes: true }) }"""
