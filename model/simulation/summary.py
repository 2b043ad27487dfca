"""From runs to curves, ratios and one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibration.metrics import proportion_interval
from model.simulation.replay import RANDOM, BoxCheckpoint, Checkpoint, Run
from model.stopping import fit_curve

F64 = NDArray[np.float64]
F1 = "macro_f1"  # where an image may have several labels
SECONDS = ("fit", "acquire", "score_pool")
AUTO = "auto"
NEARLY_ALL = 0.95
MORE, TARGET = 100, 0.95  # labels and accuracy that the outlook is about


@dataclass(frozen=True)
class Words:
    """What a report calls things.

    Attributes:
        metric: what curves are of, in full.
        figure: the same in short.
        counted: what a budget is counted in.
        axis: the same below a chart.
        judged: what has a stated probability.
        where: which of them.
    """

    metric: str
    figure: str = "accuracy"
    counted: str = "labels"
    axis: str = "labels"
    judged: str = "images"
    where: str = "held-out images"


_OF_BOXES = Words(
    metric="AP50",
    figure="AP50",
    counted="images",
    axis="labelled images",
    judged="regions",
    where="regions shown on held-out images",
)


def at_start(text: str) -> str:
    """A text at the start of a sentence.

    Example:
        >>> at_start("subset accuracy"), at_start("AP50")
        ('Subset accuracy', 'AP50')
    """
    return text[:1].upper() + text[1:]


def words_of(result: Mapping[str, Any]) -> Words:
    """The words for what a result is about."""
    return _OF_BOXES if key_of(result) == BoxCheckpoint.METRIC else Words(metric_of(result))


def key_of(result: Mapping[str, Any]) -> str:
    """What its curves are of, as ``full`` and checkpoints name it."""
    of_boxes = metric_of(result) == BoxCheckpoint.METRIC
    return BoxCheckpoint.METRIC if of_boxes else Checkpoint.METRIC


def ratio(labels: NDArray[Any], curve: F64, goal: float, budget: int) -> float | None:
    """Budget over the labels at which the running maximum of `curve` reaches `goal`, or None."""
    needed = labels_needed(labels, curve, goal)
    return None if needed is None else round(budget / needed, 3)


def labels_needed(labels: NDArray[Any], curve: F64, goal: float) -> float | None:
    """Labels at which the running maximum of a curve first reaches a goal, on straight lines.

    Args:
        labels: ``(R,)`` ascending.
        curve: ``(R,)`` accuracy there.
        goal: accuracy wanted.

    Returns:
        The first entry of `labels` when that reaches it already; None when nothing does.

    Example:
        >>> labels_needed(np.array([10, 20, 30]), np.array([0.2, 0.6, 0.5]), 0.5)
        17.5
    """
    best = np.maximum.accumulate(curve)
    reached = np.flatnonzero(best >= goal)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(labels[0])
    part = (goal - best[at - 1]) / (best[at] - best[at - 1])
    return float(labels[at - 1] + part * (labels[at] - labels[at - 1]))


def summarise(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Mean curves, ratios, quality and seconds of every rule.

    Args:
        runs: by rule, one a seed, in the same order of seeds; with `random` among the rules.

    Returns:
        JSON-able; the keys as in ``result.json``. A ratio is None when the rule never gets there.
    """
    table = {name: _table(found) for name, found in runs.items()}
    kind = type(runs[RANDOM][0].checkpoints[0])
    metric = kind.METRIC
    labels = table[RANDOM]["labels"][0]
    budget = int(labels[-1])
    goal = float(table[RANDOM][metric][:, -1].mean())
    plain = table[RANDOM].get("plain_accuracy")
    chosen = [name for name in table if name != RANDOM]
    result: dict[str, Any] = {
        "curves": {
            name: {"labels": labels.astype(int).tolist(), **_mean_and_std(values[metric])}
            for name, values in table.items()
        },
        f"mean_{metric}": {
            name: round(float(values[metric].mean()), 4) for name, values in table.items()
        },
        "labels_saved_ratio": {},
        "labels_saved_per_seed": {},
        "labels_saved_vs_plain": {},
        "labels_needed": {},
        "gain": {name: _gain(table[name][metric], table[RANDOM][metric]) for name in chosen},
        "quality": {
            name: {
                "labels": labels.astype(int).tolist(),
                **{key: _means(values[key]) for key in kind.QUALITY},
                **({F1: _means(values[F1])} if _is_known(values.get(F1)) else {}),
            }
            for name, values in table.items()
        },
        "forecast": {},
        "seconds": _seconds([table[name] for name in chosen] or [table[RANDOM]]),
    }
    if kind is Checkpoint:
        # Average precision is no share of images, so its error is not what a forecast builds on.
        result["forecast"] = {n: _forecast(table[n], len(runs[n][0].right)) for n in table}
    else:
        result |= _of_boxes(runs, table)
    for name in chosen:
        values = table[name][metric]
        mean = values.mean(axis=0)
        result["labels_saved_ratio"][name] = ratio(labels, mean, goal, budget)
        result["labels_saved_per_seed"][name] = [
            ratio(labels, curve, goal, budget) for curve in values
        ]
        result["labels_needed"][name] = labels_needed(labels, mean, goal)
    if plain is not None and not np.isnan(plain).any():
        final = float(plain[:, -1].mean())
        result["plain"] = {"labels": labels.astype(int).tolist(), **_mean_and_std(plain)}
        result["labels_saved_vs_plain"] = {
            name: ratio(labels, values[metric].mean(axis=0), final, budget)
            for name, values in table.items()
        }
    return result


