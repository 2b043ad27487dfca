from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.tiny_sets import blobs

from model.simulation.replay import Checkpoint, Plan, Run, replay
from model.simulation.summary import (
    headline,
    labels_needed,
    outlook,
    ratio,
    reliability,
    remarks,
    summarise,
)

LABELS = np.array([10, 20, 30, 40])


@pytest.mark.parametrize(
    ("curve", "goal", "expected"),
    [
        ([0.2, 0.4, 0.6, 0.8], 0.8, 1.0),
        ([0.2, 0.4, 0.6, 0.8], 0.6, 40 / 30),
        ([0.2, 0.4, 0.6, 0.8], 0.5, 40 / 25),
        ([0.2, 0.7, 0.6, 0.8], 0.65, 40 / 19),  # a dip afterwards changes nothing
        ([0.5, 0.6, 0.7, 0.8], 0.3, 4.0),  # reached in the first round: not extrapolated
        ([0.2, 0.4, 0.6, 0.7], 0.8, None),
    ],
)
def test_the_ratio_is_budget_over_labels_needed(
    curve: list[float], goal: float, expected: float | None
) -> None:
    found = ratio(LABELS, np.array(curve), goal, 40)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_labels_needed_agree_with_a_fine_search() -> None:
    rng = np.random.default_rng(0)
    fine = np.arange(10, 40.001, 0.01)
    for _ in range(50):
        curve = rng.random(4)
        goal = rng.random()
        best = np.maximum.accumulate(curve)
        reached = fine[np.interp(fine, LABELS, best) >= goal - 1e-9]
        needed = labels_needed(LABELS, curve, goal)
        if not len(reached):
            assert needed is None
        else:
            assert needed == pytest.approx(reached[0], abs=0.02)


def run(name: str, seed: int, accuracy: list[float], **values: float | None) -> Run:
    points = tuple(
        Checkpoint(
            labels=int(count), accuracy=value, ece=0.1, brier=0.3, augrc=0.05, score_pool_s=0.1,
            acquire_s=0.2, fit_s=0.3, **{"error_auroc": 0.8, "plain_accuracy": None, **values},
        )
        for count, value in zip(LABELS, accuracy, strict=True)
    )  # fmt: skip
    return Run(name, seed, points, (1, 2), (True, False), (0.9, 0.4), (True, False))


def two_seeds(name: str, *accuracy: list[float], **values: float | None) -> list[Run]:
    return [run(name, seed, curve, **values) for seed, curve in enumerate(accuracy)]


RANDOM = two_seeds("random", [0.2, 0.4, 0.5, 0.6], [0.2, 0.4, 0.5, 0.6], plain_accuracy=0.4)
GOOD = two_seeds("auto", [0.4, 0.6, 0.7, 0.8], [0.3, 0.55, 0.65, 0.7])
BAD = two_seeds("margin", [0.1, 0.2, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4])


def summary(**runs: list[Run]) -> dict:
    found = summarise({"random": RANDOM, **runs})
    return {**found, "seeds": len(RANDOM)}


def test_the_summary_has_the_fields_of_the_result() -> None:
    found = summary(auto=GOOD, margin=BAD)
    assert found["curves"]["auto"] == {
        "labels": [10, 20, 30, 40],
        "mean": [0.35, 0.575, 0.675, 0.75],
        "std": [0.05, 0.025, 0.025, 0.05],
    }
    # 0.6 lies a quarter of the way from 0.575 to 0.675
    assert found["labels_needed"]["auto"] == pytest.approx(22.5)
    assert found["labels_saved_ratio"] == {
        "auto": pytest.approx(40 / 22.5, abs=1e-3),
        "margin": None,
    }
    assert found["labels_saved_per_seed"]["auto"] == [2.0, pytest.approx(40 / 25, abs=1e-3)]
    # the plain head ends at 0.4, which random with our head has at 20 labels
    assert found["labels_saved_vs_plain"]["random"] == 2.0
    assert found["plain"]["mean"] == [0.4] * 4
    assert found["quality"]["auto"]["error_auroc"] == [0.8] * 4
    assert found["quality"]["auto"]["labels"] == [10, 20, 30, 40]
    assert found["seconds"] == {"fit": [0.3] * 4, "acquire": [0.2] * 4, "score_pool": [0.1] * 4}
    assert found["gain"]["auto"]["mean"] == pytest.approx(0.1625)
    json.dumps(found, allow_nan=False)


def test_what_no_seed_could_measure_is_null_and_the_rest_is_the_mean_of_those_that_could() -> None:
    never = two_seeds("auto", *[[0.5] * 4] * 2, error_auroc=None)
    assert summary(auto=never)["quality"]["auto"]["error_auroc"] == [None] * 4
    once = [never[0], run("auto", 1, [0.5] * 4, error_auroc=0.6)]
    assert summary(auto=once)["quality"]["auto"]["error_auroc"] == [0.6] * 4


