"""`doubtless simulate` where an image may have several labels, or none."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.several import lights
from support.tiny_sets import ColourBackbone, colour_spec
from support.world import COLOURS

import backend.simulate.run
import backend.simulate.tasks
from backend.cli import main
from backend.edges.export import LabelStudioExport
from backend.settings import Settings
from model.backbones import BACKBONES

SMALL = ("--batch", "10", "--rounds", "3", "--seeds", "2", "--jobs", "2")


@pytest.fixture
def colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "colour", colour_spec("colour"))
    monkeypatch.setattr(backend.simulate.run, "load_backbone", lambda *a, **k: ColourBackbone())
    monkeypatch.setattr(backend.simulate.tasks, "PLAIN_BACKBONE", "colour")
    monkeypatch.setenv("DOUBTLESS_BACKBONE", "colour")
    monkeypatch.setenv("DOUBTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def sets(count: int) -> list[tuple[str, bytes, list[str]]]:
    """Pictures of every set of colours in turn, the empty one too."""
    found = []
    for number in range(count):
        chosen = {n for n in range(3) if number % 8 >> n & 1}
        name = f"{number:03}.png"
        found.append((name, lights(chosen, number), [COLOURS[n] for n in sorted(chosen)]))
    return found


def annotation(*answers: list[str], cancelled: bool = False, number: int = 1) -> dict[str, Any]:
    return {
        "id": number, "was_cancelled": cancelled, "updated_at": f"2026-01-{number:02}",
        "result": [
            {
                "type": "choices", "from_name": "c", "to_name": "image",
                "value": {"choices": answer},
            }
            for answer in answers
        ],
    }  # fmt: skip


def write_export(folder: Path, tasks: list[tuple[str, list[dict[str, Any]]]]) -> Path:
    body = [
        {"id": n, "data": {"image": name}, "annotations": given}
        for n, (name, given) in enumerate(tasks)
    ]
    path = folder / "export.json"
    path.write_text(json.dumps(body))
    return path


def written(folder: Path, count: int) -> Path:
    for name, data, _ in sets(count):
        (folder / name).write_bytes(data)
    tasks = [(name, [annotation(*([found] if found else []))]) for name, _, found in sets(count)]
    return write_export(folder, tasks)


def simulated(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(
        main, ["simulate", *arguments, *SMALL, "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_export_is_replayed_and_judged_by_whole_sets(colour: None, tmp_path: Path) -> None:
    path = written(tmp_path, 120)
    found = simulated(
        "--data",
        str(path),
        "--out",
        "out",
        "--acquisition",
        "auto,badge,batchbald",
        "--full",
        "--uncertainty",
        "softmax",
    )
    assert (found["task"], found["metric"]) == ("multilabel", "subset accuracy")
    assert found["images"]["classes"] == 3
    assert found["images"]["pool"] + found["images"]["test"] == 120
    for quality in found["quality"].values():
        assert 0.5 < quality["macro_f1"][-1] <= 1
    assert found["full"]["accuracy"] > 0.8
    assert found["full"]["plain_accuracy"] > 0.5
    assert set(found["labels_saved_ratio"]) == {"auto", "badge", "batchbald"}
    report = (tmp_path / "out" / "report.html").read_text()
    assert "subset accuracy on held-out images" in report
    assert "macro F1" in report
    assert "(none)" in report


def test_a_packed_set_may_have_several_labels(colour: None, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    rows = ["file,archive,split,labels"]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, data, chosen in sets(80):
            archive.writestr(name, data)
            quoted = json.dumps(chosen).replace('"', '""')
            rows.append(f'{name},images.zip,,"{quoted}"')
    (folder / "manifest.csv").write_text("\n".join(rows))
    found = simulated("--data", str(folder), "--out", "out", "--uncertainty", "evidential")
    assert found["metric"] == "subset accuracy"


def test_several_annotators_none_and_skips(tmp_path: Path) -> None:
    for name, data, _ in sets(4):
        (tmp_path / name).write_bytes(data)
    path = write_export(
        tmp_path,
        [
            ("000.png", [annotation(["a"]), annotation(["a", "b"], number=2)]),
            ("001.png", [annotation()]),
            ("002.png", [annotation(cancelled=True)]),
            ("003.png", [annotation(["a"]), annotation(["b"], number=2)]),
        ],
    )
    found = LabelStudioExport(path, Settings())
    assert [item.labels for item in found.read()] == [("a", "b"), (), ("b",)]
    assert all(item.label is None for item in found.read())
    assert found.unlabelled == 1
    assert found.left_out == []
    assert any("several answers" in note for note in found.notes)


def test_one_set_for_all_is_refused_with_a_reason(colour: None, tmp_path: Path) -> None:
    for name, data, _ in sets(8):
        (tmp_path / name).write_bytes(data)
    path = write_export(tmp_path, [(name, [annotation(["a", "b"])]) for name, _, _ in sets(8)])
    done = CliRunner().invoke(main, ["simulate", "--data", str(path), "--out", "o", "--json"])
    assert done.exit_code == 1
    assert "at least two sets of labels" in json.loads(done.stdout)["error"]
