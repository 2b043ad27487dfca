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
from model.datasets import Box, Item


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


NO_LIST = {"type": "choices", "from_name": "label", "value": {"choices": "a"}}
NO_SIZE = {
    "id": "r1", "type": "rectanglelabels", "from_name": "box",
    "value": {"x": 1, "y": 1, "width": "wide", "height": 1, "rectanglelabels": ["car"]},
}  # fmt: skip
BRUSH = {"type": "brushlabels", "from_name": "b", "value": {"brushlabels": ["car"], "rle": [1]}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{", "is not JSON"),
        ("3", "no list of tasks"),
        ([], "has no tasks"),
        ([1], "no list of tasks"),
        ([{"image": "b.png", "choice": "cat", "id": 1}], "not JSON-MIN"),
        ([task(1, "b.png")], "no annotation that was submitted"),
        ([task(1, "b.png", annotation(BRUSH))], "hold brushlabels; simulate needs .* or boxes"),
        ([task(1, "b.png", annotation({"type": "textarea", "value": {}}))], "hold textarea"),
        ([task(1, "b.png", annotation())], "hold nothing"),
        ([task(1, "b.png", annotation(NO_LIST))], "hold choices that are no list of answers, or"),
        (
            [task(1, "b.png", annotation(NO_SIZE))],
            "r1' is a .* with width='wide'; it must be a number$",
        ),
        ([answered(1, "no.png", "cat")], "; give the folder of the images with --images"),
        ([answered(1, "no picture", "cat")], "refers to an image; their data has: image"),
    ],
)
def test_what_is_no_usable_export_is_refused(files: Path, body: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        export(files, body)


def test_images_that_are_not_in_the_folder_given_are_said(files: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    with pytest.raises(ExportError, match=r"is below .*flat; give --images the folder that has"):
        export(files, [answered(1, "no.png", "cat")], images=tmp_path / "flat")


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


def drawn(
    label: str | None, x: float, y: float, width: float, height: float, **more: Any
) -> dict[str, Any]:
    """A rectangle in percent, as RectangleLabels gives it."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "id": "r1", "type": "rectanglelabels", "from_name": "box", "to_name": "image",
        "origin": "manual", "original_width": 200, "original_height": 100, "image_rotation": 0,
        "value": {**value, **({} if label is None else {"rectanglelabels": [label]})}, **more,
    }  # fmt: skip


def ellipse(label: str, x: float, y: float, a: float, b: float, turned: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "radiusX": a, "radiusY": b, "rotation": turned}
    return {
        "id": "e1", "type": "ellipselabels", "from_name": "oval", "to_name": "image",
        "original_width": 200, "original_height": 100, "value": {**value, "ellipselabels": [label]},
    }  # fmt: skip


def pair(label: str, x: float, y: float, width: float, height: float, number: str) -> list[dict]:
    """A rectangle and its label, as separate Rectangle and Labels tags give them."""
    shape = drawn(None, x, y, width, height, id=number, type="rectangle", from_name="shape")
    value = {**shape["value"], "labels": [label]}
    return [shape, {**shape, "type": "labels", "from_name": "kind", "value": value}]


def boxes_in(folder: Path, *result: dict[str, Any], **options: Any) -> list[tuple[Box, ...]]:
    body = [task(1, "b.png", annotation(*result)), task(2, "b.png", annotation())]
    found = export(folder, body, **options)
    assert found.task == "detection"
    items = list(found.read())
    assert all((item.label, item.labels) == (None, None) for item in items)
    return [item.boxes for item in items if item.boxes is not None]


@pytest.mark.parametrize(
    ("result", "box"),
    [
        ([drawn("car", 10, 20, 30, 40)], Box("car", 0.1, 0.2, 0.4, 0.6)),
        ([drawn("car", -10, 90, 300, 40)], Box("car", 0.0, 0.9, 1.0, 1.0)),
        # A quarter clockwise about its corner: 60x40 pixels become 40x60, to the left of it.
        (
            [drawn(None, 50, 20, 30, 40, value={
                "x": 50, "y": 20, "width": 30, "height": 40, "rotation": 90,
                "rectanglelabels": ["car"],
            })],
            Box("car", 0.3, 0.2, 0.5, 0.8),
        ),
        ([ellipse("car", 50, 50, 10, 30, 0)], Box("car", 0.4, 0.2, 0.6, 0.8)),
        ([ellipse("car", 50, 50, 10, 40, 90)], Box("car", 0.3, 0.3, 0.7, 0.7)),
        (pair("car", 10, 20, 30, 40, "p"), Box("car", 0.1, 0.2, 0.4, 0.6)),
        (pair("car", 10, 20, 30, 40, "p")[::-1], Box("car", 0.1, 0.2, 0.4, 0.6)),
    ],
)  # fmt: skip
def test_boxes_are_replayed_in_shares(files: Path, result: list[dict], box: Box) -> None:
    (found,), none = boxes_in(files, *result)
    assert found.label == box.label
    assert found[1:] == pytest.approx(box[1:])
    assert none == ()


def test_pairs_keep_to_their_ids(files: Path) -> None:
    first, second = pair("car", 0, 0, 50, 50, "p"), pair("van", 50, 50, 50, 50, "q")
    found, _ = boxes_in(files, first[0], second[0], second[1], first[1])
    assert found == (Box("car", 0, 0, 0.5, 0.5), Box("van", 0.5, 0.5, 1, 1))


def test_boxes_outside_the_image_are_no_boxes(files: Path) -> None:
    outside, flat = drawn("car", 110, 0, 10, 10), drawn("car", 10, 10, 0, 10)
    assert boxes_in(files, outside, flat, drawn("van", 0, 0, 50, 50))[0] == (
        Box("van", 0, 0, 0.5, 0.5),
    )


def test_accidental_clicks_and_boxes_drawn_twice_are_as_in_the_loop(files: Path) -> None:
    click = drawn("car", 50, 50, 0.05, 0.05)
    first, again = drawn("car", 0, 0, 50, 50), drawn("car", 0, 0, 50, 49.9)
    other = drawn("van", 0, 0, 50, 50)
    assert boxes_in(files, click, first, again, other)[0] == (
        Box("car", 0, 0, 0.5, 0.499),
        Box("van", 0, 0, 0.5, 0.5),
    )


def test_no_region_is_no_object_and_a_skip_is_no_answer(files: Path) -> None:
    found = export(
        files,
        [
            task(1, "b.png", annotation(drawn("car", 0, 0, 50, 50))),
            task(2, "b.png", annotation()),
            task(3, "b.png", annotation(drawn("car", 0, 0, 50, 50), was_cancelled=True)),
            task(4, "b.png"),
        ],
    )
    assert [item.boxes for item in found.read()] == [(Box("car", 0, 0, 0.5, 0.5),), ()]
    assert (found.unlabelled, found.left_out, found.notes) == (2, [], [])


def test_the_newest_annotators_boxes_count(files: Path) -> None:
    old = annotation(drawn("car", 0, 0, 50, 50), at="2026-01-01T10:00:00Z")
    new = annotation(drawn("van", 0, 0, 50, 50), at="2026-01-02T10:00:00Z", id=2)
    (item,) = export(files, [task(1, "b.png", new, old)]).read()
    assert item.boxes == (Box("van", 0, 0, 0.5, 0.5),)


def test_of_three_annotators_boxes_those_that_most_drew_count(files: Path) -> None:
    at = (f"2026-01-0{day}T10:00:00Z" for day in (1, 2, 3))
    car, van = drawn("car", 0, 0, 50, 50), drawn("van", 60, 60, 20, 20)
    given = [
        annotation(*regions, at=next(at), id=n)
        for n, regions in enumerate(([car, van], [drawn("car", 2, 0, 50, 50)], [car]), 1)
    ]
    (item,) = export(files, [task(1, "b.png", *given)]).read()
    assert item.boxes == (Box("car", 0, 0, 0.5, 0.5),)


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (drawn(None, 0, 0, 50, 50), "'r1' is a rectanglelabels without a label"),
        (pair("car", 0, 0, 9, 9, "p")[0], "'p' is a rectangle without a label"),
        (drawn("car", 0, 0, 50, 50, value={"rectanglelabels": ["car"], "x": 1}), "y=None"),
        (drawn("car", 0, 0, float("inf"), 50), "width=inf"),
        (drawn("car", 0, True, 50, 50), "y=True"),
        (drawn("car", 0, 0, 50, 50, original_width=0), "without pixels"),
        (drawn("car", 0, 0, 50, 50, value=None), "x=None"),
    ],
)
def test_an_image_with_a_box_that_cannot_be_read_is_left_out(
    files: Path, region: dict[str, Any], reason: str
) -> None:
    """Not an image without that object."""
    good = task(1, "b.png", annotation(drawn("car", 0, 0, 50, 50)))
    found = export(files, [good, task(2, "b.png", annotation(region))])
    assert len(list(found.read())) == 1
    assert [item.image for item in found.left_out] == ["task 2: b.png"]
    assert reason in found.left_out[0].reason


def test_boxes_go_before_choices_unless_a_choices_tag_is_named(files: Path) -> None:
    both = [choice("sharp", "quality"), drawn("car", 0, 0, 50, 50)]
    body = [task(1, "b.png", annotation(*both)), task(2, "b.png", annotation(both[0]))]
    found = export(files, body)
    assert [item.boxes for item in found.read()] == [(Box("car", 0, 0, 0.5, 0.5),), ()]
    assert found.notes == ["boxes are replayed; --control takes choices instead: quality"]
    other = export(files, body, control="quality")
    assert other.task == "classification"
    assert [(item.label, item.boxes) for item in other.read()] == [("sharp", None)] * 2
    with pytest.raises(ExportError, match=r"no tag 'qualty' has answers or boxes.*box, quality"):
        export(files, body, control="qualty")


def test_boxes_of_all_tags_are_taken_or_of_the_one_named(files: Path) -> None:
    result = [
        drawn("car", 0, 0, 50, 50),
        ellipse("lake", 50, 50, 50, 50, 0),
        *pair("van", 50, 50, 50, 50, "p"),
        BRUSH,
    ]
    body = [task(1, "b.png", annotation(*result))]
    found = export(files, body)
    assert [box.label for item in found.read() for box in item.boxes or ()] == [
        "car", "lake", "van",
    ]  # fmt: skip
    assert found.notes == [
        "boxes of all tags are replayed; --control takes one of: box, kind, oval",
        "regions that are no boxes are not replayed: brushlabels",
    ]
    named = export(files, body, control="kind")
    assert [box.label for item in named.read() for box in item.boxes or ()] == ["van"]
