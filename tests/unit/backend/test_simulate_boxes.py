"""`doubtless simulate` of sets with boxes, with a pyramid that needs no network."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.tiny_boxes import TINY, TinyPyramid, box_items, write_packed

import backend.simulate.run
from backend.cli import main
from backend.settings import Settings
from backend.simulate.source import open_source
from model.backbones.pyramid import PYRAMIDS
from model.detection.views import VIEWS
from model.errors import ModelError
from model.simulation.detection import DetectionSet

SMALL = ("--batch", "4", "--rounds", "2", "--seeds", "1", "--jobs", "1")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyPyramid:
    pyramid = TinyPyramid()
    monkeypatch.setitem(PYRAMIDS, TINY.name, TINY)
    monkeypatch.setattr(backend.simulate.run, "load_pyramid", lambda *a, **k: pyramid)
    quick = partial(backend.simulate.run.Options, training_steps=2)
    monkeypatch.setattr(backend.simulate.run, "Options", quick)
    monkeypatch.setenv("DOUBTLESS_PYRAMID", TINY.name)
    monkeypatch.setenv("DOUBTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return pyramid


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["simulate", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def write_export(folder: Path, count: int) -> Path:
    """The same scenes as Label Studio exports them, one choice beside the boxes."""
    (folder / "images").mkdir()
    tasks: list[dict[str, Any]] = []
    for number, item in enumerate(box_items(count)):
        (folder / "images" / item.name).write_bytes(item.data)
        regions = [
            {
                "id": f"{number}-{n}", "type": "rectanglelabels", "from_name": "box",
                "to_name": "image", "original_width": 96, "original_height": 96,
                "value": {
                    "x": 100 * b.x0, "y": 100 * b.y0, "width": 100 * (b.x1 - b.x0),
                    "height": 100 * (b.y1 - b.y0), "rectanglelabels": [b.label],
                },
            }
            for n, b in enumerate(item.boxes or ())
        ]  # fmt: skip
        choice = {"type": "choices", "from_name": "kind", "value": {"choices": ["ab"[number % 2]]}}
        tasks.append(
            {
                "id": number,
                "data": {"image": item.name},
                "annotations": [{"id": number, "result": [*regions, choice]}],
            }
        )
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def test_a_set_with_boxes_is_replayed_to_a_result_and_a_report(
    tiny: TinyPyramid, tmp_path: Path
) -> None:
    write_packed(tmp_path / "cells", 25, broken=24)
    arguments = ["--data", "cells", "--out", "out", *SMALL, "--task", "detection", "--full"]
    done = run(*arguments)
    assert "left out: 024.png" in done.stderr
    assert "seed 0 auto             AP50 0." in done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (found["task"], found["metric"], found["data"]) == ("detection", "ap50", "cells")
    assert (found["backbone"], found["uncertainty"]) == ("tiny", "softmax")
    assert found["images"] == {"pool": 16, "test": 8, "classes": 2, "split": "the set's own"}
    assert set(found["curves"]) == {"random", "auto"}
    for curve in found["curves"].values():
        assert curve["labels"] == [4, 8]
        assert len(curve["mean"]) == len(curve["std"]) == 2
    assert set(found["labels_saved_ratio"]) == {"auto"}
    assert set(found["quality"]["auto"]) == {
        "labels", "ece", "error_auroc", "missed_recall", "map",
    }  # fmt: skip
    assert set(found["full"]) == {"ap50", "map"}
    assert set(found["seconds"]) == {"features", "fit", "acquire", "score_pool"}
    assert set(found["ap50_per_class"]["random"]) == {"blue", "red"}
    points = json.loads((tmp_path / "out" / "runs" / "auto-0.json").read_text())["checkpoints"]
    assert set(points[0]["ap50_per_class"]) == {"blue", "red"}
    assert "AP50" in (tmp_path / "out" / "plot.svg").read_text()
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") >= 8
    assert any(f"<figcaption>{n} {c}" in report for n in (1, 2) for c in ("blue", "red"))
    assert list((tmp_path / "out").glob(".set-*")) == []
    assert tiny.seen == 24 * (1 + VIEWS)

    # The same call goes on: here nothing is left to do, whatever it would cost.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}
    again = run(*arguments, "--json")
    assert json.loads(again.stdout)["curves"] == found["curves"]
    assert tiny.seen == 24 * (1 + VIEWS)
    kept = {path: path.stat().st_mtime_ns for path in times if path.suffix == ".json"}
    assert kept.items() <= times.items()


def test_an_export_with_boxes_and_choices_is_taken_for_what_is_asked(
    tiny: TinyPyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_export(tmp_path, 12)
    for task, expected in (
        ("auto", "detection"), ("detection", "detection"), ("classification", "classification"),
    ):  # fmt: skip
        source = open_source(str(path), Settings(), images=tmp_path / "images", task=task)
        assert source.task == expected
    seen: list[DetectionSet] = []

    def stop(jobs: object, plan: object, *, data: Path, **named: object) -> None:
        seen.append(DetectionSet.load(data))
        raise ModelError("enough")

    monkeypatch.setattr(backend.simulate.run, "play_all", stop)
    done = run(
        "--data", "export.json", "--images", "images", "--out", "out", "--batch", "2", "--json",
        code=1,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"error": "enough"}
    assert seen[0].classes == ("blue", "red")
    assert len(seen[0].pool) + int(seen[0].test.sum()) == 12


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--task", "classification"], "cells is a set for detection, not classification"),
        (["--task", "multilabel"], "its images have boxes; leave --task out, or say --task det"),
        (["--acquisition", "auto,margin"], "images with boxes 'margin'"),
        (["--acquisition", "wort"], "Did you mean 'worth'"),
        (["--uncertainty", "evidential"], "unknown uncertainty estimator of boxes 'evidential'"),
        (["--backbone", "tinny"], "Did you mean 'tiny'"),
        (["--initial", "6"], "fewer than the initial 6 and one batch of 4"),
        (["--seeds", "0"], "seeds is 0"),
    ],
)
def test_bad_input_is_one_sentence_and_costs_no_maps(
    tiny: TinyPyramid, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    write_packed(tmp_path / "cells", 12)
    done = run("--data", "cells", "--out", "out", *SMALL, *arguments, "--json", code=1)
    assert reason in json.loads(done.stdout)["error"]
    assert tiny.seen == 0
    assert not (tmp_path / "out" / "result.json").exists()
