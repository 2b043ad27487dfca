from __future__ import annotations

import csv
import json
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.datasets import Box, Item, annotated_with, read_dataset
from model.errors import DataError
from model.images import decode_image

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def packed(folder: Path, manifest: str) -> str:
    with zipfile.ZipFile(folder / "part.zip", "w") as archive:
        archive.writestr("x/a.png", b"A")
        archive.writestr("b.png", b"B")
    (folder / "manifest.csv").write_text(manifest, encoding="utf-8")
    return str(folder)


def test_a_packed_set(tmp_path: Path) -> None:
    source = packed(
        tmp_path, "file,archive,split,label\nx/a.png,part.zip,train,cat\nb.png,part.zip,test,\n"
    )
    assert list(read_dataset(source)) == [
        Item("x/a.png", b"A", "cat", "train"),
        Item("b.png", b"B", None, "test"),
    ]


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("name,label\n", "lacks the columns"),
        ("file,archive\nmissing.png,part.zip\n", "missing.png"),
        ("file,archive\nb.png,nowhere.zip\n", "nowhere.zip"),
    ],
)
def test_a_damaged_manifest_says_what_is_wrong(tmp_path: Path, manifest: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        list(read_dataset(packed(tmp_path, manifest)))


def test_a_manifest_saved_by_excel_is_read(tmp_path: Path) -> None:
    source = packed(tmp_path, "\ufefflabel,file,archive\nKäfer,b.png,part.zip\n")
    assert annotated_with(source) == "label"
    assert [item.label for item in read_dataset(source)] == ["Käfer"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_manifest_that_is_not_utf_8_says_how_to_save_it(tmp_path: Path, encoding: str) -> None:
    source = packed(tmp_path, "")
    text = "label,file,archive\nKäfer,b.png,part.zip\n"
    (tmp_path / "manifest.csv").write_text(text, encoding=encoding)
    with pytest.raises(DataError, match="save it as UTF-8"):
        list(read_dataset(source))
    with pytest.raises(DataError, match="save it as UTF-8"):
        annotated_with(source)


def test_folders_of_classes_with_and_without_splits(tmp_path: Path) -> None:
    for path in ("cat/1.jpg", "dog/deep/2.PNG", "notes.txt", "train/owl/3.webp", "test/4.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    found = {item.name: (item.label, item.split) for item in read_dataset(str(tmp_path))}
    assert found == {
        "cat/1.jpg": ("cat", ""),
        "dog/deep/2.PNG": ("dog", ""),
        "train/owl/3.webp": ("owl", "train"),
        "test/4.jpg": (None, "test"),
    }


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"b")
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert [item[:3] for item in read_dataset(str(tmp_path))] == [
        ("a.jpg", b"a", None),
        ("b.jpg", b"b", None),
    ]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        list(read_dataset(str(tmp_path)))
    with pytest.raises(DataError, match="neither a folder nor 'digits'"):
        list(read_dataset(str(tmp_path / "nowhere")))


def test_the_digits_are_64_pixel_png_images_dark_on_light() -> None:
    pytest.importorskip("sklearn")
    items = list(read_dataset("digits"))
    assert len(items) == 1797
    assert Counter(item.split for item in items) == {"train": 1198, "test": 599}
    assert {item.label for item in items} == set("0123456789")
    assert len({item.name for item in items}) == 1797
    image = decode_image(items[0].data)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_a_shared_set_is_read_as_its_readme_says() -> None:
    if not (SHARED / "grocery").is_dir():
        pytest.skip("../shared/data/grocery is not here")
    counts: Counter[str] = Counter()
    for item in read_dataset(str(SHARED / "grocery")):
        assert item.label
        assert item.data[:2] == b"\xff\xd8"
        counts[item.split] += 1
    assert counts == {"train": 2936, "test": 2485}


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = BytesIO()
    Image.new("RGB", (width, height)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def boxed(folder: Path, data: bytes, boxes: Any, **more: Any) -> str:
    """A packed set of one image."""
    with zipfile.ZipFile(folder / "part.zip", "w") as archive:
        archive.writestr("a.jpg", data)
    text = boxes if isinstance(boxes, str) else json.dumps(boxes)
    row = {"file": "a.jpg", "archive": "part.zip", "split": "test", "boxes": text, **more}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return str(folder)


def box(*corners: float, label: str = "cell") -> dict[str, Any]:
    return {"label": label, **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))}


def test_boxes_are_in_shares_clipped_and_without_empty_ones(tmp_path: Path) -> None:
    source = boxed(
        tmp_path,
        jpeg(200, 100),
        [
            box(20, 10, 100, 50),
            box(-5, 50, 300, 120, label="wall"),
            box(30, 10, 30, 50),
            box(60, 10, 30, 50),
            box(250, 10, 300, 50),
        ],
        width=200,
        height=100,
    )
    assert annotated_with(source) == "boxes"
    (item,) = read_dataset(source)
    assert item.boxes == (
        Box("cell", 0.1, 0.1, 0.5, 0.5),
        Box("wall", 0.0, 0.5, 1.0, 1.0),
        Box("cell", 0.15, 0.1, 0.3, 0.5),  # whose corners were given from right to left
    )
    assert (item.label, item.labels, item.split) == (None, None, "test")


def test_boxes_are_turned_upright_with_their_image(tmp_path: Path) -> None:
    data = jpeg(200, 100, orientation=6)
    (item,) = read_dataset(boxed(tmp_path, data, [box(0, 0, 50, 10)]))
    assert item.boxes is not None
    assert item.boxes[0] == pytest.approx(("cell", 0.9, 0.0, 1.0, 0.25))
    assert decode_image(data).size == (100, 200)


def test_no_object_is_not_the_same_as_not_looked_at(tmp_path: Path) -> None:
    assert next(read_dataset(boxed(tmp_path, jpeg(9, 9), "[]"))).boxes == ()
    assert next(read_dataset(boxed(tmp_path, jpeg(9, 9), ""))).boxes is None
    assert next(read_dataset(boxed(tmp_path, b"no image", ""))).boxes is None


@pytest.mark.parametrize(
    "boxes",
    [
        "{",
        "3",
        '{"label": "cell"}',
        "[3]",
        [box(1, 2, 3, 4, label="")],
        [{"label": "cell", "x0": 1, "y0": 1, "x1": 2}],
        [{**box(1, 2, 3, 4), "x1": "wide"}],
        [{**box(1, 2, 3, 4), "x1": None}],
        [{**box(1, 2, 3, 4), "label": 7}],
        '[{"label": "cell", "x0": 1, "y0": 1, "x1": NaN, "y1": 4}]',
        '[{"label": "cell", "x0": 1, "y0": 1, "x1": 2, "y1": 1e999}]',
    ],
)
def test_malformed_boxes_name_the_file_and_the_value(tmp_path: Path, boxes: Any) -> None:
    with pytest.raises(DataError, match=r"'a\.jpg' of .*manifest\.csv has the boxes '[^']+.*JSON"):
        list(read_dataset(boxed(tmp_path, jpeg(9, 9), boxes)))


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path: Path) -> None:
    source = boxed(tmp_path, jpeg(20, 10, orientation=6), "[]", width=10, height=20)
    with pytest.raises(DataError, match=r"'a\.jpg' of .* is 20x10 .* of one with 10x20"):
        list(read_dataset(source))


def test_a_broken_image_needs_the_manifests_size(tmp_path: Path) -> None:
    """It is left out later, as in other sets."""
    boxes = [box(0, 0, 5, 5)]
    (item,) = read_dataset(boxed(tmp_path, b"no image", boxes, width=10, height=20))
    assert item.boxes == (Box("cell", 0.0, 0.0, 0.5, 0.25),)
    with pytest.raises(DataError, match=r"'a\.jpg' of .* has boxes and cannot be read"):
        list(read_dataset(boxed(tmp_path, b"no image", boxes)))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("bccd", {"Platelets": 361, "RBC": 4153, "WBC": 372}),
        (
            "microcontrollers",
            {"Arduino_Nano": 43, "ESP8266": 47, "Heltec_ESP32_Lora": 44, "Raspberry_Pi_3": 43},
        ),
    ],
)
def test_a_shared_box_set_is_read_as_its_readme_says(name: str, counts: dict[str, int]) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/data/{name} is not here")
    found: Counter[str] = Counter()
    for item in read_dataset(str(SHARED / name)):
        assert item.boxes
        found.update(box.label for box in item.boxes)
        assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in item.boxes)
    assert found == counts