def _table(runs: Sequence[Run]) -> dict[str, F64]:
    """``(seeds, rounds)`` of every measurement that is a number; NaN where there is none."""
    names = [k for k, v in vars(runs[0].checkpoints[0]).items() if not isinstance(v, Mapping)]
    return {
        name: np.array(
            [[getattr(point, name) for point in run.checkpoints] for run in runs], np.float64
        )
        for name in names
    }


def _is_known(values: F64 | None) -> bool:
    return values is not None and not np.isnan(values).all()


def _of_boxes(runs: Mapping[str, Sequence[Run]], table: Mapping[str, Any]) -> dict[str, Any]:
    """What only detectors have: objects drawn, and the average precision of each class."""
    found: dict[str, Any] = {"objects": {}, "ap50_per_class": {}}
    for name, of_rule in runs.items():
        found["objects"][name] = _means(table[name]["objects"])
        points = [[p for p in run.checkpoints if isinstance(p, BoxCheckpoint)] for run in of_rule]
        found["ap50_per_class"][name] = {
            label: _means(
                np.array([[p.ap50_per_class[label] for p in run] for run in points], np.float64)
            )
            for label in points[0][0].ap50_per_class
        }
    return found


def _mean_and_std(values: F64) -> dict[str, list[float]]:
    return {"mean": _rounded(values.mean(axis=0)), "std": _rounded(values.std(axis=0))}


def _means(values: F64) -> list[float | None]:
    """Mean over the seeds that have a value; None where no seed has one."""
    there = ~np.isnan(values)
    counts = there.sum(axis=0)
    sums = np.where(there, values, 0.0).sum(axis=0)
    return [round(float(s / n), 4) if n else None for s, n in zip(sums, counts, strict=True)]


def _rounded(values: F64) -> list[float]:
    return [round(float(value), 4) for value in values]


def _gain(ours: F64, random: F64) -> dict[str, float | None]:
    """Mean metric over all rounds above random's, paired by seed, and its standard error."""
    differences = (ours - random).mean(axis=1)
    count = len(differences)
    error = float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return {
        "mean": round(float(differences.mean()), 4),
        "standard_error": None if error is None else round(error, 4),
    }


def _forecast(values: Mapping[str, F64], held_out: int) -> dict[str, Any]:
    """What labels beyond the last round would bring, from the curve over all seeds."""
    accuracy = values["accuracy"].mean(axis=0)
    of_images = accuracy * (1.0 - accuracy) / held_out
    of_seeds = values["accuracy"].var(axis=0) / len(values["accuracy"])
    curve = fit_curve(values["labels"][0].astype(np.int64), accuracy, np.sqrt(of_images + of_seeds))
    return {
        "target": TARGET,
        "gain": asdict(curve.gain(MORE)),
        "labels_needed": asdict(curve.labels_needed(TARGET)),
    }


def outlook(result: Mapping[str, Any]) -> str:
    """What more labels would bring, of the rule that the headline is about; empty if not known.

    Args:
        result: as `summarise` gives it.
    """
    if not result["forecast"]:
        return ""
    needed: Mapping[str, float | None] = result["labels_needed"]
    said = result["forecast"][_subject(needed) if needed else RANDOM]
    sentences = [said["gain"]["sentence"], said["labels_needed"]["sentence"]]
    return " ".join(dict.fromkeys(sentences))  # one reason why neither is known is said once


def _seconds(tables: Sequence[Mapping[str, F64]]) -> dict[str, list[float]]:
    """Median over rules and seeds, a number a round."""
    return {
        key: _rounded(np.median(np.concatenate([t[f"{key}_s"] for t in tables]), axis=0))
        for key in SECONDS
    }


def metric_of(result: Mapping[str, Any]) -> str:
    """What its curves are of."""
    return str(result.get("metric", "accuracy"))


