"""Replays of sets with boxes: tiny scenes, a pyramid of fixed filters, few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_boxes import TINY, TinyPyramid, box_items, scenes
from test_simulation_report import read

import model.simulation.detection
from model.acquisition import select
from model.backbones.pyramid import PYRAMIDS
from model.datasets import Item
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.engine import BoxConfig, fit
from model.detection.maps import MapStore
from model.detection.outcomes import judge
from model.errors import DataError, MissingFeaturesError, UnknownNameError
from model.features import FeatureStore
from model.simulation.data import list_images
from model.simulation.detection import DetectionSet, compute_maps
from model.simulation.provenance import machine
from model.simulation.replay import BoxCheckpoint, Plan, Run, replay, with_all_labels
from model.simulation.report import Shown, plot_file, render
from model.simulation.summary import headline, outlook, remarks, summarise
from model.simulation.worker import load


def plan(**changes: float | str | None) -> Plan:
    given = {"initial": 0, "batch": 4, "rounds": 2, "uncertainty": "softmax", "training_steps": 1}
    return Plan(**{**given, **changes})


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PYRAMIDS, TINY.name, TINY)
        yield


@pytest.fixture(scope="module")
def data(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> DetectionSet:
    return scenes(tmp_path_factory.mktemp("scenes"), 24)


def made_up(name: str, seed: int, blue: float, red: float) -> Run:
    """A run of two rounds without any training; AP50 doubles in the second one."""
    points = tuple(
        BoxCheckpoint(
            labels=4 * n, ap50=n * (blue + red) / 2, map=n * (blue + red) / 4,
            ap50_per_class={"blue": n * blue, "red": n * red}, ece=0.1 * seed, error_auroc=None,
            missed_recall=0.5, regions=6, missed_objects=3, objects=7 * n + seed,
            score_pool_s=1.0, acquire_s=2.0, fit_s=3.0,
        )
        for n in (1, 2)
    )  # fmt: skip
    stated, right = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4), (True, True, True, False, True, False)
    return Run(name, seed, points, (0, 1, 3, 4, 6, 7, 9, 10), (False,) * 8, stated, right)


@pytest.fixture
def runs() -> dict[str, list[Run]]:
    return {
        "random": [made_up("random", seed, 0.2, 0.3) for seed in range(2)],
        "auto": [made_up("auto", 0, 0.3, 0.4), made_up("auto", 1, 0.3, 0.5)],
    }


@pytest.mark.parametrize("name", sorted(BOX_ACQUISITIONS))
def test_every_rule_asks_for_distinct_images_of_the_pool(data: DetectionSet, name: str) -> None:
    told: list[BoxCheckpoint] = []
    run = replay(data, plan(initial=3), name, 0, progress=told.append)
    assert [p.labels for p in run.checkpoints] == [3, 7, 11]
    assert tuple(told) == run.checkpoints
    assert len(set(run.asked)) == len(run.asked) == 11
    assert set(run.asked) <= set(data.pool.tolist())
    last = run.checkpoints[-1]
    assert isinstance(last, BoxCheckpoint)
    assert last.objects == sum(len(data.boxes[n]) for n in run.asked)
    assert last.regions == len(run.p_right) == len(run.right)
    assert 0 <= last.map <= last.ap50 <= 1
    assert set(last.ap50_per_class) == {"blue", "red"}
    assert Run.from_json(json.loads(json.dumps(run.to_json(), allow_nan=False))) == run


def test_rules_of_one_seed_start_from_the_same_images_and_fit(data: DetectionSet) -> None:
    found = [replay(data, plan(initial=6, rounds=1), n, 3) for n in ("random", "auto", "entropy")]
    assert len({run.asked[:6] for run in found}) == 1
    assert all(all(run.is_random[:6]) for run in found)
    assert len({run.checkpoints[0].ap50 for run in found}) == 1
    assert replay(data, plan(initial=6, rounds=1), "auto", 4).asked[:6] != found[0].asked[:6]


def test_without_initial_images_rules_begin_as_a_new_project_does(data: DetectionSet) -> None:
    whole = plan(rounds=1, random_share=0.0)
    auto, entropy = (replay(data, whole, name, 1) for name in ("auto", "entropy"))
    picked = select("auto", pool=data.features[data.pool], n=4, seed=1000)
    assert auto.asked == entropy.asked == tuple(data.pool[picked.rows].tolist())
    random = replay(data, whole, "random", 1)
    assert all(random.is_random)
    assert random.asked != auto.asked


def test_the_last_round_is_what_the_engine_gives_on_these_images(
    data: DetectionSet,
) -> None:
    run = replay(data, plan(rounds=1, batch=8, training_steps=40), "auto", 1)
    asked = np.array(run.asked)
    config = BoxConfig(steps=40, seed=1)
    bundle = fit(data.take(asked, np.array(run.is_random)), data.classes, config=config)
    test = data.take(np.flatnonzero(data.test))
    found = judge([bundle.look(maps)[0] for maps in test.maps], test, data.classes)
    last = run.checkpoints[-1]
    assert isinstance(last, BoxCheckpoint)
    assert last.ap50 == found["ap50"] > 0
    assert (last.map, last.ap50_per_class) == (found["map"], found["ap50_per_class"])
    assert (last.ece, last.error_auroc) == (found["region_ece"], found["region_error_auroc"])
    assert last.missed_recall == found["missed_recall"]


def test_boxes_of_the_held_out_images_are_never_learnt(data: DetectionSet) -> None:
    other = tuple(
        replace(drawn, labels=1 - drawn.labels) if held else drawn
        for drawn, held in zip(data.boxes, data.test, strict=True)
    )
    swapped = replace(data, boxes=other)
    assert replay(swapped, plan(), "auto", 0).asked == replay(data, plan(), "auto", 0).asked


def test_what_rules_fit_alike_is_fitted_once_and_changes_nothing(
    data: DetectionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, DetectionSet)
    fits: list[int] = []
    real = model.simulation.detection.fit

    def counted(images: object, *given: object, **named: object) -> object:
        fits.append(len(images))
        return real(images, *given, **named)

    monkeypatch.setattr(model.simulation.detection, "fit", counted)
    once = plan(initial=5, rounds=1, training_steps=5)
    shared = [replay(again, once, name, 0) for name in ("random", "auto", "worth")]
    assert fits == [5, 9, 9, 9]
    for run in shared:
        alone = replay(data, once, run.acquisition, 0)
        assert (run.asked, run.p_right, run.right) == (alone.asked, alone.p_right, alone.right)
        assert [p.ap50 for p in run.checkpoints] == [p.ap50 for p in alone.checkpoints]
        assert run.checkpoints[0].fit_s == shared[0].checkpoints[0].fit_s > 0


def test_a_set_comes_back_from_disk(data: DetectionSet, tmp_path: Path) -> None:
    data.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, DetectionSet)
    for name in ("features", "test"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    for name in ("name", "classes", "keys", "maps", "code"):
        assert getattr(again, name) == getattr(data, name)
    for mine, theirs in zip(data.boxes, again.boxes, strict=True):
        np.testing.assert_equal(vars(mine), vars(theirs))
    assert again.take(again.pool).maps[0].size == (96, 96)


def test_rounds_without_an_object_count_as_nothing_and_the_replay_goes_on(
    tiny: None, tmp_path: Path
) -> None:
    data = scenes(tmp_path, 24, empty_first=12)
    drawn = np.array([len(data.boxes[n]) for n in data.pool])
    seed = next(
        s
        for s in range(99)
        if not drawn[np.random.default_rng(s).permutation(len(drawn))[:2]].any()
    )
    run = replay(data, plan(initial=2, batch=3, rounds=3, random_share=1.0), "auto", seed)
    points = [p for p in run.checkpoints if isinstance(p, BoxCheckpoint)]
    assert len(points) == 4
    assert (points[0].ap50, points[0].map, points[0].objects, points[0].regions) == (0, 0, 0, 0)
    assert set(points[0].ap50_per_class.values()) == {0.0}
    assert (points[0].ece, points[0].error_auroc, points[0].missed_recall) == (None, None, None)
    assert points[0].missed_objects == sum(len(data.boxes[n]) for n in np.flatnonzero(data.test))
    assert points[-1].objects > 0
    assert points[-1].ece is None or points[-1].ece >= 0
    nothing = summarise({"random": [run], "auto": [run]}) | {"seeds": 1, "metric": "ap50"}
    json.dumps(nothing, allow_nan=False)
    assert headline(nothing)


def test_all_labels_give_a_good_detector(data: DetectionSet) -> None:
    found = with_all_labels(data, "softmax", training_steps=80)
    assert set(found) == {"ap50", "map"}
    assert 0.4 < found["ap50"] <= 1
    assert 0 < found["map"] < found["ap50"]


def test_maps_are_computed_once_and_in_one_pass(tiny: None, tmp_path: Path) -> None:
    pyramid = TinyPyramid()
    maps, features = MapStore(tmp_path / "maps"), FeatureStore(tmp_path / "features")
    told: list[tuple[int, int]] = []

    def images() -> Iterator[Item]:
        yield from box_items(6)
        yield Item("broken.png", b"no image", None, "", None, ())

    keys = list_images(images).keys

    def compute() -> dict[str, str]:
        return compute_maps(
            images, keys, pyramid="tiny", maps=maps, features=features,
            load=lambda name: pyramid, progress=lambda *at: told.append(at),
        )  # fmt: skip

    assert set(compute()) == {keys[-1]}
    assert pyramid.seen == 6
    assert (told[0], told[-1]) == ((0, 7), (7, 7))
    assert set(compute()) == {keys[-1]}
    assert pyramid.seen == 6
    (tmp_path / "maps" / TINY.hash / keys[0][:2] / f"{keys[0]}.safetensors").unlink()
    compute()
    assert pyramid.seen == 7


@pytest.mark.parametrize(
    ("changes", "rule", "reason"),
    [
        ({"uncertainty": "sofmax"}, "auto", "Did you mean 'softmax'"),
        ({"uncertainty": "evidential"}, "auto", "Known: mc-dropout, softmax"),
        ({"initial": 13}, "auto", "16 images to learn from .8 are held out., fewer than"),
        ({}, "margin", "'margin'"),
    ],
)
def test_what_cannot_be_played_is_refused(
    data: DetectionSet, changes: dict[str, float | str], rule: str, reason: str
) -> None:
    with pytest.raises((UnknownNameError, DataError), match=reason):  # noqa: PT012
        plan(**changes).check(data)
        replay(data, plan(**changes), rule, 0)


def result(data: DetectionSet, runs: dict[str, list[Run]]) -> dict[str, object]:
    found = summarise(runs)
    return {
        "task": "detection", "metric": "ap50", "data": "scenes", "backbone": "tiny", "seeds": 2,
        "uncertainty": "softmax", "initial": 0, "batch": 4, "random_share": 0.2, "commit": "",
        "when": "now", "machine": machine(), "left_out": [], "full": {"ap50": 0.9, "map": 0.4},
        "images": {"pool": 16, "test": 8, "classes": 2, "split": data.split}, **found,
        "seconds": {"features": 1.0, **found["seconds"]},
    }  # fmt: skip


def test_the_summary_is_of_ap50_and_of_regions(
    data: DetectionSet, runs: dict[str, list[Run]]
) -> None:
    found = summarise(runs)
    assert found["curves"]["auto"] == {
        "labels": [4, 8], "mean": [0.375, 0.75], "std": [0.025, 0.05],
    }  # fmt: skip
    assert found["mean_ap50"] == {"random": 0.375, "auto": 0.5625}
    # 0.5 is a third of the way from 0.375 to 0.75
    assert found["labels_needed"]["auto"] == pytest.approx(4 + 4 / 3)
    assert found["labels_saved_ratio"] == {"auto": pytest.approx(1.5)}
    assert set(found["quality"]["auto"]) == {
        "labels", "ece", "error_auroc", "missed_recall", "map",
    }  # fmt: skip
    assert found["quality"]["auto"]["ece"] == [0.05, 0.05]
    assert found["quality"]["auto"]["error_auroc"] == [None, None]
    assert found["ap50_per_class"]["auto"] == {"blue": [0.3, 0.6], "red": [0.45, 0.9]}
    assert found["objects"] == {"random": [7.5, 14.5], "auto": [7.5, 14.5]}
    assert (found["labels_saved_vs_plain"], found["forecast"]) == ({}, {})
    assert "mean_accuracy" not in found
    whole = result(data, runs)
    assert outlook(whole) == ""
    assert headline(whole) == (
        "With 6 images chosen by auto you would have had what 8 random ones gave: an AP50 of 0.500."
    )
    assert remarks(whole) == ""


def test_the_report_speaks_of_ap50_images_and_regions(
    data: DetectionSet, runs: dict[str, list[Run]]
) -> None:
    whole = result(data, runs)
    first = [Shown("3 RBC, 1 WBC", "a.png", "", ("RBC", "WBC")), Shown("(none)", "b.png", "", ())]
    page = render(whole, runs, {"auto": first})
    reader = read(page)
    for part in (
        "AP50 for labelled images", "AP50 on held-out images", "labelled images", "Images saved",
        "images needed", "final AP50", "all labels: 0.900", "regions shown on held-out images",
        "missed found", "mAP", "AP50 of each class", "objects drawn",
        "from no images, 4 images a round", "3 RBC, 1 WBC", "2 of 2 classes",
    ):  # fmt: skip
        assert part in reader.text, part
    assert 'aria-label="AP50 after each round"' in page
    assert "accuracy" not in reader.text.lower()
    assert "labels a round" not in reader.text
    assert "AP50" in plot_file(whole)


def test_a_report_of_detectors_that_show_nothing_says_so(
    data: DetectionSet, runs: dict[str, list[Run]]
) -> None:
    empty = {n: [replace(r, p_right=(), right=()) for r in found] for n, found in runs.items()}
    reader = read(render(result(data, empty), empty, {}))
    assert "There are no regions shown on held-out images." in reader.text


def test_a_set_whose_maps_are_gone_is_refused_before_it_is_played(
    data: DetectionSet, tmp_path: Path
) -> None:
    gone = MapStore(tmp_path / "maps")
    with pytest.raises(MissingFeaturesError, match=r"24 of 24 images have no maps.*compute_maps"):
        data.with_maps(gone, FeatureStore(tmp_path / "features"), data.code)
