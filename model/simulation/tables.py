"""The tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from model.simulation.replay import RANDOM


def saved_table(result: Mapping[str, Any]) -> str:
    """Labels that each rule needed for what random order reached: random first, then the best."""
    has_plain = "plain" in result
    budget = result["curves"][RANDOM]["labels"][-1]
    heads = ["rule", "labels needed", "saved"]
    heads += ["saved against plain"] if has_plain else []
    heads += ["final accuracy"]
    rows = []
    for name in best_first(result):
        cells = [escape(name), *_saved(result, name, budget)]
        if has_plain:
            cells.append(_times(result["labels_saved_vs_plain"].get(name)))
        rows.append([*cells, f"{result['curves'][name]['mean'][-1]:.3f}"])
    plain = (
        " Plain: random order, softmax regression on Lite2 features, no calibration."
        if has_plain
        else ""
    )
    return (
        f"{_as_table('Labels saved', heads, rows)}"
        f'<p class="quiet">Labels needed for the accuracy that {budget} random ones give; 2x: '
        f"half as many do. Below it: the worst and the best seed.{plain}</p>"
    )


def best_first(result: Mapping[str, Any]) -> list[str]:
    """Random order, then the rules by the labels they needed; those that never got there last."""
    needed = result["labels_needed"]
    last = {name: curve["mean"][-1] for name, curve in result["curves"].items()}

    def place(name: str) -> tuple[bool, float, float]:
        count = needed.get(name)
        return name != RANDOM, np.inf if count is None else count, -last[name]

    return sorted(last, key=place)


def quality_table(result: Mapping[str, Any]) -> str:
    """How good the stated probabilities were after the last round."""
    heads = {"ece": "ECE", "error_auroc": "error AUROC", "augrc": "AUGRC", "brier": "Brier"}
    rows = [
        [escape(name), *(_number(result["quality"][name][key][-1]) for key in heads)]
        for name in best_first(result)
    ]
    return (
        _as_table("Quality of the stated probabilities", ["rule", *heads.values()], rows)
        + '<p class="quiet">After the last round. ECE: how far the stated probabilities are off. '
        "Error AUROC: how well they find errors; 0.5 is chance, 1 is perfect. AUGRC and Brier: "
        "smaller is better.</p>"
    )


def curves_table(result: Mapping[str, Any]) -> str:
    """The curves in numbers, for those who do not see them or want to quote them."""
    names = best_first(result)
    curves = {name: result["curves"][name] for name in names}
    if "plain" in result:
        curves["random, plain head"] = result["plain"]
    labels = curves[RANDOM]["labels"]
    rows = [
        [str(count), *(f"{curve['mean'][number]:.3f}" for curve in curves.values())]
        for number, count in enumerate(labels)
    ]
    table = _as_table("Accuracy after each round", ["labels", *map(str, curves)], rows)
    return f"<details><summary>These curves in numbers</summary>{table}</details>"


def _as_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that a keyboard can scroll; the cells are HTML already, the first names its row."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _saved(result: Mapping[str, Any], name: str, budget: int) -> list[str]:
    if name == RANDOM:
        return [str(budget), "1.00x"]
    needed = result["labels_needed"][name]
    per_seed = result["labels_saved_per_seed"][name]
    said = _times(result["labels_saved_ratio"][name])
    low, *_, high = sorted([*per_seed, *per_seed], key=lambda value: value or 0.0)
    if len(per_seed) > 1 and low != high:
        said += f'<br/><span class="quiet">{_times(low)} to {_times(high)}</span>'
    return [f"over {budget}" if needed is None else str(int(np.ceil(needed))), said]


def _times(value: float | None) -> str:
    return "&lt; 1x" if value is None else f"{value:.2f}x"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
