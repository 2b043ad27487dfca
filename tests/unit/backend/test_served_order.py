"""The queue, against a plain restatement of Label Studio's rule."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.queue_order import QueueItem, served_order

ITEMS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.one_of(st.none(), st.integers(100, 103))),
    max_size=25,
).map(lambda rows: [QueueItem(i, score, cluster) for i, (score, cluster) in enumerate(rows)])
SOLVED = st.dictionaries(st.one_of(st.none(), st.integers(100, 104)), st.integers(0, 6))


def plain_rule(items: list[QueueItem], solved: dict[int | None, int], n: int) -> list[int]:
    """Sort the open tasks anew before each one, as the platform does."""
    counts, open_items, served = Counter(solved), list(items), []
    while open_items and len(served) < n:
        best = min(open_items, key=lambda i: (counts[i.cluster], i.score, i.task_id))
        open_items.remove(best)
        counts[best.cluster] += 1
        served.append(best.task_id)
    return served


@given(ITEMS, SOLVED, st.integers(0, 30))
def test_order_is_that_of_sorting_anew_each_time(
    items: list[QueueItem], solved: dict[int | None, int], n: int
) -> None:
    assert served_order(items, solved, n) == plain_rule(items, solved, n)


def test_recorded_queue_of_label_studio_is_reproduced() -> None:
    """Twelve tasks of ascending score, the first six in clusters, as 1.23.2 served them."""
    clusters = [101, 101, 101, 102, 102, 103, *[None] * 6]
    items = [QueueItem(i, i / 20, cluster) for i, cluster in enumerate(clusters)]
    assert served_order(items, {}, 12) == [0, 3, 5, 6, 1, 4, 7, 2, 8, 9, 10, 11]


def test_fresh_clusters_come_first_once_untagged_tasks_were_solved() -> None:
    items = [QueueItem(1, 0.0, None), QueueItem(2, 0.9, 500), QueueItem(3, 0.8, 501)]
    assert served_order(items, {None: 1}, 3) == [3, 2, 1]


@pytest.mark.parametrize("n", [0, 5])
def test_empty_queue_serves_nothing(n: int) -> None:
    assert served_order([], {None: 3}, n) == []
