"""One HTML file that shows what a replay found; nothing in it points outside."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

from model.errors import UnreadableImageError
from model.images import decode_image
from model.simulation import charts, tables
from model.simulation.charts import Axis, Series, line_chart, nice_axis
from model.simulation.page import page
from model.simulation.replay import RANDOM, Run
from model.simulation.summary import (
    AUTO,
    Words,
    at_start,
    headline,
    key_of,
    outlook,
    reliability,
    remarks,
    words_of,
)

FIRST_IMAGES = 24
THUMBNAIL_PX = 112
MOST_BANDS = 4  # more hide each other
MOST_OPEN = 4  # rules whose images are all unfolded; of more, the main one's and random's


@dataclass(frozen=True)
class Shown:
    """An image that a rule asked for early.

    Attributes:
        label: its class, or what it shows.
        name: its file.
        thumbnail: a ``data:`` address; empty when it cannot be shown.
        kinds: what of the set's variety it shows; its label without.
    """

    label: str
    name: str
    thumbnail: str
    kinds: tuple[str, ...] | None = None


class Look(NamedTuple):
    """How a curve is told from others: a CSS variable of `charts.STYLE`, and a class of its."""

    colour: str
    stroke: str


def thumbnail(data: bytes) -> str:
    """A small JPEG as a ``data:`` address; empty for what is no image."""
    try:
        image = decode_image(data, size_hint=THUMBNAIL_PX)
    except UnreadableImageError:
        return ""
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def first_rows(run: Run) -> tuple[int, ...]:
    """The first images a rule chose itself; those drawn for it are left out, unless it is random.

    Example:
        >>> first_rows(Run("auto", 0, (), (4, 7, 9), (True, False, False), (), ()))
        (7, 9)
    """
    pairs = zip(run.asked, run.is_random, strict=True)
    chosen = [row for row, drawn in pairs if run.acquisition == RANDOM or not drawn]
    return tuple(chosen[:FIRST_IMAGES])


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Colour and stroke of each rule, always the same for the same list, and no two alike.

    Example:
        >>> looks(["random", "auto"])["auto"]
        Look(colour='s0', stroke='')
    """
    others = [name for name in names if name != RANDOM]
    return {RANDOM: Look("r", "dashed")} | {
        name: Look(f"s{n % charts.COLOURS}", charts.STROKES[n // charts.COLOURS % 3])
        for n, name in enumerate(others)
    }


def _main(names: Collection[str]) -> str:
    """The rule that the page is about."""
    return AUTO if AUTO in names else next((n for n in names if n != RANDOM), RANDOM)


def curves_chart(result: Mapping[str, Any]) -> str:
    """The metric against labels, with a band of one standard deviation over the seeds."""
    words = words_of(result)
    curves: Mapping[str, Any] = result["curves"]
    look, main, banded = looks(list(curves)), _main(curves), _banded(result)
    series = [
        Series(name, c["labels"], c["mean"], look[name].colour,
               band=c["std"] if name in banded else (),
               classes=look[name].stroke + (" strong" if name == main else ""))
        for name, c in sorted(curves.items(), key=lambda item: item[0] == main)
    ]  # fmt: skip
    values = [v for c in curves.values() for v in c["mean"]]
    if "plain" in result:
        plain = result["plain"]
        values += plain["mean"]
        series.insert(
            0, Series("plain", plain["labels"], plain["mean"], "r", dots=False, classes="thin")
        )
    labels = next(iter(curves.values()))["labels"]
    full = result.get("full", {}).get(key_of(result))
    values += [full] if full is not None else []
    x = nice_axis(words.axis, 0.0, float(labels[-1]))
    x = replace(x, high=float(labels[-1]), ticks=[t for t in x.ticks if t <= labels[-1]])
    y = nice_axis(f"{words.metric} on held-out images", min(values), max(values))
    goal = curves[RANDOM]["mean"][-1]

    def extra(px: Any, py: Any) -> str:
        parts = [
            f'<line class="mark" x1="{px(x.low):.1f}" x2="{px(x.high):.1f}" y1="{py(goal):.1f}" '
            f'y2="{py(goal):.1f}"><title>random order at the end: {goal:.3f}</title></line>'
        ]
        if full is not None:
            parts.append(
                f'<line class="axis" x1="{px(x.low):.1f}" x2="{px(x.high):.1f}" '
                f'y1="{py(full):.1f}" y2="{py(full):.1f}"/><text text-anchor="end" '
                f'x="{px(x.high):.1f}" y="{py(full) - 5:.1f}">all labels: {full:.3f}</text>'
            )
        return "".join(parts)

    label = f"{at_start(words.figure)} against number of {words.axis}"
    return line_chart(series, x, y, label=label, extra=extra)


def _banded(result: Mapping[str, Any]) -> list[str]:
    """Rules whose spread is shown: none with one seed, two where more would hide each other."""
    names = list(result["curves"])
    if int(result["seeds"]) < 2:
        return []
    return names if len(names) <= MOST_BANDS else [RANDOM, _main(names)]


def plot_file(result: Mapping[str, Any]) -> str:
    """The curves as an SVG file of their own."""
    legend = [(name, *look) for name, look in looks(list(result["curves"])).items()]
    legend += [("random, plain head", "r", "thin")] if "plain" in result else []
    return charts.standalone(curves_chart(result), legend)


def render(
    result: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    first: Mapping[str, Sequence[Shown]],
) -> str:
    """The page.

    Args:
        result: the content of ``result.json``.
        runs: by rule, one a seed.
        first: by rule, the images it asked for first (`first_rows` of the first seed).
    """
    main = _main(runs)
    caution = remarks(result)
    body = [
        f"<h1>{escape(result['data'])}: active learning replayed</h1>",
        f'<p class="said">{escape(headline(result))}</p>',
        f"<p>{escape(caution)}</p>" if caution else "",
        f"<p>{escape(outlook(result))}</p>",
        f'<p class="quiet">{escape(_setting(result))}</p>',
        _curves_section(result),
        _scores_section(result, runs, main),
        _images_section(result, first, main),
        _details(result),
    ]
    return page(f"{result['data']}: active learning replayed", "".join(body))


def _setting(result: Mapping[str, Any]) -> str:
    images, counted = result["images"], words_of(result).counted
    seeds = int(result["seeds"])
    start = (
        f"the same {result['initial']} random {counted} first, then"
        if result["initial"]
        else f"from no {counted},"
    )
    return (
        f"{images['pool']} images to choose from, {images['test']} held out to judge on, "
        f"{images['classes']} classes; {start} {result['batch']} {counted} a round, "
        f"{result['random_share']:.0%} of them drawn at random; "
        f"{seeds} seed{'s' if seeds > 1 else ''}."
    )


def _legend(names: Mapping[str, Look], *, extra: Sequence[str] = ()) -> str:
    rows = [
        '<li><svg viewBox="0 0 24 8" aria-hidden="true"><line class="line '
        f'{look.stroke}" style="stroke:var(--{look.colour})" x1="0" x2="24" y1="4" y2="4"/></svg>'
        f"{escape(name)}</li>"
        for name, look in names.items()
    ]
    return f'<ul class="legend chart">{"".join([*rows, *extra])}</ul>'


def _curves_section(result: Mapping[str, Any]) -> str:
    names, words = list(result["curves"]), words_of(result)
    look = looks(names)
    if "plain" in result:
        look |= {"random, plain head": Look("r", "thin")}
    banded = _banded(result)
    band = ""
    if banded:
        whose = "" if len(banded) == len(names) else f" of {escape(' and '.join(banded))}"
        band = f" The band{whose} is one standard deviation over the seeds."
    return (
        f'<section class="two"><div><h2>{at_start(words.figure)} for {words.axis}</h2>'
        + _legend(look)
        + curves_chart(result)
        + f'<p class="quiet">Dotted: what random order reaches at the end.{band}</p>'
        + tables.curves_table(result)
        + f"</div><div><h2>{at_start(words.counted)} saved</h2>{tables.saved_table(result)}"
        + f"{tables.classes_table(result)}</div></section>"
    )


def _scores_section(result: Mapping[str, Any], runs: Mapping[str, Sequence[Run]], main: str) -> str:
    look, words = looks(list(result["curves"])), words_of(result)
    tenths = Axis("stated probability of being right", 0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1])
    right = Axis("share that is right", 0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1])
    series = []
    for name in sorted(runs, key=lambda name: name == main):
        bins = reliability(runs[name])
        ends = (
            {"low": [b["low"] for b in bins], "high": [b["high"] for b in bins]}
            if name == main
            else {}
        )
        series.append(
            Series(name, [b["stated"] for b in bins], [b["right"] for b in bins],
                   look[name].colour, **ends, dots=name == main,
                   classes=look[name].stroke + (" strong" if name == main else " thin"))
        )  # fmt: skip

    def diagonal(px: Any, py: Any) -> str:
        return (
            f'<line class="mark" x1="{px(0):.1f}" y1="{py(0):.1f}" x2="{px(1):.1f}" '
            f'y2="{py(1):.1f}"/>'
        )

    diagram = line_chart(series, tenths, right, label="Reliability diagram", extra=diagonal)
    return (
        '<section class="two"><div><h2>Do the probabilities mean what they say?</h2>'
        + _legend(look)
        + diagram
        + f'<p class="quiet">On the dotted line they do. Tenths of the {words.where} by stated '
        f"probability, after the last round; bars: 95 % intervals of {escape(main)}.</p>"
        + "</div><div>"
        + _errors_chart(reliability(runs[main]), main, look[main], words)
        + tables.quality_table(result)
        + "</div></section>"
    )


