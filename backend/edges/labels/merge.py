"""One label from several annotators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet


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


def weighted(votes: Iterable[tuple[str, float]]) -> str | None:
    """The label with most weight, the newest among equals; None without any.

    Args:
        votes: labels of one task, oldest first, with how much each counts.

    Example:
        >>> weighted([("cat", 0.9), ("dog", 0.4), ("dog", 0.4)])
        'cat'
    """
    sums: dict[str, tuple[float, int]] = {}
    for order, (label, weight) in enumerate(votes):
        # Rounded, so that equal sums are equal in whichever order they were made.
        sums[label] = (round(sums.get(label, (0.0, 0))[0] + weight, 9), order)
    return max(sums, key=lambda label: sums[label], default=None)


def majority_of_each(sets: Sequence[AbstractSet[str]]) -> set[str]:
    """Every label that most annotators gave; where half of them did, the newest decides.

    Args:
        sets: the labels each gave to one task, oldest first; at least one.

    Example:
        >>> sorted(majority_of_each([{"a"}, {"a", "b"}, {"b", "c"}]))
        ['a', 'b']
        >>> sorted(majority_of_each([{"a"}, {"b"}]))
        ['b']
    """
    labels = set[str]().union(*sets)
    votes = {label: 2 * sum(label in given for given in sets) - len(sets) for label in labels}
    return {label for label, lead in votes.items() if lead > 0 or (lead == 0 and label in sets[-1])}
