"""One label from several annotators."""

from __future__ import annotations

from collections.abc import Iterable


def majority(labels: Iterable[str]) -> str | None:
    """The label most annotators gave, the newest among equals; None without labels.

    Args:
        labels: of one task, oldest first.

    Example:
        >>> majority(["cat", "dog", "dog", "cat", "owl"])
        'cat'
    """
    votes: dict[str, tuple[int, int]] = {}
    for order, label in enumerate(labels):
        votes[label] = (votes.get(label, (0, 0))[0] + 1, order)
    return max(votes, key=lambda label: votes[label], default=None)
