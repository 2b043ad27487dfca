"""The queue that `backend.queue_order` predicts is the one a real Label Studio serves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from backend.edges.labelstudio_api import LabelStudio
from backend.queue_order import QueueItem, served_order

pytestmark = pytest.mark.acceptance

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="choice" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)
RESULT: list[dict[str, Any]] = [
    {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["cat"]},
    }
]


class Queue:
    """One project with uncertainty sampling, and what this user has solved in it."""

    def __init__(self, platform: LabelStudio, tasks: int) -> None:
        self.platform = platform
        self.project: int = platform.create_project("Queue order", CONFIG)["id"]
        platform.import_tasks(
            self.project, [{"data": {"image": f"http://x.invalid/{i}.png"}} for i in range(tasks)]
        )
        self.tasks = [task.id for task in platform.tasks(self.project)]
        self.solved: Counter[int | None] = Counter()
        self.highest: dict[int, int | None] = dict.fromkeys(self.tasks)
        self.live: dict[int, QueueItem] = {}

    def publish(self, version: str, items: list[QueueItem]) -> None:
        """Bulk import what has no cluster, create the rest, then switch to the version."""
        rows = [
            {
                "task": item.task_id,
                "score": item.score,
                "model_version": version,
                "result": RESULT,
                "cluster": item.cluster,
            }
            for item in items
        ]
        plain = [row for row in rows if row["cluster"] is None]
        assert self.platform.import_predictions(self.project, plain) == len(plain)
        for row in rows:
            if row["cluster"] is not None:
                self.platform.create_prediction(row)
        self.platform.update_project(
            self.project, model_version=version, sampling="Uncertainty sampling"
        )
        self.live = {item.task_id: item for item in items}
        for item in items:
            numbers = [c for c in (self.highest[item.task_id], item.cluster) if c is not None]
            self.highest[item.task_id] = max(numbers, default=None)

    def predicted(self, done: set[int], n: int) -> list[int]:
        items = [item for task_id, item in self.live.items() if task_id not in done]
        return served_order(items, self.solved, n)

    def work(self, n: int, *, skip_every: int = 0) -> list[int]:
        """Submit (or now and then skip) what is served, and say what it was."""
        served = []
        for turn in range(n):
            task = self.platform.next_task(self.project)
            assert task is not None
            if skip_every and turn % skip_every == 0:
                self.platform.skip(task.id)
            else:
                self.platform.submit(task.id, RESULT)
            served.append(task.id)
            self.solved[self.highest[task.id]] += 1
        return served


@pytest.fixture
def platform(label_studio: Any) -> LabelStudio:
    return LabelStudio(label_studio.url, label_studio.token)


@pytest.fixture
def queue(platform: LabelStudio) -> Iterator[Queue]:
    made = Queue(platform, 18)
    yield made
    platform.delete_project(made.project)


def test_equal_scores_are_served_by_id(queue: Queue) -> None:
    shuffled = random.Random(1).sample(queue.tasks, len(queue.tasks))
    queue.publish("v1", [QueueItem(task_id, 0.5, None) for task_id in shuffled])
    assert queue.work(6) == sorted(queue.tasks)[:6]


def test_clusters_skips_and_a_second_version(queue: Queue) -> None:
    """Counts over both versions and over skips, ties inside clusters, then fresh clusters."""
    rng = random.Random(7)
    clusters = [101, 101, 101, 102, 102, 103, *[None] * 12]
    queue.publish(
        "v1",
        [
            QueueItem(task_id, round(rng.random(), 1), cluster)
            for task_id, cluster in zip(queue.tasks, clusters, strict=True)
        ],
    )
    expected = queue.predicted(set(), 8)
    first = queue.work(8, skip_every=3)
    assert first == expected

    open_tasks = [task_id for task_id in queue.tasks if task_id not in first]
    fresh = iter([201, 201, 202])
    queue.publish(
        "v2",
        [
            QueueItem(task_id, round(rng.random(), 1), next(fresh, None))
            for task_id in rng.sample(open_tasks, len(open_tasks))
        ],
    )
    expected = queue.predicted(set(first), len(open_tasks))
    assert queue.work(len(open_tasks)) == expected
    assert {queue.live[task_id].cluster for task_id in expected[:2]} == {201, 202}
    assert queue.platform.next_task(queue.project) is None


def test_tasks_without_a_prediction_of_the_live_version_come_last(queue: Queue) -> None:
    queue.publish("v1", [QueueItem(task_id, 0.1, None) for task_id in queue.tasks[:4]])
    queue.publish("v2", [QueueItem(task_id, 0.9, None) for task_id in queue.tasks[4:8]])
    assert queue.work(4) == queue.tasks[4:8]
