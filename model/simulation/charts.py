"""Line and bar charts as inline SVG: no library, no script, and colours that follow the theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

WIDTH, HEIGHT = 480, 300
LEGEND, LEGEND_ROW = 176, 18  # beside a chart that is a file of its own
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 44
COLOURS = 8
STROKES = ("", "dashes", "points")  # of the first rules, the next eight, and so on

# Colour-blind safe (Okabe and Ito), lighter on dark.
STYLE = """
.chart{--ink:#1d2330;--faint:#d9dee7;--soft:#5b6475;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;
--s3:#b0569a;--s4:#b98a00;--s5:#4aa3d8;--s6:#7a4e2d;--s7:#5b5bd6;--r:#7b8494}
@media (prefers-color-scheme:dark){.chart{--ink:#e8ebf2;--faint:#333b4a;--soft:#a3adbd;
--s0:#5db8f0;--s1:#ff9552;--s2:#3fd6a8;--s3:#e493cf;--s4:#f0c649;--s5:#9bd4f7;--s6:#d2a37c;
--s7:#a6a6ff;--r:#98a2b3}}
.chart text{fill:var(--soft);font:12px system-ui,-apple-system,"Segoe UI",sans-serif}
@media (max-width:600px){.chart text{font-size:14px}}
.chart .grid{stroke:var(--faint);stroke-width:1}
.chart .axis{stroke:var(--soft);stroke-width:1}
.chart .line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.chart .thin{stroke-width:1.3}
.chart .strong{stroke-width:3.4}
.chart .dashed{stroke-dasharray:5 4}
.chart .dashes{stroke-dasharray:9 3}
.chart .points{stroke-dasharray:2 2.5;stroke-linecap:butt}
.chart .band{stroke:none;opacity:.16}
.chart .mark{fill:none;stroke:var(--ink);stroke-width:1.4;stroke-dasharray:2 3}
.chart .note{fill:var(--ink);font-weight:600}
""".strip()


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: in the legend and the tooltips.
        x: ascending.
        y: as many.
        colour: a CSS variable of `STYLE`: ``r`` or ``s0`` to ``s7``.
        band: half its height, as many; none without.
        low, high: ends of an interval round each point; none without.
        dots: mark the points.
        classes: further CSS classes of the line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    band: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: bool = True
    classes: str = ""


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        title: with its unit.
        low, high: its ends.
        ticks: where numbers stand.
        text: how they are written.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str] = field(default=lambda value: f"{value:g}")


def nice_axis(title: str, low: float, high: float, *, most: int = 6) -> Axis:
    """An axis that holds ``low`` to ``high`` and has round numbers.

    Example:
        >>> nice_axis("", 0.33, 0.81).ticks
        [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """
    span = max(high - low, 1e-9)
    raw = span / most
    scale = 10.0 ** np.floor(np.log10(raw))
    step = next(m * scale for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * scale >= raw - 1e-12)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = [round(float(k * step), 10) for k in np.arange(first, max(last, first + 1) + 0.5)]
    return Axis(title, ticks[0], ticks[-1], ticks)


def line_chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    label: str,
    extra: Callable[[Callable[[float], float], Callable[[float], float]], str] | None = None,
) -> str:
    """An SVG of curves.

    Args:
        series: the first is drawn first, under the others.
        x: the axis.
        y: the axis.
        label: what it shows, for those who do not see it.
        extra: draws more, given what turns values to pixels.
    """
    px, py = _scales(x, y)
    parts = [_frame(x, y, px, py)]
    for one in series:
        colour = f"var(--{one.colour})"
        if len(one.band):
            up = [(px(a), py(b + c)) for a, b, c in zip(one.x, one.y, one.band, strict=True)]
            down = [(px(a), py(b - c)) for a, b, c in zip(one.x, one.y, one.band, strict=True)]
            points = _points([*up, *reversed(down)])
            parts.append(f'<polygon class="band" style="fill:{colour}" points="{points}"/>')
        if len(one.low):
            for a, low, high in zip(one.x, one.low, one.high, strict=True):
                parts.append(
                    f'<line style="stroke:{colour}" class="thin" x1="{px(a):.1f}" '
                    f'x2="{px(a):.1f}" y1="{py(low):.1f}" y2="{py(high):.1f}"/>'
                )
        points = _points([(px(a), py(b)) for a, b in zip(one.x, one.y, strict=True)])
        parts.append(
            f'<polyline class="line {one.classes}" style="stroke:{colour}" points="{points}"/>'
        )
        for a, b in zip(one.x, one.y, strict=True):
            parts.append(
                f'<circle style="fill:{colour}" r="{2.6 if one.dots else 0}" cx="{px(a):.1f}" '
                f'cy="{py(b):.1f}"><title>{escape(one.name)}: {b:.3f} at {x.text(a)}</title>'
                "</circle>"
            )
    if extra is not None:
        parts.append(extra(px, py))
    return _svg("".join(parts), label)


def bar_chart(
    heights: Sequence[float],
    marks: Sequence[float],
    names: Sequence[str],
    y: Axis,
    *,
    title: str,
    label: str,
    colour: str = "s0",
    low: Sequence[float] = (),
    high: Sequence[float] = (),
) -> str:
    """An SVG of bars, each with a dash where it was expected to end.

    Args:
        heights: of the bars.
        marks: of the dashes, as many.
        names: below the bars, as many.
        y: the axis.
        title: of the axis below.
        label: what it shows, for those who do not see it.
        colour: of the bars.
        low: ends of an interval round each height.
        high: ends of an interval round each height.
    """
    x = Axis(title, 0.0, float(len(heights)), [])
    px, py = _scales(x, y)
    parts = [_frame(x, y, px, py)]
    for number, (height, mark, name) in enumerate(zip(heights, marks, names, strict=True)):
        left, right = px(number + 0.14), px(number + 0.86)
        middle = (left + right) / 2
        parts.append(
            f'<rect style="fill:var(--{colour});opacity:.75" x="{left:.1f}" y="{py(height):.1f}" '
            f'width="{right - left:.1f}" height="{max(0.0, py(y.low) - py(height)):.1f}">'
            f"<title>{escape(name)}: {height:.1%} wrong, {mark:.1%} expected</title></rect>"
        )
        if len(low):
            parts.append(
                f'<line class="axis" x1="{middle:.1f}" x2="{middle:.1f}" '
                f'y1="{py(low[number]):.1f}" y2="{py(high[number]):.1f}"/>'
            )
        parts.append(
            f'<line style="stroke:var(--ink);stroke-width:2.4" x1="{left - 3:.1f}" '
            f'x2="{right + 3:.1f}" y1="{py(mark):.1f}" y2="{py(mark):.1f}"/>'
            f'<text text-anchor="middle" x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}">'
            f"{escape(name)}</text>"
        )
    return _svg("".join(parts), label)


def _scales(x: Axis, y: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def px(value: float) -> float:
        return LEFT + wide * (value - x.low) / max(x.high - x.low, 1e-12)

    def py(value: float) -> float:
        share = (value - y.low) / max(y.high - y.low, 1e-12)
        return TOP + tall * (1.0 - min(max(share, 0.0), 1.0))

    return px, py


def _frame(x: Axis, y: Axis, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    bottom = HEIGHT - BOTTOM
    parts = [f'<text x="4" y="12">{escape(y.title)}</text>']
    for tick in y.ticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(tick):.1f}" '
            f'y2="{py(tick):.1f}"/><text text-anchor="end" x="{LEFT - 6}" '
            f'y="{py(tick) + 4:.1f}">{y.text(tick)}</text>'
        )
    for tick in x.ticks:
        parts.append(
            f'<text text-anchor="middle" x="{px(tick):.1f}" y="{bottom + 16}">{x.text(tick)}</text>'
        )
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        f'<text text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}">'
        f"{escape(x.title)}</text>"
    )
    return "".join(parts)


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _svg(inside: str, label: str) -> str:
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(label, quote=True)}">{inside}</svg>'
    )


def standalone(svg: str, legend: Sequence[tuple[str, str, str]]) -> str:
    """Make a chart a file of its own: its style inside, on a plain ground, a legend beside it.

    Args:
        svg: from `line_chart`.
        legend: name, colour and further classes of each series.
    """
    wide, tall = WIDTH + LEGEND, max(HEIGHT, TOP + 10 + LEGEND_ROW * len(legend))
    ground = (
        f"<style>{escape(STYLE, quote=False)} .ground{{fill:#fff}}"
        "@media (prefers-color-scheme:dark){.ground{fill:#12161e}}</style>"
        f'<rect class="ground" width="{wide}" height="{tall}"/>'
    )
    rows = []
    for number, (name, colour, classes) in enumerate(legend):
        y = TOP + 10 + LEGEND_ROW * number
        rows.append(
            f'<line class="line {classes}" style="stroke:var(--{colour})" x1="{WIDTH}" '
            f'x2="{WIDTH + 20}" y1="{y - 4}" y2="{y - 4}"/>'
            f'<text x="{WIDTH + 26}" y="{y}">{escape(name)}</text>'
        )
    start = svg.index(">") + 1
    head = svg[:start].replace(f"0 0 {WIDTH} {HEIGHT}", f"0 0 {wide} {tall}")
    head = head.replace("<svg ", f'<svg width="{2 * wide}" height="{2 * tall}" ', 1)
    return head + ground + svg[start:].removesuffix("</svg>") + "".join(rows) + "</svg>\n"
