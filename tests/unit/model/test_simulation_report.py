from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_sets import COLOURS, blobs, png

from model.simulation import tables
from model.simulation.charts import Axis, Series, bar_chart, line_chart, nice_axis
from model.simulation.provenance import machine
from model.simulation.replay import Plan, Run, replay
from model.simulation.report import Shown, first_rows, looks, plot_file, render, thumbnail
from model.simulation.summary import summarise

ADDRESSED = {"src", "href", "data", "action", "poster", "srcset", "xlink:href"}
VOID = {"meta", "br", "img", "link", "input", "hr"}
NASTY = '<script>alert("x")</script> & \'"'


class Reader(HTMLParser):
    """Collects text and addresses, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ADDRESSED]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def result(runs: Mapping[str, Sequence[Run]], **changes: Any) -> dict[str, Any]:
    found = summarise(runs)
    return {
        "data": "blobs", "backbone": "b", "seeds": len(runs["random"]), "uncertainty": "softmax",
        "initial": 0, "batch": 8, "random_share": 0.2, "commit": "", "when": "now",
        "images": {"pool": 80, "test": 40, "classes": 3, "split": "every third"},
        "machine": machine(), "left_out": [], **found,
        "seconds": {"features": 1.0, **found["seconds"]}, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    plan = Plan(initial=0, batch=8, rounds=3)
    return {n: [replay(blobs(), plan, n, s) for s in range(2)] for n in ("random", "auto")}


def shown() -> list[Shown]:
    return [
        Shown(name, f"{name}.png", thumbnail(png(colour, 1))) for name, colour in COLOURS.items()
    ]


def test_the_page_is_whole_and_points_nowhere(runs: dict[str, list[Run]]) -> None:
    page = render(result(runs, full={"accuracy": 0.9}), runs, {"auto": shown(), "random": shown()})
    reader = read(page)
    assert len(reader.addresses) == 6
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert {"script", "link", "iframe"} & set(reader.tags) == set()
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\(", page)
    assert "default-src 'none'" in page
    assert page.count('<svg class="chart"') == 3
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
    for part in ("auto", "all labels: 0.900", "3 of 3 classes", "every third", "2 seeds"):
        assert part in reader.text


def test_words_of_a_set_stay_words(runs: dict[str, list[Run]]) -> None:
    found = result(
        runs, data=NASTY, backbone=NASTY, left_out=[{"image": NASTY, "reason": NASTY}] * 30
    )
    page = render(found, runs, {"auto": [Shown(NASTY, NASTY, "")]})
    reader = read(page)
    assert "script" not in reader.tags
    assert reader.text.count(NASTY) >= 20
    assert "30 images" in reader.text
    assert "and 10 more" in reader.text


def test_one_seed_random_alone_and_no_plain_head_make_a_page_too(
    runs: dict[str, list[Run]],
) -> None:
    alone = {"random": runs["random"][:1]}
    found = result(alone, initial=6)
    del found["plain"]
    reader = read(render(found, alone, {}))
    assert "Only random order" in reader.text
    assert "the same 6 random labels first" in reader.text
    assert "1 seed." in reader.text


def test_the_plot_is_an_svg_of_its_own(runs: dict[str, list[Run]]) -> None:
    text = plot_file(result(runs))
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "random" in "".join(root.itertext())
    assert "<style>" in text


def test_a_curve_ends_where_its_numbers_say() -> None:
    """Corners of the plot are known, so where a line from corner to corner runs is too."""
    svg = line_chart(
        [Series("diagonal", [0, 10], [0, 1], "s0", band=[0, 0])],
        Axis("x", 0, 10, [0, 10]),
        Axis("y", 0, 1, [0, 1]),
        label="test",
    )
    root = ElementTree.fromstring(svg)
    names = {"s": "http://www.w3.org/2000/svg"}
    line = root.find("s:polyline", names)
    assert line is not None
    (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
    ticks = [float(t.get("y1", "0")) for t in root.findall("s:line[@class='grid']", names)]
    assert (y0, y1) == (max(ticks), min(ticks))
    grid = root.find("s:line[@class='grid']", names)
    assert grid is not None
    assert (x0, x1) == (float(grid.get("x1", "0")), float(grid.get("x2", "0")))


def test_bars_are_as_high_as_their_numbers() -> None:
    svg = bar_chart(
        [1.0, 0.5, 0.0], [0.5] * 3, ["a", "b", "c"], Axis("", 0, 1, [0, 1]), title="", label=""
    )
    root = ElementTree.fromstring(svg)
    heights = [
        float(bar.get("height", "0")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert heights == pytest.approx([heights[0], heights[0] / 2, 0], abs=0.1)


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_an_axis_holds_its_values_with_few_round_ticks(low: float, span: float) -> None:
    axis = nice_axis("", low, low + span)
    tolerance = 1e-6 * (1 + span + abs(low))
    assert axis.low <= low + tolerance
    assert axis.high >= low + span - tolerance
    assert 2 <= len(axis.ticks) <= 9
    assert np.all(np.diff(axis.ticks) > 0)


def test_a_thumbnail_is_a_small_jpeg_and_nothing_for_what_is_no_image() -> None:
    assert thumbnail(b"no image") == ""
    assert thumbnail(png((1, 2, 3), 0)).startswith("data:image/jpeg;base64,/9j/")


def test_first_images_leave_out_what_was_drawn() -> None:
    asked = tuple(range(60))
    drawn = tuple(n % 2 == 0 for n in asked)
    assert first_rows(Run("auto", 0, (), asked, drawn, (), ())) == tuple(range(1, 49, 2))
    assert first_rows(Run("random", 0, (), asked, drawn, (), ())) == tuple(range(24))


def test_many_rules_are_told_apart(runs: dict[str, list[Run]]) -> None:
    names = ["random", *map(str, range(23))]
    assert len(set(looks(names).values())) == len(names)
    many = {name: runs["auto" if name != "random" else name] for name in names}
    found = result(many)
    root = ElementTree.fromstring(plot_file(found))
    lowest = max(float(t.get("y", "0")) for t in root.iter("{http://www.w3.org/2000/svg}text"))
    assert lowest < float(root.get("viewBox", "").split()[3])
    page = render(found, many, dict.fromkeys(names, shown()))
    assert page.count('class="band"') == 2
    assert page.count("<details open>") == 2
    assert page.count("<figure") == 3 * len(names)


def test_tables_give_the_curves_and_begin_with_the_best(runs: dict[str, list[Run]]) -> None:
    found = result(runs)
    found["curves"] |= {"worse": found["curves"]["auto"], "never": found["curves"]["random"]}
    needed = found["labels_needed"]["auto"]
    assert needed is not None
    found["labels_needed"] |= {"worse": needed + 1, "never": None}
    assert tables.best_first(found) == ["random", "auto", "worse", "never"]
    reader = read(tables.curves_table(found))
    for curve in (*found["curves"].values(), found["plain"]):
        assert all(f"{value:.3f}" in reader.text for value in curve["mean"])


def test_what_is_no_text_has_words_and_what_scrolls_has_the_keyboard(
    runs: dict[str, list[Run]],
) -> None:
    page = render(result(runs), runs, {"auto": shown()})
    assert all(f'alt="{name}.png"' in page for name in COLOURS)
    for svg in re.findall(r"<svg[^>]*>", page):
        assert "aria-label=" in svg or 'aria-hidden="true"' in svg
    assert page.count('class="scroll"') == page.count('tabindex="0" aria-label=') == 3
    assert page.count("<th ") == page.count("<th scope=")
