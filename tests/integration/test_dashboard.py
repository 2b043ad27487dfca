"""The dashboard in a real browser, served by a real web process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from support.browser import chromium, find_chromium
from support.installation import Installation, Valkey, until
from support.looked_at import LONG_TITLE, fill_audit, fill_installation

from backend.annotators import MEANINGS
from backend.dashboard.access import read_tokens
from backend.records import Consensus
from model.annotators.base import Annotator

SHOTS = Path(__file__).parents[2] / "artifacts" / "dashboard"
WIDTHS = (1440, 768, 390)
AGAIN = [
    ("Probably blue, right with 41.0 %", "Labelled red. Ask user 3."),
    ("Probably green, right with 83.0 %", "Labelled green. Ask user 3."),
]


@pytest.fixture(scope="module")
def browser():
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium on this machine; run: apt-get install -y chromium")
    with chromium(found) as started:
        yield started


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Two projects with a history, one of them with a run that does not end."""
    folder = tmp_path_factory.mktemp("dashboard")
    valkey = Valkey(folder)
    installation = Installation(folder, valkey)
    yield with_history(installation)
    installation.stop()
    valkey.stop()


def with_history(installation):
    installation.boxes = fill_installation(installation)
    run = installation.database.add_run(installation.key, "train", reason="11 of 10 new labels")
    installation.database.claim_run(run, "test")
    installation.database.update_run(
        run, heartbeat_at=time.time() + 3600, started_at=time.time() - 21, progress=0.35,
        stage="training on 96 labels",
    )  # fmt: skip
    installation.run = run
    installation.environment["DOUBTLESS_TARGET_ACCURACY"] = "0.895"  # in reach of the open images
    installation.start_web()
    return installation


def shot(name):
    """Where a picture for people to look at is kept."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS / f"{name}.png"


def open_page(browser, installation, *, share=False):
    """A page that was opened by the address of `doubtless dashboard`, and what went wrong on it."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.wrong = []
    page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
    page.on("pageerror", lambda exc: page.wrong.append(str(exc)))
    tokens = read_tokens(installation.home)
    token = tokens.read_only if share else tokens.full
    page.goto(f"http://127.0.0.1:{installation.port}/dashboard#token={token}")
    page.get_by_role("heading", name="Projects").wait_for()
    return page


def open_project(page, name="t"):
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name="Most doubtful images").wait_for()
    page.locator(".doubtful-list li").first.wait_for()


def test_the_owner_sees_the_state_live_and_every_button_works(running, browser):
    page = open_page(browser, running)
    assert "token" not in page.url
    open_project(page)
    database, key = running.database, running.key

    bar = page.get_by_role("progressbar", name="Progress of what runs")
    assert bar.get_attribute("value") == "0.35"
    page.locator("#connection[data-state=live]").wait_for()
    database.update_run(running.run, progress=0.6, stage="scoring 48 tasks")
    page.get_by_text("scoring 48 tasks").wait_for()
    assert bar.get_attribute("value") == "0.6"
    assert page.get_by_text(re.compile(r"about \d+ s left")).is_visible()

    page.get_by_role("button", name="Train now").click()
    page.get_by_role("button", name="Cancel").click()  # an audit is under way
    assert database.project(key).requested_at is None
    page.get_by_role("button", name="Train now").click()
    page.get_by_text("of 3 checked labels are there").wait_for()
    page.get_by_role("button", name="Train all the same").click()
    page.get_by_text("A training was asked for").wait_for()
    assert database.project(key).request_reason == "asked for on the dashboard"

    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Go on").wait_for()
    assert database.project(key).paused
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert not database.project(key).paused

    page.get_by_label("Earlier version").select_option("v4")
    page.get_by_role("button", name="Roll back…").click()
    page.screenshot(path=shot("dialog"))
    page.get_by_role("button", name="Cancel").click()
    assert "republish" not in {r.kind for r in database.runs(key)}
    page.get_by_role("button", name="Roll back…").click()
    page.get_by_role("button", name="Roll back to v4").click()
    page.get_by_text("v4 is being published again").wait_for()
    assert [r.payload for r in database.runs(key) if r.kind == "republish"] == [{"version": 4}]

    page.get_by_role("button", name="Examine now").click()
    page.get_by_text("checks are fine").wait_for()
    page.locator(".doctor").screenshot(path=shot("doctor"))
    assert page.wrong == []


