"""The tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from model.simulation.replay import RANDOM, BoxCheckpoint
from model.simulation.summary import F1, at_start, key_of, words_of


def saved_table(result: Mapping[str, Any]) -> str:
    """Labels that each rule needed for what random order reached: random first, then the best."""
    has_plain, words = "plain" in result, words_of(result)
    budget = result["curves"][RANDOM]["labels"][-1]
    heads = ["rule", f"{words.counted} needed", "saved"]
    heads += ["saved against plain"] if has_plain else []
    heads += [f"final {words.metric}"]
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
        f"{_as_table(f'{at_start(words.counted)} saved', heads, rows)}"
        f'<p class="quiet">{at_start(words.counted)} needed for the {words.metric} that '
        f"{budget} random ones "
        f"give; 2x: half as many do. Below it: the worst and the best seed.{plain}</p>"
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
    heads = {"ece": "ECE", "error_auroc": "error AUROC"}
    if key_of(result) == BoxCheckpoint.METRIC:
        heads |= {"missed_recall": "missed found", "map": "mAP"}
        note = _OF_BOXES
    else:
        heads |= {"augrc": "AUGRC", "brier": "Brier"}
        note = _OF_IMAGES
    if any(F1 in quality for quality in result["quality"].values()):
        heads |= {F1: "macro F1"}
    rows = [
        [escape(name), *(_number(result["quality"][name].get(key, [None])[-1]) for key in heads)]
        for name in best_first(result)
    ]
    return (
        _as_table("Quality of the stated probabilities", ["rule", *heads.values()], rows)
        + f'<p class="quiet">{note}</p>'
    )


_OF_IMAGES = (
    "After the last round. ECE: how far the stated probabilities are off. "
    "Error AUROC: how well they find errors; 0.5 is chance, 1 is perfect. AUGRC and Brier: "
    "smaller is better."
)
_OF_BOXES = (
    "After the last round. ECE: how far the stated probabilities of the regions shown are off. "
    "Error AUROC: how well they find wrong regions; 0.5 is chance, 1 is perfect. Missed found: of "
    "the images where an object was missed, how many are among the fifth that is said to miss "
    "most; 0.2 is chance. mAP: mean over IoU 0.5 to 0.95."
)


def classes_table(result: Mapping[str, Any]) -> str:
    """How well each class is found in the end; empty where it is not measured for each."""
    per_class: Mapping[str, Mapping[str, Any]] = result.get("ap50_per_class", {})
    if not per_class:
        return ""
    names = best_first(result)
    rows = [
        [escape(label), *(_number(per_class[name][label][-1]) for name in names)]
        for label in per_class[RANDOM]
    ]
    objects = [f"{values[-1]:.0f}" for values in (result["objects"][name] for name in names)]
    table = _as_table("AP50 of each class", ["class", *names], [*rows, ["objects drawn", *objects]])
    return f"<details><summary>AP50 of each class, after the last round</summary>{table}</details>"


def curves_table(result: Mapping[str, Any]) -> str:
    """The curves in numbers, for those who do not see them or want to quote them."""
    names = best_first(result)
    curves = {name: result["curves"][name] for name in names}
    if "plain" in result:
        curves["random, plain head"] = result["plain"]
    labels, words = curves[RANDOM]["labels"], words_of(result)
    rows = [
        [str(count), *(f"{curve['mean'][number]:.3f}" for curve in curves.values())]
        for number, count in enumerate(labels)
    ]
    table = _as_table(
        f"{at_start(words.metric)} after each round", [words.counted, *map(str, curves)], rows
    )
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