def headline(result: Mapping[str, Any]) -> str:
    """One plain sentence on what choosing saved, or that it saved nothing.

    About `auto` where it was compared, which is what a project uses by default, else about the
    rule with the largest ratio.

    Args:
        result: as `summarise` gives it, with ``seeds``, and ``metric`` where that is not accuracy.
    """
    needed: Mapping[str, float | None] = result["labels_needed"]
    if not needed:
        return (
            "Only random order was replayed, so there is nothing to compare; name a rule with "
            "--acquisition."
        )
    name = _subject(needed)
    random = result["curves"][RANDOM]
    budget, goal = random["labels"][-1], random["mean"][-1]
    count = needed[name]
    final = result["curves"][name]["mean"][-1]
    words = words_of(result)
    what = f"{'an' if words.metric[0] in 'aeiouA' else 'a'} {words.metric}"
    if goal <= 0.0:
        said = (
            f"{budget} random {words.counted} gave {what} of 0, {budget} chosen by {name} "
            f"{final:.3f}; what choosing saves takes more rounds to see."
        )
    elif len(random["labels"]) == 1:
        said = (
            f"{budget} {words.counted} chosen by {name} gave {what} of {final:.3f}, {budget} "
            f"random ones {goal:.3f}; what choosing saves takes more than one round to see."
        )
    elif count is None:
        said = (
            f"Choosing saved nothing here: {budget} {words.counted} chosen by {name} gave {what} "
            f"of {final:.3f}, {budget} random ones {goal:.3f}."
        )
    elif count > NEARLY_ALL * budget:
        said = (
            f"Choosing saved next to nothing here: {name} needed {int(np.ceil(count))} "
            f"{words.counted} for what {budget} random ones gave, {what} of {goal:.3f}."
        )
    else:
        said = (
            f"With {int(np.ceil(count))} {words.counted} chosen by {name} you would have had what "
            f"{budget} random ones gave: {what} of {goal:.3f}."
        )
    return said


def remarks(result: Mapping[str, Any]) -> str:
    """What a reader must know beside the headline; empty when it stands alone.

    Args:
        result: as `summarise` gives it, with ``seeds``.
    """
    needed: Mapping[str, float | None] = result["labels_needed"]
    if not needed:
        return ""
    name = _subject(needed)
    caution = _caution(result["gain"][name], int(result["seeds"]))
    return " ".join(filter(None, [_better(needed, name), caution]))


def _subject(needed: Mapping[str, float | None]) -> str:
    """The rule that the headline is about."""
    return AUTO if AUTO in needed else min(needed, key=lambda name: needed[name] or np.inf)


def _caution(gain: Mapping[str, float | None], seeds: int) -> str:
    error = gain["standard_error"]
    if seeds < 2 or error is None:
        return "This is one seed, which may be luck; repeat with --seeds 5."
    if abs(gain["mean"] or 0.0) < 2.0 * error:
        return (
            f"Over these {seeds} seeds the difference between the two curves is no larger than "
            "chance would make it."
        )
    return ""


def _better(needed: Mapping[str, float | None], name: str) -> str:
    ours = needed[name]
    reached = {n: v for n, v in needed.items() if v is not None}
    best = min(reached, key=lambda n: reached[n], default=name)
    if best == name or (ours is not None and reached[best] > 0.97 * ours):
        return ""
    return f"{best} would have done with {int(np.ceil(reached[best]))}."


def reliability(runs: Sequence[Run], *, bins: int = 10) -> list[dict[str, float]]:
    """Stated probability against the share that was right, after the last round.

    Images of all seeds, or regions, are sorted by the stated probability and cut into bins of equal
    mass. The interval (95 %) counts an image once, however many seeds judged it, and of regions as
    many as one seed shows on average.

    Args:
        runs: of one rule.
        bins: at most.

    Returns:
        For each bin ``stated``, ``right``, ``low``, ``high``, ``lowest`` and ``highest`` (stated),
        ascending; nothing where nothing was stated.
    """
    stated = np.concatenate([np.array(run.p_right) for run in runs])
    right = np.concatenate([np.array(run.right, bool) for run in runs])
    order = np.argsort(stated, kind="stable")
    found: list[dict[str, float]] = []
    if not len(order):
        return found
    for part in np.array_split(order, min(bins, max(1, len(order) // 5))):
        share = float(right[part].mean())
        images = max(1, round(len(part) / len(runs)))
        low, high = proportion_interval(round(share * images), images)
        found.append(
            {
                "stated": round(float(stated[part].mean()), 4),
                "right": round(share, 4),
                "low": round(min(low, share), 4),
                "high": round(max(high, share), 4),
                "lowest": round(float(stated[part[0]]), 4),
                "highest": round(float(stated[part[-1]]), 4),
            }
        )
    return found