def test_without_a_plain_head_nothing_is_said_of_it() -> None:
    runs = [
        replace(one, checkpoints=tuple(replace(p, plain_accuracy=None) for p in one.checkpoints))
        for one in RANDOM
    ]
    found = summarise({"random": runs, "auto": GOOD})
    assert "plain" not in found
    assert found["labels_saved_vs_plain"] == {}


def test_the_headline_says_what_was_saved_in_labels() -> None:
    said = headline(summary(auto=GOOD))
    assert said == (
        "With 23 labels chosen by auto you would have had what 40 random ones gave: "
        "an accuracy of 0.600."
    )
    assert remarks(summary(auto=GOOD)) == ""


def test_the_headline_is_about_auto_and_names_a_rule_that_did_better() -> None:
    better = two_seeds("margin", [0.5, 0.7, 0.8, 0.9], [0.5, 0.7, 0.8, 0.9])
    found = summary(margin=better, auto=GOOD)
    assert headline(found).startswith("With 23 labels chosen by auto")
    assert remarks(found) == "margin would have done with 15."


def test_the_headline_admits_that_nothing_was_saved() -> None:
    said = headline(summary(margin=BAD))
    assert said.startswith("Choosing saved nothing here: 40 labels chosen by margin gave an")
    assert "0.450" in said
    assert "0.600" in said
    same = two_seeds("auto", *[[0.2, 0.4, 0.5, 0.601]] * 2)
    assert headline(summary(auto=same)).startswith("Choosing saved next to nothing here: auto")


def test_the_headline_warns_of_chance() -> None:
    mixed = two_seeds("auto", [0.6, 0.8, 0.9, 0.9], [0.1, 0.2, 0.3, 0.5])
    assert "no larger than chance" in remarks(summary(auto=mixed))
    alone = summarise({"random": RANDOM[:1], "auto": GOOD[:1]}) | {"seeds": 1}
    assert "one seed" in remarks(alone)
    only = summarise({"random": RANDOM}) | {"seeds": 2}
    assert "Only random order" in headline(only)
    assert remarks(only) == ""


def test_reliability_bins_agree_with_counting() -> None:
    rng = np.random.default_rng(0)
    stated = rng.random(1000)
    right = rng.random(1000) < stated
    one = Run("a", 0, (), (), (), tuple(stated), tuple(right))
    bins = reliability([one])
    assert len(bins) == 10
    edges = np.sort(stated)
    for number, part in enumerate(bins):
        low, high = edges[100 * number], edges[100 * number + 99]
        inside = (stated >= low) & (stated <= high)
        assert part["right"] == pytest.approx(right[inside].mean(), abs=1e-4)
        assert part["stated"] == pytest.approx(stated[inside].mean(), abs=1e-4)
        assert 0 <= part["low"] <= part["right"] <= part["high"] <= 1
    covered = sum(part["low"] <= part["stated"] <= part["high"] for part in bins)
    assert covered >= 8  # calibrated by construction


def test_more_seeds_on_the_same_images_do_not_narrow_the_interval() -> None:
    one = Run("a", 0, (), (), (), (0.5,) * 40, (True, False) * 20)
    wide, again = reliability([one], bins=1)[0], reliability([one] * 5, bins=1)[0]
    assert (again["low"], again["high"]) == (wide["low"], wide["high"])


def test_a_real_replay_is_summed_up() -> None:
    plan = Plan(initial=0, batch=8, rounds=4)
    runs = {n: [replay(blobs(), plan, n, s) for s in range(2)] for n in ("random", "auto")}
    found = summarise(runs) | {"seeds": 2}
    json.dumps(found, allow_nan=False)
    assert headline(found)


def test_the_outlook_is_about_the_rule_of_the_headline() -> None:
    found = summary(auto=GOOD)
    assert found["forecast"]["auto"] != found["forecast"]["random"]
    for part in ("gain", "labels_needed"):
        assert found["forecast"]["auto"][part]["sentence"] in outlook(found)
    json.dumps(found["forecast"], allow_nan=False)


def test_one_round_is_too_little_for_a_headline_and_one_reason_is_said_once() -> None:
    def first(runs: list[Run]) -> list[Run]:
        return [replace(r, checkpoints=r.checkpoints[:1]) for r in runs]

    found = summarise({"random": first(RANDOM), "auto": first(GOOD)}) | {"seeds": 2}
    assert headline(found) == (
        "10 labels chosen by auto gave an accuracy of 0.350, 10 random ones 0.200; what choosing "
        "saves takes more than one round to see."
    )
    assert outlook(found).count("so far: 1") == 1