def test_people_are_shown_where_several_share_tasks(running, browser):
    page = open_page(browser, running)
    open_project(page)
    rows = page.get_by_role("region", name="Annotators").locator("tbody tr")
    rows.first.wait_for()
    cells = [rows.nth(n).locator("td, th").all_inner_texts() for n in (0, 2)]
    assert [[text.replace("\u00a0", " ") for text in row] for row in cells] == [
        ["user 7", "31", "24", "71.0 %", "0.56", "74.0 %", "58.0 % to 87.0 %"],
        ["user 12", "5", "0", "–", "–", "–", "–"],
    ]
    again = page.get_by_role("region", name="Annotators").locator(".again > li")
    said = [again.nth(n).locator("p:not(.picture p)").all_inner_texts() for n in range(2)]
    assert [tuple(t.replace("\u00a0", " ") for t in texts) for texts in said] == AGAIN
    assert again.count() == 2, "what is right with 99 % is settled"
    page.get_by_role("link", name="All projects").click()
    open_project(page, LONG_TITLE)
    assert page.locator(".annotators").is_hidden()
    assert page.wrong == []


def test_people_who_draw_are_shown_with_what_they_find(running, browser):
    database, key = running.database, running.boxes
    people = [
        Annotator(id=5, labels=20, shared=9, agreement=0.82, kappa=None, quality=0.86, low=0.8,
                  high=0.91, recall=0.79, precision=0.94),
        Annotator(id=6, labels=3, shared=0, agreement=None, kappa=None, quality=None, low=None,
                  high=None),
    ]  # fmt: skip
    task = min(running.platform.data)
    votes = sorted((who, text) for who, text in database.answers_of_people(key, [task])[task])
    database.put_annotators(key, people)
    database.put_consensus(
        key, [Consensus(task_id=task, label=votes[0][1], p_right=0.4, votes=votes)]
    )
    try:
        page = open_page(browser, running)
        open_project(page, LONG_TITLE)
        region = page.get_by_role("region", name="Annotators")
        rows = region.locator("tbody tr")
        rows.first.wait_for()
        cells = [rows.nth(n).locator("td, th").all_inner_texts() for n in (0, 1)]
        assert [[text.replace("\u00a0", " ") for text in row] for row in cells] == [
            ["user 5", "20", "9", "82.0 %", "–", "86.0 %", "80.0 % to 91.0 %", "79.0 %", "94.0 %"],
            ["user 6", "3", "0", "–", "–", "–", "–", "–", "–"],
        ]
        assert region.get_by_text(MEANINGS["boxes"]).is_visible()
        said = region.locator(".again > li").first.inner_text().replace("\u00a0", " ")
        assert "Probably 1 cell, 1 platelet, right with 40.0 %" in said
        assert "Labelled 1 cell, 1 platelet. Ask user 5." in said
        assert page.wrong == []
    finally:
        database.put_annotators(key, [])
        database.put_consensus(key, [])


def test_doubtful_images_show_the_labelled_ones_they_are_most_like(running, browser):
    database = running.database
    for key, name, drawn in ((running.key, "t", 0), (running.boxes, LONG_TITLE, 2)):
        page = open_page(browser, running)
        open_project(page, name)
        live = database.project(key).live_version
        task = database.most_doubtful(key, live, 1)[0].task_id
        compared = database.compared(key, [task])[task]
        first = page.locator(".doubtful-list li").first
        first.get_by_text(f"Novelty {round(100 * compared.novelty)}\u00a0%").wait_for()
        near = first.get_by_role("list", name="Labelled images most like it, and how similar:")
        links = near.get_by_role("link")
        assert links.count() == 3
        for n, (other, similarity) in enumerate(compared.nearest):
            link = links.nth(n)
            assert link.get_attribute("href").endswith(f"/data?task={other}")
            assert link.get_attribute("rel") == "noopener noreferrer"
            image = link.get_by_role("img", name=re.compile(rf"^Task {other}, labelled: \w+"))
            image.scroll_into_view_if_needed()
            assert link.locator("rect").count() == drawn
            assert f"{similarity:.2f}" in near.locator("li").nth(n).inner_text()
        until(lambda near=near: near.evaluate(ALL_LOADED_IN), 10, "all small pictures are there")
        first.get_by_role("link", name=f"Task {task}", exact=True).focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.href").endswith(
            f"task={compared.nearest[0][0]}"
        )
        assert page.evaluate(FOCUS_IS_VISIBLE)
        assert page.wrong == []


