"""The pictures of docs/uncertainty.md, from results of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from model.simulation.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Series,
    bar_chart,
    line_chart,
    standalone,
)

TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LEFT, RIGHT, TOP, ROW = 190, 70, 24, 26


def percent(value: float) -> str:
    return f"{value:.0%}"


def reliability_diagram(scores: Mapping[str, tuple[str, Mapping[str, Any]]], label: str) -> str:
    """How often what is stated comes true, in bins of equal mass.

    Args:
        scores: colour and reliability, as `_measured.reliability` gives it, by name.
        label: what it shows.
    """
    perfect = Series("as stated", (0.0, 1.0), (0.0, 1.0), "r", dots=False, classes="thin dashed")
    series = [perfect]
    for name, (colour, found) in scores.items():
        bins = found["bins"]
        series.append(
            Series(
                name,
                [1.0 - row["stated_error"] for row in bins],
                [1.0 - row["observed_error"] for row in bins],
                colour,
                low=[1.0 - row["interval"][1] for row in bins],
                high=[1.0 - row["interval"][0] for row in bins],
            )
        )
    svg = line_chart(
        series,
        Axis("stated probability of being right", 0.0, 1.0, TICKS, percent),
        Axis("were right", 0.0, 1.0, TICKS, percent),
        label=label,
    )
    return standalone(svg, [(one.name, one.colour, one.classes) for one in series])


def error_by_score(found: Mapping[str, Any], label: str) -> str:
    """Errors in ten bins of the published score, least sure first."""
    bins = found["bins"]
    top = float(np.ceil(10.0 * max(row["interval"][1] for row in bins)) / 10.0)
    svg = bar_chart(
        [row["observed_error"] for row in bins],
        [row["stated_error"] for row in bins],
        [str(number + 1) for number in range(len(bins))],
        Axis("wrong", 0.0, top, np.linspace(0.0, top, 6).tolist(), percent),
        title="tenths of the pool, least sure first",
        label=label,
        low=[row["interval"][0] for row in bins],
        high=[row["interval"][1] for row in bins],
    )
    return standalone(svg, [("observed, with 95 %", "s0", ""), ("stated", "ink", "")])


def bars(values: Mapping[str, float], unit: str, label: str, *, marked: Sequence[str] = ()) -> str:
    """Horizontal bars on a logarithmic scale, their values written at their ends.

    Args:
        values: above 0, by name.
        unit: after each value.
        label: what it shows.
        marked: names in another colour.
    """
    low = np.floor(np.log10(min(values.values())))
    span = max(np.log10(max(values.values())) - low, 1e-9)
    height = TOP + ROW * len(values) + 10
    parts = [f'<text x="4" y="14">{escape(label)}</text>']
    for number, (name, value) in enumerate(values.items()):
        y = TOP + ROW * number
        wide = max((WIDTH - LEFT - RIGHT) * (np.log10(value) - low) / span, 1.0)
        colour = "s1" if name in marked else "s0"
        parts.append(
            f'<text text-anchor="end" x="{LEFT - 8}" y="{y + 15}">{escape(name)}</text>'
            f'<rect style="fill:var(--{colour});opacity:.8" x="{LEFT}" y="{y + 3}" '
            f'width="{wide:.1f}" height="{ROW - 8}"/>'
            f'<text class="note" x="{LEFT + wide + 6:.1f}" y="{y + 15}">{value:.3g} {unit}</text>'
        )
    svg = (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )
    whole = standalone(svg, [])
    return whole.replace(f' {HEIGHT}"', f' {height}"').replace(f'"{2 * HEIGHT}"', f'"{2 * height}"')
