"""`doubtless simulate`, run as a terminal runs it, with a backbone that needs no network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.tiny_sets import ColourBackbone, blobs, colour_spec, items, write_folders

import backend.simulate.run
import backend.simulate.tasks
from backend.cli import main
from model.acquisition import ACQUISITIONS
from model.backbones import BACKBONES
from model.backbones.pyramid import PYRAMIDS
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.passes import BOX_ESTIMATORS
from model.simulation.data import LabelledSet
from model.simulation.store import RunStore
from model.uncertainty import ESTIMATORS
from model.uncertainty.softmax import AveragedHeads

ROOT = Path(__file__).parents[3]
SMALL = ("--batch", "6", "--rounds", "3", "--seeds", "2", "--jobs", "2")


@pytest.fixture
def colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ColourBackbone:
    backbone = ColourBackbone()
    monkeypatch.setitem(BACKBONES, "colour", colour_spec("colour"))
    monkeypatch.setattr(backend.simulate.run, "load_backbone", lambda *a, **k: backbone)
    monkeypatch.setattr(backend.simulate.tasks, "PLAIN_BACKBONE", "colour")
    monkeypatch.setenv("DOUBTLESS_BACKBONE", "colour")
    monkeypatch.setenv("DOUBTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return backbone


class OnePass(AveragedHeads):
    """An estimator that cannot disagree with itself."""

    passes = 1


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["simulate", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def refused(*arguments: str) -> str:
    return str(json.loads(run(*arguments, "--json", code=1).stdout)["error"])


def test_a_folder_is_replayed_to_a_result_a_plot_and_a_report(
    colour: ColourBackbone, tmp_path: Path
) -> None:
    data = write_folders(tmp_path / "colours", 90)
    done = run(
        "--data", str(data), "--out", "out", *SMALL, "--acquisition", "auto,margin", "--full"
    )
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (found["task"], found["metric"], found["data"]) == (
        "classification", "accuracy", "colours",
    )  # fmt: skip
    assert (found["backbone"], found["seeds"]) == ("colour", 2)
    assert set(found["curves"]) == {"random", "auto", "margin"}
    for curve in found["curves"].values():
        assert curve["labels"] == [6, 12, 18]
        assert len(curve["mean"]) == len(curve["std"]) == 3
    assert set(found["labels_saved_ratio"]) == {"auto", "margin"}
    assert set(found["labels_saved_vs_plain"]) == {"random", "auto", "margin"}
    assert set(found["quality"]["auto"]) == {"labels", "ece", "error_auroc", "augrc", "brier"}
    assert set(found["seconds"]) == {"features", "fit", "acquire", "score_pool"}
    assert 0.5 < found["full"]["accuracy"] <= 1
    assert found["images"] == {
        "pool": 63, "test": 27, "classes": 3, "split": "30% of each class, drawn here",
    }  # fmt: skip
    assert found["machine"]["cores"]
    assert (tmp_path / "out" / "plot.svg").read_text().startswith("<svg")
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") >= 3 * 10
    assert "out/report.html" in done.stdout.replace("\n", "")
    assert "seed 1 margin" in done.stderr
    assert colour.seen == 90


def test_the_result_is_printed_as_json_and_nothing_else_is(
    colour: ColourBackbone, tmp_path: Path
) -> None:
    data = write_folders(tmp_path / "colours", 60)
    done = run("--data", str(data), "--out", "out", *SMALL, "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert done.stderr == ""


def test_a_second_start_goes_on_and_computes_only_what_is_missing(
    colour: ColourBackbone, tmp_path: Path
) -> None:
    data = write_folders(tmp_path / "colours", 60)
    arguments = ["--data", str(data), "--out", "out", *SMALL]
    run(*arguments)
    runs = tmp_path / "out" / "runs"
    times = {path.name: path.stat().st_mtime_ns for path in runs.glob("*.json")}
    first = json.loads((tmp_path / "out" / "result.json").read_text())
    (runs / "auto-1.json").unlink()
    (runs / "random-1.json").write_text("{")
    again = run(*arguments)
    assert "seed 0" not in again.stderr
    assert "seed 1 auto" in again.stderr
    assert "seed 1 random" in again.stderr
    second = json.loads((tmp_path / "out" / "result.json").read_text())
    assert second["curves"] == first["curves"]
    kept = {path.name: path.stat().st_mtime_ns for path in runs.glob("*-0.json")}
    assert kept.items() <= times.items()
    assert colour.seen == 60
    # More rules and seeds add to what is there.
    more = run(*arguments, "--acquisition", "auto,margin", "--seeds", "3")
    assert "seed 0 auto" not in more.stderr
    assert "seed 0 margin" in more.stderr
    assert "seed 2 random" in more.stderr


def test_changed_options_or_images_are_noticed(colour: ColourBackbone, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "colours", 60)
    arguments = ["--data", str(data), "--out", "out", *SMALL]
    run(*arguments)
    said = refused(*arguments, "--batch", "7")
    assert "batch was 6, is 7" in said
    assert "--fresh" in said
    write_folders(data, 63)
    assert "the images or labels changed" in refused(*arguments)
    run(*arguments, "--batch", "7", "--fresh")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["curves"]["auto"]["labels"] == [7, 14, 21]


def test_initial_labels_come_first(colour: ColourBackbone, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "colours", 60)
    run("--data", str(data), "--out", "out", *SMALL, "--initial", "9")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    curves = found["curves"]
    assert curves["auto"]["labels"] == [9, 15, 21, 27]
    assert curves["auto"]["mean"][0] == curves["random"]["mean"][0]


def test_numbers_that_are_not_given_follow_the_size_of_the_set(
    colour: ColourBackbone, tmp_path: Path
) -> None:
    data = write_folders(tmp_path / "colours", 60)
    run("--data", str(data), "--out", "out", "--seeds", "1", "--jobs", "1")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["curves"]["auto"]["labels"] == [5, 10, 15, 20]  # of 42, half at most


def test_an_unreadable_image_is_left_out_and_said(colour: ColourBackbone, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "colours", 60)
    (data / "red" / "torn.png").write_bytes(b"\x89PNG torn")
    done = run("--data", str(data), "--out", "out", *SMALL)
    assert "left out: red/torn.png" in done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [item["image"] for item in found["left_out"]] == ["red/torn.png"]
    assert found["images"]["pool"] + found["images"]["test"] == 60
    assert "red/torn.png" in (tmp_path / "out" / "report.html").read_text()


def test_a_set_of_unreadable_images_is_refused(colour: ColourBackbone, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "colours", 30)
    for number, path in enumerate(data.rglob("*.png")):
        path.write_bytes(b"torn %d" % number)
    said = refused("--data", str(data), "--out", "out", *SMALL)
    assert "none of the labelled images of colours can be read" in said


def test_an_export_is_replayed(colour: ColourBackbone, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    tasks: list[dict[str, Any]] = []
    for number, item in enumerate(items(60)):
        name = f"0a1b2c{number:02}-{number}.png"
        (tmp_path / "images" / name).write_bytes(item.data)
        result = [{"type": "choices", "from_name": "c", "value": {"choices": [item.label]}}]
        tasks.append(
            {
                "id": number,
                "data": {"image": f"/data/upload/1/{name}"},
                "annotations": [{"id": number, "was_cancelled": False, "result": result}],
            }
        )
    (tmp_path / "images" / "0a1b2c03-3.png").unlink()
    tasks[4]["annotations"][0]["was_cancelled"] = True
    tasks.append({"id": 99, "data": {"image": "later.png"}, "annotations": []})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    done = run("--data", "export.json", "--images", "images", "--out", "out", *SMALL)
    assert "left out: task 3: 0a1b2c03-3.png: no file" in done.stderr
    assert "2 images without a label are not used" in done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["data"] == "export"
    assert found["images"]["pool"] + found["images"]["test"] == 58


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "nowhere"], "there is no 'nowhere'"),
        (["--data", "one"], "all 20 labels are 'red'"),
        (["--data", "flat"], "none of its 20 images has a label"),
        (["--data", "empty"], "no image below it"),
        (["--data", "boxes"], "no image is annotated; draw boxes"),
        (["--data", "boxes", "--acquisition", "margin"], "images with boxes 'margin'"),
        (["--data", "boxes", "--uncertainty", "sofmax"], "estimator of boxes 'sofmax'"),
        (["--data", "boxes", "--backbone", "colour"], "unknown pyramid 'colour'"),
        (["--data", "boxes", "--task", "classification"], "is a set for detection, not class"),
        (["--data", "boxes", "--task", "multilabel"], "boxes is a set for detection, not multi"),
        (["--data", "colours", "--task", "detection"], "one label each; leave --task out"),
        (["--data", "colours", "--task", "multilabel"], "or say --task classification"),
        (["--data", "masks"], "annotated with mask"),
        (["--data", "export.json"], "no annotation that was submitted"),
        (["--data", "colours", "--images", "flat"], "belong to a Label Studio export"),
        (["--data", "colours", "--initial", "40"], "fewer than the initial 40"),
        (["--data", "colours", "--initial", "-1"], "initial is -1"),
        (["--data", "colours", "--batch", "0"], "batch is 0"),
        (["--data", "colours", "--seeds", "0"], "seeds is 0"),
        (["--data", "colours", "--random-share", "2"], "random share is 2"),
        (["--data", "colours", "--acquisition", "margn"], "Did you mean 'margin'"),
        (["--data", "colours", "--uncertainty", "sofmax"], "Did you mean 'softmax'"),
        (["--data", "colours", "--backbone", "color"], "Did you mean 'colour'"),
        (["--data", "colours", "--uncertainty", "one", "--acquisition", "epig"], "'epig' compares"),
        (["--data", "colours", "--out", "export.json/out"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_costs_no_features(
    colour: ColourBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.setitem(ESTIMATORS, "one", OnePass())
    write_folders(tmp_path / "colours", 60)
    write_folders(tmp_path / "one", 60)
    for name in ("green", "blue"):
        for path in (tmp_path / "one" / name).iterdir():
            path.unlink()
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "one" / "red").iterdir():
        (tmp_path / "flat" / path.name).write_bytes(path.read_bytes())
    for name, column in (("empty", ""), ("boxes", "boxes"), ("masks", "mask")):
        (tmp_path / name).mkdir()
        if column:
            (tmp_path / name / "manifest.csv").write_text(f"file,archive,split,{column}\n")
    (tmp_path / "export.json").write_text('[{"id": 1, "data": {"image": "a.png"}}]')
    where = [] if "--out" in arguments else ["--out", "out"]
    assert reason in refused(*arguments, *where)
    assert colour.seen == 0
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_task_that_comes_later_is_refused_by_name(colour: ColourBackbone) -> None:
    done = run("--data", "digits", "--out", "out", "--task", "segmentation", code=2)
    assert "'segmentation' is not one of" in done.output


def test_what_may_be_said_is_what_can_be_replayed() -> None:
    task = next(p for p in main.commands["simulate"].params if p.name == "task")
    assert tuple(task.type.choices) == backend.simulate.run.TASKS


def test_an_interrupt_leaves_finished_runs_and_no_process(tmp_path: Path) -> None:
    """The whole group gets Ctrl-C, as a terminal sends it."""
    blobs(600).save(tmp_path / "set")
    # Jobs in the background of a script ignore Ctrl-C, and all they start inherits that.
    code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{str(ROOT)!r}]
from pathlib import Path
from model.simulation.parallel import Job, play_all
from model.simulation.replay import Plan
jobs = [Job("random", seed) for seed in range(2000)]
try:
    play_all(jobs, Plan(initial=0, batch=10, rounds=2), data=Path("set"), out=Path("out"),
             processes=2, on_done=lambda job: print(job.seed, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""
    store = RunStore(tmp_path / "out")
    store.begin({})
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(3)]
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    assert all(store.load("random", seed) is not None for seed in done)
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("a worker is still there")


def test_a_full_disk_is_one_sentence(
    colour: ColourBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: LabelledSet, folder: Path) -> None:
        raise OSError("1536000 requested and 74720 written")  # numpy's words for it

    monkeypatch.setattr(LabelledSet, "save", full)
    data = write_folders(tmp_path / "colours", 60)
    said = refused("--data", str(data), "--out", "out", *SMALL)
    assert said.startswith("out cannot be written: 1536000 requested")
    assert "disk full" in said
    assert list((tmp_path / "out").glob(".set-*")) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(
    colour: ColourBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOUBTLESS_CACHE", str(tmp_path / "file"))
    data = write_folders(tmp_path / "colours", 60)
    said = refused("--data", str(data), "--out", "out", *SMALL)
    assert f"{tmp_path / 'file'} cannot be written" in said
    assert "DOUBTLESS_CACHE" in said


def test_seconds_of_a_stopped_start_are_kept(
    colour: ColourBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folders(tmp_path / "colours", 60)
    real = backend.simulate.tasks.compute_features

    def stopped(*given: Any, **named: Any) -> dict[str, str]:
        real(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(backend.simulate.tasks, "compute_features", stopped)
    run("--data", str(data), "--out", "out", *SMALL, code=130)
    assert float((tmp_path / "out" / "runs" / ".features").read_text()) > 0.0


def test_brackets_in_what_is_refused_are_printed(colour: ColourBackbone) -> None:
    """Markup is for our own words: a stray tag once ended in a traceback."""
    done = run("--data", "sets[/x]/[red]", "--out", "out", code=1)
    assert "there is no 'sets[/x]/[red]'; --data takes" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_what_may_be_named() -> None:
    said = " ".join(run("--help").output.split())
    for names in (ACQUISITIONS, ESTIMATORS, BACKBONES, BOX_ACQUISITIONS, BOX_ESTIMATORS, PYRAMIDS):
        assert ", ".join(sorted(names)).replace("- ", "-") in said.replace("- ", "-")
