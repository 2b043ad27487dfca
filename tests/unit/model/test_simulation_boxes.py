"""Sets annotated with boxes: listed, split and refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.datasets import Box, Item, read_dataset
from model.errors import DataError
from model.simulation.boxes import BoxSet, box_set, rarest_class
from model.simulation.data import Listing, labelled_set, list_images

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def drawn(labels: str) -> tuple[Box, ...]:
    return tuple(Box(label, 0.1 * n, 0.0, 0.1 * n + 0.1, 0.5) for n, label in enumerate(labels))


def listing(images: list[str], splits: list[str] | None = None, keys: str = "") -> Listing:
    """Images as the classes of their boxes, a letter each."""
    names = tuple(f"{n}.png" for n in range(len(images)))
    return Listing(
        names,
        tuple(keys) if keys else names,
        tuple(images),
        tuple(splits or [""] * len(images)),
        boxes=tuple(drawn(labels) for labels in images),
    )


def make(*images: str, splits: list[str] | None = None, keys: str = "") -> BoxSet:
    return box_set("set", listing(list(images), splits, keys))


def listed(*items: Item) -> Listing:
    def read() -> Iterator[Item]:
        yield from items

    return list_images(read)


def test_boxes_are_listed_with_how_many_there_are() -> None:
    found = listed(
        Item("a", b"a", None, "train", None, drawn("bab")),
        Item("b", b"b", None, "test", None, ()),
        Item("c", b"c", None, ""),
    )
    assert found.labels == ("1 a, 2 b", "(none)")
    assert found.boxes == (drawn("bab"), ())
    assert (found.sets, found.unlabelled) == (None, 1)
    assert found.without({found.keys[0]}).boxes == ((),)
    assert listed(Item("a", b"a", "cat", "")).boxes is None


@pytest.mark.parametrize(
    "items",
    [
        (Item("a", b"a", "cat", ""), Item("b", b"b", None, "", None, drawn("a"))),
        (Item("b", b"b", None, "", None, ()), Item("a", b"a", None, "", ("cat",))),
        (Item("a", b"a", "cat", "", None, drawn("a")),),
    ],
)
def test_boxes_and_labels_in_one_set_are_refused(items: tuple[Item, ...]) -> None:
    with pytest.raises(DataError, match=r"'[ab]' has boxes and 'a' a label"):
        listed(*items)


def test_a_set_has_numbers_for_classes_and_its_own_split() -> None:
    data = make("ba", "", "a", "b", splits=["train", "test", "test", ""])
    assert data.classes == ("a", "b")
    assert [labels.labels.tolist() for labels in data.boxes] == [[1, 0], [], [0], [1]]
    np.testing.assert_allclose(data.boxes[0].boxes[1], [0.1, 0.0, 0.2, 0.5])
    assert data.test.tolist() == [False, True, True, False]
    assert data.pool.tolist() == [0, 3]
    assert data.split == "the set's own"
    assert [data.caption(row) for row in range(4)] == ["1 a, 1 b", "(none)", "1 a", "1 b"]


@given(st.lists(st.sampled_from(["", "a", "b", "ab", "abc", "bb"]), min_size=8, max_size=60))
def test_three_tenths_by_rarest_class_are_held_out(images: list[str]) -> None:
    kinds = rarest_class([drawn(labels) for labels in images])
    try:
        data = make(*images)
    except DataError:
        assert max(Counter(kinds[kinds >= 0].tolist()).values(), default=0) < 2
        return
    for kind in set(kinds.tolist()):
        count, held = int((kinds == kind).sum()), int(data.test[kinds == kind].sum())
        assert abs(held - 0.3 * count) <= 0.5 or (count == 1 and held == 0)
    assert data.split == "30% by rarest class, drawn here"


def test_the_rarest_class_is_the_one_that_the_fewest_images_have() -> None:
    images = ["aaaaab", "b", "bc", "cb", ""]  # b in 4 images, c in 2, a in 1
    assert rarest_class([drawn(labels) for labels in images]).tolist() == [0, 2, 1, 1, -1]


def test_copies_of_a_file_stay_on_one_side() -> None:
    data = make(*["a"] * 30, keys="abcdefghij" * 3)
    for key in set(data.keys):
        assert len({bool(t) for t, k in zip(data.test, data.keys, strict=True) if k == key}) == 1
    assert 0 < data.test.sum() < 30


def test_the_digest_follows_images_boxes_and_split() -> None:
    splits = ["train", "test", "", "test"]
    moved = listing(["a", "b", "a", "b"], splits)
    assert moved.boxes is not None
    shifted = (*moved.boxes[:3], (moved.boxes[3][0]._replace(x1=0.11),))
    digests = {
        found.digest
        for found in (
            make("a", "b", "a", "b", splits=splits),
            make("a", "b", "a", "a", splits=splits),
            make("a", "b", "a", "b", splits=splits[::-1]),
            make("a", "b", "a", "b", splits=splits, keys="wxyz"),
            box_set("set", replace(moved, boxes=shifted)),
        )
    }
    assert len(digests) == 5
    again = make("a", "b", "a", "b", splits=splits)
    assert again.digest == box_set("other name", moved).digest


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Listing((), (), (), (), 7), "none of its 7 images is annotated"),
        (Listing((), (), (), ()), "no image is annotated"),
        (Listing(("a",), ("a",), ("cat",), ("",)), "annotated with labels, a set for class"),
        (listing(["", ""]), "none of its 2 images has a box"),
        (listing(["a"]), "has 1 different images with boxes: none is left to judge on"),
        (listing(["a", "a"], keys="ww"), "has 1 different images"),
        (listing(["a", ""], ["train", "test"]), "none is left to judge on"),
        (listing(["a", ""], ["test", "train"]), "none is left to learn from"),
    ],
)
def test_a_set_without_use_is_refused(found: Listing, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        box_set("set", found)


def test_boxes_are_no_labels_to_classify_by() -> None:
    with pytest.raises(DataError, match="annotated with boxes, a set for detection"):
        labelled_set("set", listing(["a", "b"]), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(("name", "test"), [("bccd", 109), ("microcontrollers", 45)])
def test_a_shared_set_keeps_its_split(name: str, test: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/data/{name} is not here")
    data = box_set(name, list_images(lambda: read_dataset(str(SHARED / name))))
    assert int(data.test.sum()) == test
    assert data.split == "the set's own"