def _errors_chart(bins: Sequence[Mapping[str, float]], main: str, look: Look, words: Words) -> str:
    if not bins:
        return f"<h2>Where the errors are</h2><p>There are no {words.where}.</p>"
    wrong = [1.0 - b["right"] for b in bins]
    expected = [1.0 - b["stated"] for b in bins]
    highest = max([*wrong, *expected, *(1.0 - b["low"] for b in bins)])
    y = nice_axis("share that is wrong", 0.0, min(1.0, highest))
    chart = charts.bar_chart(
        wrong,
        expected,
        [f"{b['stated']:.2f}" for b in bins],
        y,
        title="mean score of the tenth, most doubtful first",
        label="Error rate against score",
        colour=look.colour,
        low=[1.0 - b["high"] for b in bins],
        high=[1.0 - b["low"] for b in bins],
    )
    return (
        f"<h2>Where the errors are</h2>{_legend({main: look})}{chart}"
        f'<p class="quiet">Bars: how often a tenth of the {words.judged} was wrong; thick dashes: '
        "how often its score says it should be. Falling to the right is what makes looking at the "
        "most doubtful first worth it.</p>"
    )


def _images_section(
    result: Mapping[str, Any], first: Mapping[str, Sequence[Shown]], main: str
) -> str:
    if not any(first.values()):
        return ""
    folded = len(first) > MOST_OPEN
    parts = [
        f"<section><h2>What each rule asks for first</h2>"
        f'<p class="quiet">The first {FIRST_IMAGES} images it chose itself in the first seed, in '
        "order, with their true labels; images drawn for it are left out.</p>"
    ]
    for name in sorted(first, key=lambda name: (name != main, name == RANDOM)):
        shown = first[name]
        met = {
            kind
            for image in shown
            for kind in ((image.label,) if image.kinds is None else image.kinds)
        }
        classes = len(met)
        of_classes = f"{classes} of {result['images']['classes']} classes"
        is_open = "" if folded and name not in (main, RANDOM) else " open"
        parts.append(
            f"<details{is_open}><summary><h3>{escape(name)}</h3> "
            f'<span class="quiet">{of_classes}</span></summary>'
            f'<div class="images">{"".join(map(_figure, shown))}</div></details>'
        )
    return "".join(parts) + "</section>"


