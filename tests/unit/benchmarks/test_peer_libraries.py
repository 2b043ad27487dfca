"""Every strategy and estimator of the other libraries answers, where their environment exists."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

COUNT, WIDTH, CLASSES, LABELLED, ASKED = 300, 64, 6, 20, 10


@pytest.fixture(scope="module")
def rows_and_labels() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES - 1, size=COUNT)  # the last class has no label
    labels[: CLASSES - 1] = np.arange(CLASSES - 1)
    rows = rng.normal(size=(CLASSES, WIDTH))[labels] + 2.0 * rng.normal(size=(COUNT, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


@pytest.fixture
def peer(benchmarks: Any, rows_and_labels: tuple[Any, Any]) -> Iterator[Any]:
    environment = importlib.import_module("peering.environment")
    common = importlib.import_module("common")
    folder = common.CACHE / "peers-environment"
    if not environment.is_installed(folder):
        pytest.skip("the other libraries are not installed: ./run bench peers installs them")
    process = importlib.import_module("peering.process")
    command = [environment.peer_python(folder), "-m", "peering.worker"]
    search = {"PYTHONPATH": f"{benchmarks.parent}:{benchmarks}", "OMP_NUM_THREADS": "1"}
    with process.PeerProcess(command, {"rows": rows_and_labels[0]}, search) as started:
        yield started


@pytest.mark.slow
def test_every_strategy_gives_a_batch_of_unlabelled_items_and_the_same_again(
    peer: Any, rows_and_labels: tuple[Any, Any]
) -> None:
    peers, plain = importlib.import_module("peers"), importlib.import_module("_plain")
    replay = importlib.import_module("_replay")
    rows, labels = rows_and_labels
    task = replay.Task(rows, labels, rows[:1], labels[:1], tuple("abcdef"))
    head = plain.fit_plain(rows[:LABELLED], labels[:LABELLED], CLASSES)
    ask = replay.Ask(
        np.arange(LABELLED), np.arange(0), np.arange(LABELLED, COUNT), ASKED, seed=3, model=head
    )
    margins = np.sort(head.probs(rows[LABELLED:]), axis=1)
    expected = LABELLED + np.argsort(margins[:, -1] - margins[:, -2])[:ASKED]
    for name in peers.STRATEGIES:
        chosen, _ = peers.ask_peer(peer, name, task, ask, 120.0)
        again, _ = peers.ask_peer(peer, name, task, ask, 120.0)
        assert len(chosen) == ASKED, name
        assert chosen.tolist() == again.tolist(), name
        if name in ("scikit-activeml: margin", "modAL: margin"):
            assert set(chosen) == set(expected), name


@pytest.mark.slow
def test_every_estimator_gives_probabilities(peer: Any, rows_and_labels: tuple[Any, Any]) -> None:
    uncertainty = importlib.import_module("uncertainty")
    replay = importlib.import_module("_replay")
    rows, labels = rows_and_labels
    task = replay.Task(rows, labels, rows[:50], labels[:50], tuple("abcdef"))
    data = uncertainty.Labelled(rows[:60], labels[:60], np.ones(60, bool))
    places = {"pool": (rows[60:200], labels[60:200]), "test": (rows[200:], labels[200:])}
    measured: dict[str, Any] = {"pool": {}, "test": {}}
    failed = uncertainty._peers(task, data, places, 0, peer, 120.0, measured)
    assert failed == {}
    for place in places:
        assert measured[place].keys() == uncertainty.HANDLERS.keys()
        for name, found in measured[place].items():
            assert found["accuracy"] > 0.4, name
