"""Runs side by side, each in a process with one thread."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.simulation.replay import Plan

_ROOT = Path(__file__).resolve().parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_END_S = 5.0


@dataclass(frozen=True)
class Job:
    """One run that is wanted; `acquisition` None stands for all labels at once."""

    acquisition: str | None
    seed: int


def play_all(
    jobs: Sequence[Job],
    plan: Plan,
    *,
    data: Path,
    out: Path,
    processes: int,
    on_point: Callable[[], None] = lambda: None,
    on_done: Callable[[Job], None] = lambda job: None,
) -> None:
    """Play runs in parallel; each is kept in `out` as it ends, whatever happens to the others.

    Args:
        jobs: what is wanted, in this order.
        plan: what they share.
        data: folder that a set's `save` wrote.
        out: folder of the `RunStore`.
        processes: at most so many, one thread each.
        on_point: called after each round of any run.
        on_done: called after each run.

    Raises:
        ModelError: a run failed, or its process died; what was finished before is kept.
    """
    waiting = deque(jobs)
    said: queue.Queue[tuple[_Process, dict[str, Any]]] = queue.Queue()
    running: dict[_Process, Job] = {}
    workers: list[_Process] = []
    try:
        for _ in range(min(max(1, processes), len(jobs))):
            workers.append(_Process(data, out, said))
            running[workers[-1]] = job = waiting.popleft()
            workers[-1].give(job, plan)
        while running:
            worker, message = said.get()
            if "point" in message:
                on_point()
                continue
            if worker not in running:
                continue  # it ended with nothing to do
            job = running.pop(worker)
            if "error" in message:
                what = "all labels" if job.acquisition is None else f"{job.acquisition}"
                raise ModelError(f"the run of {what}, seed {job.seed}, failed: {message['error']}")
            on_done(job)
            if waiting:
                running[worker] = waiting.popleft()
                worker.give(running[worker], plan)
    finally:
        for worker in workers:
            worker.end()


def _death(code: int, last: str) -> str:
    """Why a process ended on its own."""
    if code == -signal.SIGKILL:
        return (
            "its process was killed, as systems do when memory runs out; fewer --jobs need less, "
            "and the same command goes on"
        )
    return f"its process ended with code {code} ({last})"


class _Process:
    """One worker and the thread that listens to it."""

    def __init__(
        self, data: Path, out: Path, said: queue.Queue[tuple[_Process, dict[str, Any]]]
    ) -> None:
        search = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "model.simulation.worker", str(data), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": search},
        )
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        assert pipes.stderr is not None
        self._stdin, self._stdout, self._stderr = pipes.stdin, pipes.stdout, pipes.stderr
        self._said = said
        self._errors: deque[str] = deque(maxlen=20)
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._listen_to_errors, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def give(self, job: Job, plan: Plan) -> None:
        body = {"plan": asdict(plan)} | ({} if job.acquisition is None else asdict(job))
        with suppress(BrokenPipeError):  # it has died, and `_listen` says so
            self._stdin.write(json.dumps(body) + "\n")
            self._stdin.flush()

    def end(self) -> None:
        """Stop it now; a run that is not finished is lost, and played again next time."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_END_S)
        for stream in (self._stdin, self._stdout, self._stderr):
            with suppress(BrokenPipeError):
                stream.close()

    def _listen(self) -> None:
        for line in self._stdout:
            self._said.put((self, json.loads(line)))
        code = self._process.wait()
        self._threads[0].join(_END_S)
        last = self._errors[-1].strip() if self._errors else "no message"
        self._said.put((self, {"error": _death(code, last)}))

    def _listen_to_errors(self) -> None:
        self._errors.extend(self._stderr)
