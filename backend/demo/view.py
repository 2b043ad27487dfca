"""What the demonstration shows in the terminal: a live view, or plain lines where there is none."""

from __future__ import annotations

import json
import time
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

from backend.demo.curve import Point, RandomCurve, labels_saved_ratio, mean_gain, sparkline

NO_VERSION = "none yet"
# Without a terminal, what is being done is a line at most this often.
EVERY_S = 5.0


@dataclass
class State:
    """What is shown while an annotator, real or played, works."""

    labels: int = 0
    until: int = 0
    version: str = NO_VERSION
    points: list[Point] = field(default_factory=list)
    next_training: str = ""
    doing: str = ""
    metric: str = "accuracy"
    unit: str = "labels"


class LiveView:
    """Keeps the terminal at the state; on anything else prints a line when something happened."""

    def __init__(self, console: Console, state: State) -> None:
        self.console = console
        self.state = state
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)
        self._printed = 0
        self._said = ""
        self._said_at = -EVERY_S

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
                f"{point.version}: {point.labels} {state.unit}, {state.metric} {point.value:.3f} "
                "on held-out images",
                highlight=False,
            )
        self._printed = len(state.points)
        now = time.monotonic()
        if state.doing not in ("", self._said) and now - self._said_at >= EVERY_S:
            self._said, self._said_at = state.doing, now
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
            table.add_row(state.unit, row)
        else:
            table.add_row(state.unit, str(state.labels))
        table.add_row("version", state.version)
        if state.points:
            last = state.points[-1]
            curve = sparkline([p.value for p in state.points[-60:]])
            table.add_row(
                state.metric,
                Text(f"{last.value:.3f} ", style="bold green").append(
                    f"on held-out images  {curve}", style="green"
                ),
            )
        table.add_row("training", state.next_training or "-")
        if state.doing:
            table.add_row("now", state.doing)
        return Group(table)


def summary(
    points: Sequence[Point],
    random: RandomCurve | None,
    *,
    held_out: int,
    until: int,
    metric: str = "accuracy",
    unit: str = "labels",
) -> RenderableType:
    """The two curves side by side, and the ratio of labels needed.

    Args:
        points: the versions.
        random: what random order gave; None where that was not measured.
        held_out: how many images both were measured on.
        until: labels given in all.
        metric: name of what was measured.
        unit: what is counted as a label.
    """
    title = f"{metric[0].upper()}{metric[1:]} on {held_out} held-out images"
    table = Table(unit, "Doubtless", title=title, title_justify="left")
    ours = {p.labels: p.value for p in points}
    if random is None:
        for count, value in sorted(ours.items()):
            table.add_row(str(count), f"{value:.3f}")
        return Group(table, Text("Random order was not measured (--seeds 0).", style="bold"))
    table.add_column("random order")
    several = random.seeds > 1
    values = {
        count: f"{mean:.3f} ± {std:.3f}" if several else f"{mean:.3f}"
        for count, mean, std in zip(random.labels, random.mean, random.std, strict=True)
    }
    for count in sorted(ours.keys() | {n for n in values if n % 20 == 0 or n == until}):
        table.add_row(
            str(count), f"{ours[count]:.3f}" if count in ours else "", values.get(count, "")
        )
    verdict = _verdict(points, random, metric, unit)
    return Group(table, Text(verdict, style="bold"))


def _verdict(points: Sequence[Point], random: RandomCurve, metric: str, unit: str) -> str:
    if random.seeds == 1:
        # One order's last value may be below its first: how many labels that takes says nothing.
        gain = mean_gain(points, random)
        if gain is None:
            return "No version had as many labels as were measured in random order."
        return f"{metric} above random order with as many {unit}, mean over the rows: {gain:+.3f}."
    ratio = labels_saved_ratio(points, random)
    reached = f"{random.mean[-1]:.3f} with {random.labels[-1]} {unit} in random order"
    reached += f" (mean of {random.seeds})"
    if ratio is None:
        return f"Not reached: {reached}."
    needs = f"{reached}; Doubtless's order needs {random.labels[-1] / ratio:.0f} for that: "
    return needs + (
        f"{ratio:.2f} times fewer." if ratio >= 1 else f"{1 / ratio:.2f} times as many."
    )


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write everything as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
