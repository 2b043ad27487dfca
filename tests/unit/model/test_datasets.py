from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import pytest

from model.datasets import Item, read_dataset
from model.errors import DataError
from model.images import decode_image

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def packed(folder: Path, manifest: str) -> str:
    with zipfile.ZipFile(folder / "part.zip", "w") as archive:
        archive.writestr("x/a.png", b"A")
        archive.writestr("b.png", b"B")
    (folder / "manifest.csv").write_text(manifest)
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
