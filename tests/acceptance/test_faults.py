"""What breaks in production, broken on purpose: after each, no label is missing."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from support.installation import kill_tree
from support.real import until

pytestmark = pytest.mark.acceptance


def training(stack, key):
    return [r for r in stack.database.runs(key) if r.kind == "train" and r.status == "running"]


def test_the_loop_survives_restarts_kills_and_an_emptied_valkey(
    start_stack, make_project, label_studio
):
    stack = start_stack(retrain_after=10, quiet_s=5, reconcile_s=5)
    project = make_project(title="Faults")
    project.upload(150)
    key = project.connect(stack)
    version = project.wait_for_version(prefix="cold")
    labels = 0

    def next_version(n: int) -> None:
        nonlocal version, labels
        labels += n
        version = until(
            lambda: (v := project.live()) != version and v,
            240,
            f"a version with {labels} labels",
        )
        until(
            lambda: any(
                v.labels == labels and v.status in ("live", "superseded")
                for v in stack.database.versions(key)
            ),
            240,
            f"a version trained on all {labels} labels; there are "
            f"{[(v.name, v.labels, v.status) for v in stack.database.versions(key)]}",
        )
        version = project.live()

    # A worker killed -9 in the middle of a training.
    project.label(10)
    until(lambda: training(stack, key), 60, "a training runs", every=0.05)
    kill_tree(stack.state()["processes"]["worker-1"])
    next_version(10)

    # Valkey emptied between submit and training.
    project.label(10)
    redis.Redis.from_url(stack.state()["redis_url"]).flushall()
    next_version(10)

    # The web process killed, and labels submitted while nobody hears of them.
    os.kill(stack.state()["processes"]["web"], signal.SIGKILL)
    project.label(10)
    next_version(10)

    # Label Studio restarted with labels waiting for their training.
    project.label(10)
    label_studio.stop()
    label_studio.start()
    next_version(10)

    counts = project.api.model_versions(project.id)
    assert counts[project.live()] == 150, "no double and no half publication"
    assert len(stack.database.labels(key)) == labels == 40
