"""How long the dashboard takes to show, with many tasks: first paint, the list, a project's page.

    ./run bench dashboard [--tasks 100000] [--loads 9] [--out FILE]

A real web process on a database of so many tasks, a third of them labelled, with versions and an
audit; a real Chromium, headless, a fresh profile for each load. The times are those of the browser
(first contentful paint) and of what a person waits for (the list of projects, the project's most
doubtful images). Two warm-up loads are not counted: the web process reads its code then.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from common import header, write  # noqa: E402
from support.browser import chromium, find_chromium  # noqa: E402
from support.installation import Installation, Valkey  # noqa: E402
from support.looked_at import fill, fill_audit  # noqa: E402

from backend.dashboard.access import read_tokens  # noqa: E402
from backend.edges.labels.config import parse_config  # noqa: E402

WARM_UP = 2
CLASSES = ["red", "green", "blue"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--loads", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = find_chromium()
    if found is None:
        raise SystemExit("no Chromium on this machine; run: apt-get install -y chromium")
    with tempfile.TemporaryDirectory(prefix="doubtless-dashboard-") as folder:
        valkey = Valkey(Path(folder))
        installation = Installation(Path(folder), valkey)
        try:
            fill_with(installation, options.tasks)
            installation.start_web()
            with chromium(found) as browser:
                loads = [load(browser, installation) for _ in range(WARM_UP + options.loads)]
        finally:
            installation.stop()
            valkey.stop()
    counted = loads[WARM_UP:]
    write(
        header(
            benchmark="dashboard",
            tasks=options.tasks,
            labels=options.tasks // 3,
            loads=len(counted),
            console_errors=sum(one["errors"] for one in counted),
            **{name: spread([one[name] for one in counted]) for name in TIMES},
        ),
        options.out,
    )


TIMES = ("first_contentful_paint_s", "list_s", "project_page_s")


def fill_with(installation: Installation, count: int) -> None:
    """Tasks, labels, versions, scores and an audit."""
    database, key = installation.database, installation.key
    tasks = list(range(1, count + 1))
    say(f"filling a database with {count} tasks")
    database.put_tasks(key, {i: f"/data/{i}.png" for i in tasks})
    database.mark_images(key, {i: f"h{i}" for i in tasks}, {})
    spec = parse_config(database.project(key).label_config).require_spec()
    counts = dict.fromkeys(CLASSES, count // 9)
    fill(database, key, tasks, CLASSES, spec, class_counts=counts, confusions=[])
    fill_audit(database, key, size=count // 5)


def load(browser: Any, installation: Installation) -> dict[str, Any]:
    """Open the dashboard and its first project as somebody who has never been there."""
    token = read_tokens(installation.home).full
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda m: m.type == "error" and errors.append(m.text))
    page.on("pageerror", lambda exc: errors.append(str(exc)))
    start = time.perf_counter()
    page.goto(f"http://127.0.0.1:{installation.port}/dashboard#token={token}")
    link = page.locator("main a[href^='#project']").first
    link.wait_for()
    listed = time.perf_counter() - start
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    start = time.perf_counter()
    link.click()
    page.locator(".doubtful-list li").first.wait_for()
    shown = time.perf_counter() - start
    context.close()
    # The pictures of these tasks are nowhere.
    wrong = [text for text in errors if "Failed to load resource" not in text]
    say(f"first paint {paint:.0f} ms, list {listed:.2f} s, project {shown:.2f} s {wrong or ''}")
    return dict(zip(TIMES, (paint / 1000.0, listed, shown), strict=True)) | {"errors": len(wrong)}


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and extremes."""
    ordered = sorted(seconds)
    return {
        "median": round(statistics.median(ordered), 4),
        "least": round(ordered[0], 4),
        "most": round(ordered[-1], 4),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
