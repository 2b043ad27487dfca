"""What the demonstration shows in the terminal: a live view, or plain lines where there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backend.demo_curve import Point, RandomCurve, labels_saved_ratio, sparkline

NO_VERSION = "none yet"


@dataclass
class State:
    """What is shown while an annotator, real or played, works."""

    labels: int = 0
    until: int = 0
    version: str = NO_VERSION
    points: list[Point] = field(default_factory=list)
    next_training: str = ""
    doing: str = ""


class LiveView:
    """Keeps the terminal at the state; on anything else prints a line when something happened."""

    def __init__(self, console: Console, state: State) -> None:
        self.console = console
        self.state = state
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)
        self._printed = 0
        self._said = ""

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def update(self) -> None:
        """Show the state as it is now."""
        if self.console.is_terminal:
            return  # the live view reads it by itself
        state = self.state
        for point in state.points[self._printed :]:
            self.console.print(
                f"{point.version}: {point.labels} labels, accuracy {point.accuracy:.3f} on "
                "held-out images",
                highlight=False,
            )
        self._printed = len(state.points)
        if state.doing != self._said and state.version == NO_VERSION:
            self._said = state.doing
            self.console.print(state.doing, highlight=False)

    def _render(self) -> RenderableType:
        state = self.state
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        if state.until:
            bar = ProgressBar(total=state.until, completed=state.labels, width=40)
            row = Table.grid(padding=(0, 2))
            row.add_row(bar, f"{state.labels} of {state.until}")
            table.add_row("labels", row)
        else:
            table.add_row("labels", str(state.labels))
        table.add_row("version", state.version)
        if state.points:
            last = state.points[-1]
            curve = sparkline([p.accuracy for p in state.points[-60:]])
            table.add_row(
                "accuracy",
                Text(f"{last.accuracy:.3f} ", style="bold green").append(
                    f"on held-out images  {curve}", style="green"
                ),
            )
        table.add_row("training", state.next_training or "-")
        if state.doing:
            table.add_row("now", state.doing)
        return Group(table)


def summary(
    points: Sequence[Point], random: RandomCurve, *, held_out: int, until: int
) -> RenderableType:
    """The two curves side by side, and the ratio of labels needed."""
    table = Table(
        "labels", "Doubtless", "random order",
        title=f"Accuracy on {held_out} held-out images", title_justify="left",
    )  # fmt: skip
    mean = dict(zip(random.labels, random.mean, strict=True))
    std = dict(zip(random.labels, random.std, strict=True))
    ours = {p.labels: p.accuracy for p in points}
    for count in sorted(ours.keys() | {n for n in mean if n % 20 == 0 or n == until}):
        table.add_row(
            str(count),
            f"{ours[count]:.3f}" if count in ours else "",
            f"{mean[count]:.3f} ± {std[count]:.3f}" if count in mean else "",
        )
    ratio = labels_saved_ratio(points, random)
    reached = f"{random.mean[-1]:.3f} with {random.labels[-1]} labels in random order"
    verdict = (
        f"Not reached: {reached} (mean of {random.seeds})."
        if ratio is None
        else (
            f"{reached} (mean of {random.seeds}); Doubtless's order needs "
            f"{random.labels[-1] / ratio:.0f} for that: {ratio:.2f} times fewer."
        )
    )
    return Group(table, Text(verdict, style="bold"))


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write everything as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
