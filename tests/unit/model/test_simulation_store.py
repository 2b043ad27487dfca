from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.tiny_sets import blobs

from model.errors import ModelError
from model.simulation import provenance
from model.simulation.parallel import Job, play_all
from model.simulation.replay import Plan, replay, with_all_labels
from model.simulation.store import RunStore, write_atomically

PLAN = Plan(initial=0, batch=8, rounds=2)
FACTS = {"batch": 8, "data": "d", "program": "p"}


def test_runs_are_kept_and_found_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "out")
    store.begin(FACTS)
    run = replay(blobs(), PLAN, "margin", 1)
    assert store.load("margin", 1) is None
    store.save(run)
    assert store.load("margin", 1) == run
    assert store.load("margin", 0) is None
    store.begin(FACTS)
    assert store.load("margin", 1) == run


def test_a_changed_plan_is_refused_by_name_and_fresh_starts_over(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.begin(FACTS)
    store.save(replay(blobs(), PLAN, "margin", 1))
    with pytest.raises(ModelError, match="batch was 8, is 9") as caught:
        store.begin({**FACTS, "batch": 9, "data": "e"})
    assert "the images or labels changed" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert store.load("margin", 1) is not None
    store.begin({**FACTS, "batch": 9}, fresh=True)
    assert store.load("margin", 1) is None
    store.begin({**FACTS, "batch": 9})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"acquisition": "margin"}', '{"seed": 1}'])
def test_a_torn_run_counts_as_none(tmp_path: Path, text: str) -> None:
    store = RunStore(tmp_path)
    store.begin(FACTS)
    store.path("margin", 1).write_text(text)
    assert store.load("margin", 1) is None


def test_writing_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def full(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        RunStore(tmp_path).alone(),
        pytest.raises(ModelError, match="another simulate"),
        RunStore(tmp_path).alone(),
    ):
        pass
    with RunStore(tmp_path).alone():
        pass


def test_a_folder_that_nothing_was_written_to_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "was").mkdir()
    for name in ("new", "kept", "was"):
        with suppress(ZeroDivisionError), RunStore(tmp_path / name).alone():
            if name == "kept":
                (tmp_path / name / "plan.json").write_text("{}")
            raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "was"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for call in (
        lambda store: store.begin(FACTS),
        lambda store: store.alone().__enter__(),
    ):
        with pytest.raises(ModelError, match="cannot be written"):
            call(RunStore(tmp_path / "file" / "out"))


def test_processes_play_what_this_one_would(tmp_path: Path) -> None:
    data = blobs()
    data.save(tmp_path / "set")
    store = RunStore(tmp_path / "out")
    store.begin(FACTS)
    points: list[None] = []
    done: list[Job] = []
    jobs = [Job("random", 0), Job("margin", 1), Job(None, 0)]
    play_all(
        jobs, PLAN, data=tmp_path / "set", out=tmp_path / "out", processes=2,
        on_point=lambda: points.append(None), on_done=done.append,
    )  # fmt: skip
    assert sorted(done, key=str) == sorted(jobs, key=str)
    assert len(points) == 2 + 2 + 1
    for job in jobs[:2]:
        run, mine = (
            store.load(str(job.acquisition), job.seed),
            replay(data, PLAN, str(job.acquisition), job.seed),
        )
        assert run is not None
        assert run.asked == mine.asked
        assert run.p_right == pytest.approx(mine.p_right, abs=1e-5)
    assert store.load_full() == pytest.approx(with_all_labels(data, PLAN.uncertainty))


def test_a_run_that_fails_keeps_the_others(tmp_path: Path) -> None:
    blobs().save(tmp_path / "set")
    store = RunStore(tmp_path / "out")
    store.begin(FACTS)
    with pytest.raises(ModelError, match=r"the run of margn, seed 0, failed.*margin"):
        play_all(
            [Job("margin", 0), Job("margn", 0)], PLAN, data=tmp_path / "set",
            out=tmp_path / "out", processes=1,
        )  # fmt: skip
    assert store.load("margin", 0) is not None


def test_a_process_that_dies_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its process ended with code 1 .*nowhere"):
        play_all([Job("margin", 0)], PLAN, data=tmp_path / "nowhere", out=tmp_path, processes=1)


def test_a_process_that_is_killed_says_so_and_what_helps(tmp_path: Path) -> None:
    """As the system does it when memory runs out."""
    blobs(600).save(tmp_path / "set")
    store = RunStore(tmp_path / "out")
    store.begin(FACTS)

    children: list[subprocess.Popen[str]] = []

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(children[0].pid, signal.SIGKILL)

    real = subprocess.Popen

    def watched(*given: Any, **named: Any) -> subprocess.Popen[str]:
        children.append(real(*given, **named))
        return children[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.simulation.parallel.subprocess.Popen", watched)
        with pytest.raises(ModelError, match=r"was killed, .* fewer --jobs"):
            play_all(
                [Job("margin", seed) for seed in range(50)], PLAN, data=tmp_path / "set",
                out=tmp_path / "out", processes=1, on_point=kill,
            )  # fmt: skip


def test_the_program_is_the_same_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model" / "simulation"
    folder.mkdir(parents=True)
    for name in ("replay.py", "report.py"):
        (folder / name).write_text("1")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    digest = provenance.program_digest.__wrapped__
    before = digest()
    (folder / "report.py").write_text("2")
    assert digest() == before
    (folder / "replay.py").write_text("2")
    assert digest() != before


def test_a_commit_is_named_in_our_own_tree_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == ""


def test_the_machine_is_json() -> None:
    found = provenance.machine()
    assert found["cores"] == os.cpu_count()
    assert found["packages"]["numpy"]