def test_a_lost_picture_leaves_the_link_its_name_and_unknown_novelty_is_said(running, browser):
    database, key = running.database, running.key
    live = database.project(key).live_version
    tasks = [row.task_id for row in database.most_doubtful(key, live, 100)]
    known = list(database.compared(key, tasks).values())
    page = open_page(browser, running)
    page.route("**/image", lambda route: route.fulfill(status=502, body="{}"))
    database.put_compared(key, [row for row in known if row.task_id != tasks[0]])
    try:
        open_project(page)
        items = page.locator(".doubtful-list > li")
        items.first.get_by_text("Novelty: told after the next training").wait_for()
        assert items.first.locator(".nearest").count() == 0
        other = next(row for row in known if row.task_id == tasks[1]).nearest[0][0]
        second = items.nth(1).locator(".nearest")
        second.scroll_into_view_if_needed()
        second.get_by_role("link", name=f"Task {other}", exact=True).wait_for()
        assert page.evaluate(UNNAMED) == []
    finally:
        database.put_compared(key, known)


def test_an_audit_is_asked_for_accepted_and_given_up(running, browser):
    page = open_page(browser, running)
    open_project(page)
    database, key = running.database, running.key
    card = page.locator("section.accept")
    accept = card.get_by_role("button", name=re.compile(r"Accept \d+"))
    accept.click()
    page.get_by_text("They can be taken back").wait_for()
    page.screenshot(path=shot("accept-dialog"))
    page.get_by_role("button", name="Cancel").click()
    assert "accept" not in {r.kind for r in database.runs(key)}
    accept.click()
    page.get_by_role("button", name="Accept", exact=True).click()
    page.get_by_text("Annotations are being made").wait_for()
    audit = database.audits(key)[-1]
    assert [r.payload for r in database.runs(key) if r.kind == "accept"] == [{"audit": audit.id}]

    card.get_by_role("button", name="Do not accept").click()
    page.get_by_text("The audit is given up").wait_for()
    card.get_by_text("Ask for an audit: people label").wait_for()
    card.get_by_label("At most").fill("0.1")
    card.get_by_label("% wrong").select_option("of all, on average")
    card.get_by_label("counting").select_option("images of each class")
    with page.expect_request(re.compile("/audit$")) as sent:
        card.get_by_role("button", name="Ask for an audit").click()
    assert sent.value.post_data_json == {
        "max_error": 0.001, "confidence": 0.95, "of": "expected", "by": "classes",
    }  # fmt: skip
    page.get_by_text("a new version is on its way").wait_for()  # a training runs
    fill_audit(database, key, status="open")
    bar = card.get_by_role("progressbar", name="Audit labels that are there")
    bar.wait_for()
    assert bar.get_attribute("value") == "0"
    card.screenshot(path=shot("accept"))
    card.get_by_role("button", name="Give up the audit").click()
    card.get_by_role("button", name="Ask for an audit").wait_for()
    fill_audit(database, key, per_class=True)
    accept.wait_for()
    by_class = card.get_by_role("region", name="Accepting by class")
    assert by_class.locator("tbody tr").all_inner_texts() == ["green\t20\t2\t8", "blue\t20\t2\t0"]
    card.get_by_text("not from one P(right) on").wait_for()
    card.screenshot(path=shot("accept-by-class"))
    fill_audit(database, key)  # for the tests that come
    card.get_by_text("from P(right)").wait_for()
    # The refusal above is told by the server with a 409, which browsers log.
    assert [text for text in page.wrong if "409" not in text] == []


