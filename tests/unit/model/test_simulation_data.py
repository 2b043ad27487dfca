from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_sets import ColourBackbone, blobs, colour_spec, items

from model.backbones import BACKBONES, Backbone
from model.datasets import Item
from model.errors import DataError
from model.features import FeatureStore
from model.simulation.data import (
    LabelledSet,
    Listing,
    compute_features,
    labelled_set,
    list_images,
    stratified_split,
)


def listing(labels: str | list[str], splits: list[str] | None = None, keys: str = "") -> Listing:
    names = tuple(f"{n}.png" for n in range(len(labels)))
    keys_ = tuple(keys) if keys else names
    return Listing(names, keys_, tuple(labels), tuple(splits or [""] * len(labels)))


def make(found: Listing) -> LabelledSet:
    return labelled_set("set", found, np.zeros((len(found.keys), 2), np.float32))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80))
def test_three_tenths_of_each_class_are_held_out_and_never_all(labels: list[int]) -> None:
    numbers = np.array(labels)
    test = stratified_split([str(n) for n in range(len(labels))], numbers)
    for label in set(labels):
        count, held = int((numbers == label).sum()), int(test[numbers == label].sum())
        assert abs(held - 0.3 * count) <= 0.5 or (count == 1 and held == 0)
        assert held < count


def test_the_split_follows_the_images_not_their_order() -> None:
    keys = [f"{n:03}" for n in range(60)]
    labels = np.arange(60) % 3
    order = np.random.default_rng(1).permutation(60)
    test = stratified_split(keys, labels)
    again = stratified_split([keys[n] for n in order], labels[order])
    np.testing.assert_array_equal(again, test[order])


def test_copies_of_a_file_stay_on_one_side() -> None:
    keys = [str(n % 20) for n in range(60)]
    test = stratified_split(keys, np.arange(60) % 2)
    for key in set(keys):
        assert len({bool(t) for t, k in zip(test, keys, strict=True) if k == key}) == 1
    assert 0 < test.sum() < 60


def test_a_sets_own_split_is_kept() -> None:
    data = make(listing("aabb", ["train", "test", "", "test"]))
    assert data.test.tolist() == [False, True, False, True]
    assert data.pool.tolist() == [0, 2]
    assert data.classes == ("a", "b")
    assert data.split == "the set's own"


def test_the_digest_follows_images_labels_and_split() -> None:
    digests = {
        make(found).digest
        for found in (
            listing("aabb", ["train", "test", "", "test"]),
            listing("aabb", ["test", "train", "", "test"]),
            listing("abbb", ["train", "test", "", "test"]),
            listing("aabb", ["train", "test", "", "test"], keys="wxyz"),
        )
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Listing((), (), (), (), 7), "none of its 7 images has a label"),
        (listing(""), "no image has a label"),
        (listing("aaaa"), "all 4 labels are 'a'; at least two classes are needed$"),
        (listing(["images"] * 3), "are needed; COCO and YOLO sets are to be converted first"),
        (listing("abc"), "none is left to judge on"),
        (listing("aabb", ["test"] * 4), "none is left to learn from"),
        (listing("aabb", keys="wwxx"), "4 labelled images in 2 classes, 2 of them different: none"),
    ],
)
def test_a_set_without_use_is_refused(found: Listing, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        make(found)


@pytest.mark.parametrize("plain", [None, "same", "other"])
def test_a_set_comes_back_from_disk(tmp_path: Path, plain: str | None) -> None:
    data = blobs(plain=plain == "same")
    if plain == "other":
        data = LabelledSet(**{**vars(data), "plain": data.features[:, :3].copy()})
    data.save(tmp_path)
    again = LabelledSet.load(tmp_path)
    for name in ("features", "labels", "test", "plain"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    assert (again.name, again.classes) == (data.name, data.classes)


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(BACKBONES, "colour", colour_spec("colour"))
    return "colour"


def test_features_are_computed_once_and_in_one_pass(tmp_path: Path, colour: str) -> None:
    backbone = ColourBackbone()
    store = FeatureStore(tmp_path)
    told: list[tuple[int, int]] = []

    def read() -> Iterator[Item]:
        yield from items(20)
        yield Item("broken.png", b"no image", "red", "")
        yield Item("nothing.png", b"", None, "")

    def load(name: str) -> Backbone:
        return backbone

    found = list_images(read)
    assert (len(found.keys), found.unlabelled) == (21, 1)
    problems = compute_features(
        read, found.keys, backbone=colour, store=store, load=load,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert list(problems) == [found.keys[-1]]
    assert (backbone.seen, told[0], told[-1]) == (20, (0, 21), (21, 21))
    readable = found.without(set(problems))
    assert readable.names == found.names[:-1]
    again = compute_features(read, readable.keys, backbone=colour, store=store, load=load)
    assert again == {}
    assert backbone.seen == 20
    assert store.load(BACKBONES[colour].hash, readable.keys).shape == (20, 12)
