"""The order in which Label Studio serves tasks, worked out in advance.

Read in Label Studio 1.23.2 (``projects/functions/next_task.py``) and run against it
(``tests/acceptance/test_queue_order.py``). With uncertainty sampling, "Label All Tasks" gives one
user the open task with the smallest

1. number of tasks that this user has already solved in the task's cluster,
2. score (lowest first),
3. id (in fact whatever order the database gives; SQLite gives the id, PostgreSQL promises none,
   so publish distinct scores where the order matters).

What to build on:

- Only predictions of ``project.model_version`` count. Tasks without one come last, at random.
- Predictions without a cluster form one cluster together. Its count rises with every task solved in
  it, so **after n untagged tasks every fresh cluster comes before the untagged rest**, whatever the
  scores; a task that has to come first needs a cluster number of its own, never used before.
- Solved means annotated or skipped by this user, in this project, at any time. A solved task counts
  for the *highest* cluster number among all its stored predictions, over all versions; deleting old
  predictions changes the counts. So numbers only ever rise, and are never used again.
- A task this user has open stays first until it is submitted or skipped (the lock lasts a day).
- With several annotations a task, tasks already begun by others come before all this. Two or more
  rows of ``ProjectMember`` make the order random; Community Label Studio makes no such rows.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class QueueItem(NamedTuple):
    """An open task as its prediction of the live version has it."""

    task_id: int
    score: float
    cluster: int | None


def served_order(
    items: Sequence[QueueItem], solved_clusters: Mapping[int | None, int], n: int
) -> list[int]:
    """The first `n` tasks that one user is served, submitting each in turn.

    Args:
        items: the open tasks, one entry a task.
        solved_clusters: how many tasks of each cluster (``None``: untagged) the user has solved.
        n: how many to work out; fewer come back when there are fewer.

    Returns:
        Task ids in the order served.

    Example:
        >>> queue = [QueueItem(1, 0.1, 7), QueueItem(2, 0.2, 7), QueueItem(3, 0.3, None)]
        >>> served_order(queue, {}, 3)
        [1, 3, 2]
        >>> served_order(queue, {None: 5}, 3)
        [1, 2, 3]
    """
    waiting: dict[int | None, list[tuple[float, int]]] = {}
    for item in items:
        waiting.setdefault(item.cluster, []).append((item.score, item.task_id))
    for queue in waiting.values():
        queue.sort(reverse=True)
    counts = Counter({cluster: solved_clusters.get(cluster, 0) for cluster in waiting})
    # One entry a cluster: its count, then its best open task.
    heads = [(counts[cluster], *queue[-1], cluster) for cluster, queue in waiting.items()]
    order: list[int] = []
    heap = [
        (count, score, task_id, index) for index, (count, score, task_id, _) in enumerate(heads)
    ]
    heapq.heapify(heap)
    clusters = [head[3] for head in heads]
    while heap and len(order) < n:
        count, _, task_id, index = heapq.heappop(heap)
        order.append(task_id)
        queue = waiting[clusters[index]]
        queue.pop()
        if queue:
            heapq.heappush(heap, (count + 1, *queue[-1], index))
    return order
