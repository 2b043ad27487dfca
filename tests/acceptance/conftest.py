"""A real Label Studio, a real stack and a real browser, all on 127.0.0.1 and all stopped after."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser import chromium, find_chromium
from support.real import Project, Server, Stack

ROOT = Path(__file__).parent.parent.parent
ARTIFACTS = ROOT / "artifacts" / "acceptance"


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Screenshots and measurements, kept after the run."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("label-studio"))
    yield made
    made.stop()


@pytest.fixture
def start_stack(tmp_path):
    made = []

    def start(**settings) -> Stack:
        made.append(Stack(tmp_path / f"home{len(made)}", **settings))
        return made[-1]

    yield start
    for stack in made:
        stack.stop()


@pytest.fixture
def make_project(label_studio):
    return lambda **options: Project(label_studio, **options)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, driven by Playwright."""
    found = find_chromium()
    if found is None:
        pytest.fail("no Chromium on this machine; run: apt-get install -y chromium")
    with chromium(found) as started:
        yield started


@pytest.fixture
def page(browser, label_studio):
    """A page logged in to Label Studio."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    made = context.new_page()
    made.set_default_timeout(120_000)  # Label Studio may be starved by what else runs
    made.goto(f"{label_studio.url}/user/login/")
    made.fill("input[name=email]", label_studio.user)
    made.fill("input[name=password]", label_studio.password)
    made.click("button[type=submit]")
    made.wait_for_url(lambda url: "login" not in url)
    yield made
    context.close()