def test_estimator_and_rule_are_changed_on_the_page(running, browser):
    page = open_page(browser, running)
    open_project(page)
    database, key = running.database, running.key
    card = page.locator("section.methods")
    select = card.get_by_label("Uncertainty estimator")
    select.wait_for()
    assert select.input_value() == "evidential"
    change = card.get_by_role("button", name="Change…")
    assert change.nth(0).is_disabled()
    select.select_option("laplace")
    card.get_by_text("Regressions from the posterior").wait_for()
    change.nth(0).click()
    page.get_by_text("Uncertainty estimator: laplace instead of evidential").wait_for()
    page.get_by_role("button", name="Cancel").click()
    assert database.project(key).methods == {}
    card.screenshot(path=shot("methods"))
    change.nth(0).click()
    page.get_by_role("button", name="Change", exact=True).click()
    page.get_by_text("estimator laplace: from the next version on").wait_for()  # an audit is on
    assert database.project(key).methods == {"estimator": "laplace"}

    card.locator("#estimator option[selected]", has_text="laplace").wait_for(state="attached")
    rule = card.get_by_label("Acquisition rule")
    rule.select_option("epig")
    change.nth(1).click()
    page.get_by_role("button", name="Change", exact=True).click()
    page.get_by_text("acquisition epig: from the next version on").wait_for()
    assert database.project(key).methods == {"estimator": "laplace", "acquisition": "epig"}
    card.locator("#acquisition option[selected]", has_text="epig").wait_for(state="attached")
    select.select_option("evidential")
    change.nth(0).click()
    page.get_by_role("button", name="Change", exact=True).click()
    page.get_by_text("compares what a pass says of several images").wait_for()  # refused
    assert database.project(key).methods == {"estimator": "laplace", "acquisition": "epig"}
    assert [text for text in page.wrong if "400" not in text] == []
    database.update_project(key, methods=None)

    shared = open_page(browser, running, share=True)
    open_project(shared)
    card = shared.locator("section.methods")
    card.get_by_text("Uncertainty estimator: evidential").wait_for()
    assert card.get_by_role("combobox").count() == card.get_by_role("button").count() == 0


