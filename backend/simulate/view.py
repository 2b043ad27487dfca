"""What `doubtless simulate` shows while it runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from model.simulation.replay import Run


class Watching:
    """A `backend.simulate.run.Watcher` on a console.

    Args:
        console: where to show it; standard error, so that the result may be piped.
        quiet: show nothing that is not on a terminal.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._lines = not quiet or console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        if self._lines:
            self._console.print(text, highlight=False, markup=False)

    def step(self, what: str, done: int, total: int) -> None:
        """Move the bar of `what`."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def finished(self, run: Run) -> None:
        """Print what a run found."""
        last = run.checkpoints[-1]
        seconds = sum(p.fit_s + p.acquire_s + p.score_pool_s for p in run.checkpoints)
        self.note(f"seed {run.seed} {run.acquisition:16} {last.said} ({seconds:.0f} s)")