def _figure(image: Shown) -> str:
    name = escape(image.name, quote=True)
    picture = (
        f'<img alt="{name}" width="{THUMBNAIL_PX}" height="{THUMBNAIL_PX}" '
        f'src="{image.thumbnail}"/>'
        if image.thumbnail
        else '<span class="none"></span>'
    )
    caption = f"<figcaption>{escape(image.label)}</figcaption>"
    return f'<figure title="{name}">{picture}{caption}</figure>'


def _details(result: Mapping[str, Any]) -> str:
    machine, words = result["machine"], words_of(result)
    rows = {
        "backbone": result["backbone"],
        "uncertainty": result["uncertainty"],
        "split": result["images"]["split"],
        "features": f"{result['seconds']['features']:.1f} s for what the cache lacked",
        "a round at the end": ", ".join(
            f"{name.replace('_', ' ')} {result['seconds'][name][-1]:.2f} s"
            for name in ("fit", "acquire", "score_pool")
        ),
        "machine": f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
        "program": result["commit"] or "not from a git tree",
        "when": result["when"],
    }
    left_out = result["left_out"]
    if left_out:
        named = "; ".join(f"{item['image']}: {item['reason']}" for item in left_out[:20])
        more = f" and {len(left_out) - 20} more, see result.json" if len(left_out) > 20 else ""
        rows["left out"] = f"{len(left_out)} images: {named}{more}"
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in rows.items())
    return (
        '<details class="foot"><summary>How this was measured</summary>'
        "<dl>" + listed + "</dl>"
        '<p class="quiet">Every rule starts from the same images and the same draws of each seed, '
        "is fitted by the same engine and judged on the same held-out images. "
        f"{at_start(words.counted)} saved is the budget divided by the {words.counted} at which "
        "the rule's mean curve (running maximum, straight lines between rounds) reaches random "
        f"order's mean {words.figure} at the end."
        "</p></details>"
    )
