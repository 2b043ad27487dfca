"""What `doubtless simulate` takes its data for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.settings import Settings
from backend.simulate.source import open_source
from model.errors import DataError

REGION = {
    "id": "r", "type": "rectanglelabels", "from_name": "box", "to_name": "image",
    "value": {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["car"]},
}  # fmt: skip


def manifest(folder: Path, column: str) -> str:
    (folder / "manifest.csv").write_text(f"file,archive,split,{column}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("column", "task"),
    [("label", "classification"), ("labels", "classification"), ("boxes", "detection")],
)
def test_a_packed_set_is_for_what_its_manifest_has(tmp_path: Path, column: str, task: str) -> None:
    assert open_source(manifest(tmp_path, column), Settings()).task == task


def test_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="annotated with mask, a set for segmentation"):
        open_source(manifest(tmp_path, "mask"), Settings())


def test_an_export_is_for_what_people_gave(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"A")
    path = tmp_path / "export.json"
    body = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": [REGION]}]}
    path.write_text(json.dumps([body]))
    source = open_source(str(path), Settings())
    assert source.task == "detection"
    assert [len(item.boxes or ()) for item in source.read()] == [1]
