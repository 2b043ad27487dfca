"""Real web and worker processes, real Valkey; what happens when they are killed."""

from __future__ import annotations

import sys

import redis
from support.installation import until


def first_version(installation):
    installation.start_web()
    installation.start("backend.worker")
    until(lambda: installation.live().startswith("cold"), 90, "the cold start is published")


def submit(installation, n: int) -> None:
    for _ in range(n):
        task = installation.platform.next_task()
        assert installation.post_submit(task).json() == {"status": "recorded"}


def test_from_submits_alone_two_versions_come(installation):
    first_version(installation)
    for _ in range(2):
        before = installation.live()
        submit(installation, 10)
        until(lambda old=before: installation.live() not in (old, ""), 60, "a new version")
    assert len(installation.platform.live()) == 48
    labels = installation.database.labels(installation.key)
    assert len(labels) == 20


def test_a_worker_killed_in_the_middle_loses_no_label(installation):
    first_version(installation)
    worker = installation.processes[-1]
    installation.double.import_delay_s = 30.0
    submit(installation, 10)
    until(
        lambda: any(
            r.kind == "train" and r.status == "running" and r.stage.startswith("publishing")
            for r in installation.database.runs()
        ),
        30,
        "publishing",
    )
    installation.kill_group(worker)
    installation.double.import_delay_s = 0.0
    installation.start("backend.worker")
    until(lambda: installation.live().startswith("v"), 90, "a version after the kill")
    wanted = ["superseded", "abandoned", "live"]
    until(
        lambda: [v.status for v in installation.database.versions(installation.key)] == wanted,
        20,
        "the half-published version is abandoned",
    )
    assert installation.database.versions(installation.key)[-1].labels == 10
    assert len(installation.platform.live()) == 48


def test_an_emptied_valkey_loses_nothing(installation):
    installation.start_web()
    submit_before_worker = list(installation.platform.data)[:10]
    for task in submit_before_worker:
        installation.post_submit(task)
    until(lambda: installation.database.runs(), 10, "runs are planned")
    redis.Redis.from_url(installation.valkey.url).flushall()
    installation.start("backend.worker")
    until(lambda: installation.live().startswith("v"), 90, "a version")
    assert installation.database.versions(installation.key)[-1].labels == 10


def test_valkey_gone_for_a_while_stops_no_webhook(installation):
    first_version(installation)
    installation.valkey.stop()
    submit(installation, 10)
    installation.valkey.start()
    installation.start("backend.worker")
    until(lambda: installation.live().startswith("v"), 90, "a version")


def test_web_killed_and_its_events_lost(installation):
    first_version(installation)
    web = installation.processes[0]
    installation.kill_group(web)
    for _ in range(10):  # submitted while nobody listens
        task = installation.platform.next_task()
        installation.platform.annotate(task, installation.result(task))
    installation.environment["DOUBTLESS_RECONCILE_S"] = "1"
    installation.start_web()
    until(lambda: installation.live().startswith("v"), 90, "a version")
    assert installation.database.versions(installation.key)[-1].labels == 10


def test_a_worker_has_no_torch_to_hang_on_after_a_fork():
    """Threads of a torch operation do not survive a fork; the parent never imports torch."""
    import subprocess

    code = "import sys, backend.worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