def test_numbers_on_the_page_are_those_of_the_command(running, browser):
    page = open_page(browser, running)
    open_project(page)
    printed = subprocess.run(
        [sys.executable, "-m", "backend.cli", "status", "--json"],
        env=running.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    whole = json.loads(printed.stdout)
    state = next(p for p in whole["projects"] if p["key"] == running.key)
    state_card = page.locator("section.state")
    shown = dict(
        zip(
            state_card.locator(".numbers dt").all_inner_texts(),
            [t.replace("\u00a0", " ") for t in state_card.locator(".numbers dd").all_inner_texts()],
            strict=True,
        )
    )
    low, high = state["accuracy_interval"]
    assert shown["Live version"] == state["live_version"] == "v9"
    assert shown["Accuracy"].split("\n") == [
        f"{100 * state['accuracy']:.1f} %",
        f"95 %: {100 * low:.1f} % to {100 * high:.1f} %, on labels drawn by chance",
    ]  # fmt: skip
    piles = state["piles"]
    assert piles["accept"] > 0
    counts = page.locator("section.accept .numbers dd").all_inner_texts()
    shown_piles = [int(text.split("\n")[0]) for text in counts]
    assert shown_piles == [piles["accept"], piles["review"], piles["label"]]
    page.get_by_text(f"From {100 * piles['accept_from']:.1f}\u00a0% on").wait_for()
    assert shown["Labels"].split("\n") == ["16", f"{state['random_labels']} drawn by chance"]
    asked = requests.get(
        f"http://127.0.0.1:{running.port}/api/status",
        headers={"Authorization": f"Bearer {read_tokens(running.home).full}"}, timeout=5,
    ).json()  # fmt: skip
    for found in (asked, whole):
        for project in found["projects"]:
            project["next_training"]["wait_s"] = None
            for run in project["running"]:
                run["seconds"] = run["seconds_left"] = None
    assert asked == whole


def test_a_shared_link_shows_everything_and_offers_nothing_to_change(running, browser):
    page = open_page(browser, running, share=True)
    open_project(page)
    assert page.get_by_role("progressbar", name="Progress of what runs").is_visible()
    names = page.get_by_role("button").all_inner_texts()
    assert names == ["Log out"]
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("not valid").wait_for()
    page.screenshot(path=shot("log-in"))


def test_without_a_stream_the_page_asks(running, browser):
    page = open_page(browser, running)
    page.route("**/api/stream", lambda route: route.abort())
    page.reload()
    page.locator("#connection[data-state=asking]").wait_for()
    open_project(page)
    running.database.update_run(running.run, stage="asked for and got")
    page.get_by_text("asked for and got").wait_for()


def test_everything_is_reached_by_keyboard_and_has_a_name(running, browser):
    page = open_page(browser, running)
    open_project(page)
    unnamed = page.evaluate(UNNAMED)
    assert unnamed == []
    levels = [
        int(t[1]) for t in page.locator("h1,h2,h3").evaluate_all("n => n.map(e => e.tagName)")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    reached = set()
    page.locator("h1").focus()
    for _ in range(120):  # four links of each doubtful image come before the doctor
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.innerText || document.activeElement.id || ''")
        )
        assert page.evaluate(FOCUS_IS_VISIBLE)
    assert {"Train now", "Pause", "Roll back…", "Examine now"} <= reached


def test_it_fits_and_can_be_read_at_every_width(running, browser):
    """In light and in dark; the pictures are for people to look at."""
    page = open_page(browser, running)
    for name, key in (("list", None), ("choices", running.key), ("boxes", running.boxes)):
        if key is not None:
            page.evaluate("key => { location.hash = `#project/${key}` }", key)
            page.locator(".doubtful-list li").first.wait_for()
            page.locator(".classes table").first.wait_for()
            page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
            until(lambda: page.evaluate(ALL_LOADED), 10, "all pictures are there")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(80)  # charts are drawn again at the new width
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(TOO_FAINT) == []
                page.screenshot(
                    path=shot(f"{name}-{width}-{scheme}"),
                    full_page=name != "list",
                )  # fmt: skip
    assert page.wrong == []


def test_a_stop_does_not_wait_for_those_who_listen(installation):
    web = installation.start_web()
    token = read_tokens(installation.home).read_only
    stream = requests.get(
        f"http://127.0.0.1:{installation.port}/api/stream",
        headers={"Authorization": f"Bearer {token}"}, stream=True, timeout=10,
    )  # fmt: skip
    lines = stream.iter_lines(chunk_size=1)
    until(lambda: next(lines).startswith(b"data: {"), 5, "the status is pushed")
    began = time.monotonic()
    os.kill(web.pid, signal.SIGTERM)
    web.wait(10)
    assert time.monotonic() - began < 4
    assert not any(line.startswith(b"event: error") for line in lines)


# Controls without a name, and what needs an alternative and has none.
UNNAMED = """() => [...document.querySelectorAll(`a, button, select, input, summary, img, svg[role],
  progress, [role=region]`)].filter(e => !(e.innerText || e.getAttribute('alt')
  || e.querySelector('img[alt]:not([alt=""])') || e.getAttribute('aria-label')
  || e.getAttribute('aria-labelledby')
  || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 120))"""

ALL_LOADED_IN = "n => [...n.querySelectorAll('img')].every(i => i.naturalWidth > 0)"

ALL_LOADED = "() => [...document.querySelectorAll('img')].every(i => i.naturalWidth > 0)"

FOCUS_IS_VISIBLE = """() => {
const e = document.activeElement;
if (e === document.body || e.tagName === 'H1') return true;
const s = getComputedStyle(e);
return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 }"""

# Texts below 4.5:1, by WCAG's formula, against the nearest opaque background.
TOO_FAINT = """() => {
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number);
  return { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 } };
const lum = rgb => { const [r, g, b] = rgb.map(v => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const back = e => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor);
  if (c.a === 1) return c.rgb } return [255, 255, 255] };
const bad = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || e.closest('noscript')) continue;
  const style = getComputedStyle(e);
  const ink = parse(e.closest('svg') ? style.fill : style.color).rgb;
  const [a, b] = [lum(ink), lum(back(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.tagName} ${e.textContent.slice(0, 40)}`);
}
return bad }"""
