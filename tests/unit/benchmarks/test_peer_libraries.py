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


@pytest.mark.slow
def test_confident_learning_is_that_of_cleanlab(peer: Any) -> None:
    """The same self-confidence and, one label an image, the same issues on made-up labels."""
    choices = importlib.import_module("model.label_errors.choices")
    rng = np.random.default_rng(0)
    for classes in (2, 7):
        truth = rng.integers(classes, size=400)
        logits = rng.normal(size=(400, classes)) + 2.5 * np.eye(classes)[truth]
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = np.where(rng.random(400) < 0.1, rng.integers(classes, size=400), truth)
        theirs, _ = peer.call("cleanlab: choices", {"probs": probs, "labels": labels}, limit_s=120)
        ours = choices.find_choice_errors(probs, labels)
        np.testing.assert_array_equal(
            ours.ranking, np.argsort(theirs["self_confidence"], kind="stable")
        )
        np.testing.assert_array_equal(ours.is_issue, theirs["confident_learning"])
        assert 10 < ours.is_issue.sum() < 100


@pytest.mark.slow
def test_cleanlab_is_given_boxes_as_it_takes_them(peer: Any) -> None:
    """Two images: what is drawn agrees with what was found on the first, not on the second."""
    box = np.array([[10.0, 10.0, 60.0, 80.0]])
    given = {
        "boxes": np.concatenate([box, box + 20.0, box]),
        "box_labels": np.array([0, 1, 1]),
        "scores": np.full(3, 0.99),
        "counts": np.array([2, 1]),
        "drawn": np.concatenate([box, box + 20.0, box]),
        "drawn_labels": np.array([0, 1, 0]),
        "drawn_counts": np.array([2, 1]),
        "n_classes": np.array(2),
        "sure": np.array(0.95),
        "likely": np.array(0.5),
    }
    found, _ = peer.call("cleanlab: boxes", given, limit_s=120)
    assert found["image"][0] > found["image"][1] + 0.2
    assert found["swapped"][1] < 0.3 < 0.5 < found["swapped"][0]
    assert found["box swapped"].shape == (3,)


@pytest.mark.slow
def test_plain_probabilities_are_out_of_fold(peer: Any, rows_and_labels: tuple[Any, Any]) -> None:
    rows, labels = rows_and_labels
    given = {"rows": rows, "labels": labels, "n_classes": np.array(6), "seed": np.array(0)}
    found, _ = peer.call("out of fold", given, limit_s=120)
    np.testing.assert_allclose(found["probs"].sum(axis=1), 1, rtol=1e-5)
    assert (found["probs"][:, 5] == 0).all()
    assert (found["probs"].argmax(axis=1) == labels).mean() > 0.6
    noise, _ = peer.call("out of fold", {**given, "rows": rows[::-1].copy()}, limit_s=120)
    assert (noise["probs"].argmax(axis=1) == labels).mean() < 0.4  # nothing is learnt by heart


@pytest.mark.slow
def test_cleanlab_makes_of_peoples_labels_what_the_paper_does(peer: Any) -> None:
    """Not to the last digit: its weights come from the consensus, once more."""
    people = importlib.import_module("_people")
    crowdlab = importlib.import_module("model.annotators.crowdlab").crowdlab
    rng = np.random.default_rng(0)
    truth = rng.integers(CLASSES, size=COUNT)
    probs = 0.4 * rng.dirichlet(np.ones(CLASSES), COUNT)
    probs[np.arange(COUNT), truth] += 0.6
    given = people.ask(truth, CLASSES, shared=0.5, misleading=None, seed=0)
    arrays = {"probs": probs, "labels": given.table(COUNT)}
    theirs, _ = peer.call("cleanlab: annotators", arrays, limit_s=120.0)
    ours = crowdlab(probs, given.task, given.person, given.label)
    assert (theirs["consensus"] == ours.consensus).mean() > 0.99
    np.testing.assert_allclose(theirs["p_right"], ours.p_right, atol=0.05)
    quality = [one.quality for one in ours.annotators]
    np.testing.assert_allclose(theirs["quality"], quality, atol=0.03)


def test_cleanlab_asks_for_another_label_of_the_same_images(peer: Any) -> None:
    """ActiveLab's order of labelled images is that of P(right), fewer labels first."""
    people = importlib.import_module("_people")
    weigh = importlib.import_module("model.annotators.likelihood").weigh
    rng = np.random.default_rng(0)
    truth = rng.integers(CLASSES, size=COUNT)
    probs = 0.4 * rng.dirichlet(np.ones(CLASSES), COUNT)
    probs[np.arange(COUNT), truth] += 0.6
    given = people.ask(truth, CLASSES, shared=0.5, misleading=None, seed=0)
    arrays = {"probs": probs, "labels": given.table(COUNT)}
    theirs, _ = peer.call("cleanlab: again", arrays, limit_s=120.0)
    ours = weigh(probs, given.task, given.person, given.label)
    most = COUNT // 5
    first = set(np.argsort(theirs["score"])[:most].tolist())
    assert len(first & set(np.argsort(ours.p_right)[:most].tolist())) > 0.6 * most
