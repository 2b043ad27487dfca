"""Label Studio's JSON export as a labelled set."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.export import LabelStudioExport
from backend.edges.labels.merge import majority
from backend.errors import ExportError
from backend.settings import Settings
from model.datasets import Item


def choice(label: str | list[str], control: str = "label", **value: Any) -> dict[str, Any]:
    labels = [label] if isinstance(label, str) else label
    return {
        "id": "r1", "type": "choices", "from_name": control, "to_name": "image",
        "origin": "manual", "value": {"choices": labels, **value},
    }  # fmt: skip


def annotation(*result: dict[str, Any], at: str = "2026-01-01T10:00:00Z", **more: Any) -> dict:
    return {
        "id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False,
        "updated_at": at, "result": list(result), **more,
    }  # fmt: skip


def task(number: int, image: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {
        "id": number, "annotations": list(annotations), "predictions": [], "drafts": [],
        "data": {"image": image, **data}, "project": 1,
    }  # fmt: skip


def answered(number: int, image: str, label: str, **data: Any) -> dict[str, Any]:
    return task(number, image, annotation(choice(label)), **data)


def export(folder: Path, body: Any, **options: Any) -> LabelStudioExport:
    path = folder / "project-1.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return LabelStudioExport(path, Settings(), **options)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("upload/1/0a1b2c3d-cat.png", "b.png", "deep/er/c d.png", "x/e.png", "y/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "data"),
    [
        ("/data/upload/1/0a1b2c3d-cat.png", b"upload/1/0a1b2c3d-cat.png"),
        ("http://localhost:8080/data/upload/1/0a1b2c3d-cat.png", b"upload/1/0a1b2c3d-cat.png"),
        ("/data/upload/9/99999999-b.png", b"b.png"),  # saved under its own name
        ("/data/local-files/?d=photos/deep/er/c%20d.png", b"deep/er/c d.png"),
        ("s3://bucket/deep/er/c d.png", b"deep/er/c d.png"),
        ("https://host/er/c%20d.png?Signature=abc", b"deep/er/c d.png"),
        ("y/e.png", b"y/e.png"),
        ("/any/where/x/e.png", b"x/e.png"),
        ("data:image/png;base64," + base64.b64encode(b"inline").decode(), b"inline"),
    ],
)
def test_an_image_is_found_wherever_it_lies(files: Path, reference: str, data: bytes) -> None:
    found = export(files, [answered(1, reference, "cat")])
    (item,) = found.read()
    assert (item.data, item.label, item.split) == (data, "cat", "")
    assert found.left_out == []


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("/data/upload/1/gone.png", "no file 'gone.png' is below"),
        ("/data/upload/1/0a1b2c3d-gone.png", "no file '0a1b2c3d-gone.png'"),
        ("other/e.png", "2 files below"),
        ("../../../etc/passwd.png", "no file 'passwd.png'"),
        ("data:image/png;base64,*", "base64"),
        ("", "it has no image"),
    ],
)
def test_what_cannot_be_found_is_said_and_left_out(
    files: Path, reference: str, reason: str
) -> None:
    found = export(files, [answered(1, "b.png", "cat"), answered(7, reference, "dog")])
    assert [item.label for item in found.read()] == ["cat"]
    (left,) = found.left_out
    assert left.image.startswith("task 7: ")
    assert reason in left.reason


def test_images_may_lie_elsewhere(files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    body = [answered(1, "b.png", "cat")]
    (item,) = export(other, body, images=files).read()
    assert item.data == b"b.png"
    with pytest.raises(ExportError, match=r"none of the 1 answered tasks.*--images"):
        export(other, body)
    with pytest.raises(ExportError, match="is no folder"):
        export(other, body, images=files / "nowhere")


def test_skips_cancelled_and_empty_annotations_are_no_answers(files: Path) -> None:
    found = export(
        files,
        [
            task(1, "b.png"),
            task(2, "b.png", annotation(choice("cat"), was_cancelled=True)),
            task(3, "b.png", annotation()),
            task(4, "b.png", annotation(choice("dog"))),
            task(5, "b.png", annotation(choice("dog"), choice("cat"))),
            task(6, "b.png", annotation(choice("dog"), was_cancelled=True), annotation()),
        ],
    )
    assert [item.label for item in found.read()] == ["dog"]
    assert found.unlabelled == 4
    assert [(item.image, item.reason) for item in found.left_out] == [
        ("task 5: b.png", "'label' has 2 answers; one counts")
    ]


def test_several_annotators_are_merged_as_the_loop_does(files: Path) -> None:
    def at(day: int, label: str) -> dict[str, Any]:
        return annotation(choice(label), at=f"2026-01-{day:02}T10:00:00Z", id=day)

    found = export(
        files,
        [
            task(1, "b.png", at(3, "cat"), at(1, "dog"), at(2, "dog")),
            task(2, "b.png", at(2, "cat"), at(1, "dog")),
        ],
    )
    assert [item.label for item in found.read()] == ["dog", "cat"]


@given(st.lists(st.sampled_from("abc"), max_size=9))
def test_the_majority_wins_and_the_newest_among_equals(labels: list[str]) -> None:
    if not labels:
        assert majority(labels) is None
        return
    most = max(labels.count(label) for label in labels)
    assert majority(labels) == next(x for x in reversed(labels) if labels.count(x) == most)


def test_the_control_with_most_answers_is_taken_and_another_may_be_named(files: Path) -> None:
    body = [
        task(1, "b.png", annotation(choice("cat"), choice("sharp", "quality"))),
        task(2, "b.png", annotation(choice("dog"))),
    ]
    found = export(files, body)
    assert [item.label for item in found.read()] == ["cat", "dog"]
    assert found.notes == ["answers of 'label' are replayed; --control takes another: quality"]
    other = export(files, body, control="quality")
    assert [item.label for item in other.read()] == ["sharp"]
    with pytest.raises(ExportError, match=r"no Choices tag 'qualty'.*label, quality"):
        export(files, body, control="qualty")


def test_the_image_is_the_key_that_most_tasks_have(files: Path) -> None:
    found = export(
        files,
        [
            {**answered(1, "", "cat"), "data": {"text": "a cat", "photo": "b.png"}},
            {**answered(2, "", "dog"), "data": {"icon": "x/e.png", "photo": "b.png"}},
        ],
    )
    assert [item.data for item in found.read()] == [b"b.png", b"b.png"]


def test_answers_about_a_region_are_not_about_the_image(files: Path) -> None:
    body = [
        task(1, "b.png", annotation(choice("cat"), choice("tail", x=1, y=2, width=3, height=4))),
    ]
    assert [item.label for item in export(files, body).read()] == ["cat"]


BOX = {"type": "rectanglelabels", "from_name": "b", "value": {"rectanglelabels": ["car"], "x": 1}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{", "is not JSON"),
        ("3", "no list of tasks"),
        ([], "has no tasks"),
        ([1], "no list of tasks"),
        ([{"image": "b.png", "choice": "cat", "id": 1}], "not JSON-MIN"),
        ([task(1, "b.png")], "no annotation that was submitted"),
        ([task(1, "b.png", annotation(BOX))], "boxes or masks .rectanglelabels."),
        ([task(1, "b.png", annotation({"type": "textarea", "value": {}}))], "hold textarea"),
        ([task(1, "b.png", annotation())], "hold nothing"),
        ([answered(1, "no picture", "cat")], "refers to an image; their data has: image"),
    ],
)
def test_what_is_no_usable_export_is_refused(files: Path, body: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        export(files, body)


def test_a_file_that_goes_away_later_is_an_error(files: Path) -> None:
    found = export(files, [answered(1, "b.png", "cat")])
    (files / "b.png").unlink()
    with pytest.raises(ExportError, match=r"b\.png .* cannot be read"):
        list(found.read())


def test_a_missing_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        LabelStudioExport(tmp_path / "no.json", Settings())


def test_names_are_unique_and_tell_the_task(files: Path) -> None:
    found = export(files, [answered(1, "b.png", "cat"), answered(2, "b.png", "dog")])
    assert list(found.read()) == [
        Item("task 1: b.png", b"b.png", "cat", ""),
        Item("task 2: b.png", b"b.png", "dog", ""),
    ]
