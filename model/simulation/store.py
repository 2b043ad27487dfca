"""Finished runs on disk, so that a replay that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.simulation.replay import Run

PLAN_FILE = "plan.json"
RUNS_FOLDER = "runs"
_EXPLAIN = {"data": "the images or labels", "program": "Doubtless itself"}


class RunStore:
    """One folder of results.

    Args:
        folder: made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, plan: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Start a replay, or go on with one that was started in the same way.

        Args:
            plan: JSON-able; all that two runs must share to be compared.
            fresh: throw finished runs away instead of refusing a changed plan.

        Raises:
            ModelError: the folder holds runs of another plan, or cannot be written.
        """
        path = self.folder / PLAN_FILE
        with writing(self.folder):
            (self.folder / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
            before = None if fresh else _read(path)
            if before is not None and before != dict(plan):
                raise ModelError(
                    f"{self.folder} holds runs of another replay: {_differences(before, plan)}; "
                    "use another --out, or --fresh to start over"
                )
            if before is None:
                for run in (self.folder / RUNS_FOLDER).glob("*.json"):
                    run.unlink()
                write_atomically(path, json.dumps(plan, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, so that two replays do not write into it.

        A folder that was made for this, and that nothing was written to, is taken away again.

        Raises:
            ModelError: another process does.
        """
        made = not self.folder.exists()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a")
        with file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # no fcntl on Windows: two at once cost double work, nothing else
                pass
            except BlockingIOError as exc:
                raise ModelError(
                    f"another simulate is writing to {self.folder}; wait for it, or use another "
                    "--out"
                ) from exc
            try:
                yield
            finally:
                if made and [path.name for path in self.folder.iterdir()] == [".lock"]:
                    (self.folder / ".lock").unlink()
                    self.folder.rmdir()

    def path(self, acquisition: str, seed: int) -> Path:
        """Where a run is kept."""
        return self.folder / RUNS_FOLDER / f"{acquisition}-{seed}.json"

    def load(self, acquisition: str, seed: int) -> Run | None:
        """A finished run; None when there is none, or none that is whole."""
        body = _read(self.path(acquisition, seed))
        try:
            return None if body is None else Run.from_json(body)
        except (KeyError, TypeError):
            return None

    def save(self, run: Run) -> None:
        """Keep a finished run: complete, or not there at all."""
        write_atomically(
            self.path(run.acquisition, run.seed), json.dumps(run.to_json(), allow_nan=False)
        )

    def load_full(self) -> dict[str, float] | None:
        """What all labels give, when it was measured."""
        return _read(self.folder / RUNS_FOLDER / "all-labels.json")

    def save_full(self, found: Mapping[str, float]) -> None:
        """Keep what all labels give."""
        write_atomically(self.folder / RUNS_FOLDER / "all-labels.json", json.dumps(dict(found)))


@contextmanager
def writing(folder: Path, advice: str = "") -> Iterator[None]:
    """Turn what goes wrong with files inside into one sentence about `folder`.

    Args:
        folder: what is written to.
        advice: what to do about it, after a semicolon.

    Raises:
        ModelError: in place of an OSError.
    """
    try:
        yield
    except OSError as exc:
        # numpy gives no error number when the disk is full, and counts what is missing instead
        why = exc.strerror or f"{exc} (is the disk full?)"
        what = f"{folder} cannot be written: {why}"
        raise ModelError(f"{what}; {advice}" if advice else what) from exc


def write_atomically(path: Path, text: str) -> None:
    """Write a text file: complete, or as it was before."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    parts = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name in _EXPLAIN:
            parts.append(f"{_EXPLAIN[name]} changed")
        else:
            parts.append(f"{name.replace('_', ' ')} was {old}, is {new}")
    return ", ".join(parts)
