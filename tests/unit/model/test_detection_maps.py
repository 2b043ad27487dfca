"""Maps on disk."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from model.backbones.pyramid import pooled
from model.detection.maps import LARGEST, ImageMaps, MapStore, StoredMaps
from model.errors import MissingFeaturesError, ModelError

KEY, OTHER = "a" * 64, "0b" * 32
CODE = "c" * 12


def some_maps(seed: int = 0, *, rows: int = 2) -> ImageMaps:
    rng = np.random.default_rng(seed)
    levels = [rng.normal(size=(c, rows * f, 3 * f)) for c, f in ((2, 4), (3, 2), (5, 1))]
    return ImageMaps.of(tuple(x.astype(np.float32) for x in levels), (123, 77))


def equal(a: ImageMaps, b: ImageMaps) -> bool:
    same = all(np.array_equal(x, y) for x, y in zip(a.levels, b.levels, strict=True))
    return same and a.size == b.size


@pytest.fixture
def store(tmp_path: Path) -> MapStore:
    return MapStore(tmp_path / "maps")


def test_what_is_added_comes_back_bit_by_bit(store: MapStore) -> None:
    maps = some_maps()
    assert store.missing(CODE, [KEY, OTHER, KEY]) == [KEY, OTHER]
    store.add(CODE, KEY, maps)
    store.add(CODE, KEY, maps)
    assert store.missing(CODE, [KEY, OTHER]) == [OTHER]
    found = store.load(CODE, KEY)
    assert equal(found, maps)
    assert {level.dtype for level in found.levels} == {np.dtype(np.float16)}
    assert store.sides(CODE, KEY) == ((123, 77), maps.canvas)
    assert found.canvas == maps.canvas
    store.add(CODE, OTHER, some_maps(1, rows=5))
    assert store.sides(CODE, OTHER)[1][1] == 5 * 32
    assert [m.levels[0].shape[1] for m in store.load_many(CODE, [OTHER, KEY])] == [20, 8]


def test_the_coarsest_alone_can_be_read(store: MapStore) -> None:
    every = {KEY: some_maps(), OTHER: some_maps(1, rows=5)}
    for key, maps in every.items():
        store.add(CODE, key, maps)
    stored = StoredMaps(store, CODE, [OTHER, KEY], coarsest=True)
    assert len(stored) == 2
    for n, key in enumerate([OTHER, KEY]):
        for one in (stored[n], stored[n:][0]):
            assert equal(one, ImageMaps(every[key].levels[-1:], every[key].size))


def test_maps_of_another_pyramid_are_others(store: MapStore) -> None:
    store.add(CODE, KEY, some_maps())
    assert store.missing("d" * 12, [KEY]) == [KEY]
    with pytest.raises(MissingFeaturesError, match=KEY):
        store.load("d" * 12, KEY)


def test_what_is_not_there_has_no_size(store: MapStore) -> None:
    for ask in (store.load, store.sides):
        with pytest.raises(MissingFeaturesError, match=OTHER):
            ask(CODE, OTHER)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_missing(store: MapStore, kept: int) -> None:
    store.add(CODE, KEY, some_maps())
    path = store._path(CODE, KEY)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MissingFeaturesError, match=r"cannot be read|damaged"):
        store.load(CODE, KEY)


def coarsest(store: MapStore, code: str, key: str) -> ImageMaps:
    return store.load(code, key, coarsest=True)


NOISE, SHORT = (lambda data: b"\xff" * 200), (lambda data: data[:-1])
NO_SIZE = lambda data: data.replace(b'"size"', b'"side"')  # noqa: E731
NO_NUMBER = lambda data: data.replace(b"[123, 77]", b"[123, x7]")  # noqa: E731


def test_a_file_without_maps_is_read_again(store: MapStore) -> None:
    for ask in (MapStore.load, coarsest, MapStore.sides):
        path = store._path(CODE, KEY)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({}, path, metadata={"size": "[123, 77]"})
        with pytest.raises(MissingFeaturesError):
            ask(store, CODE, KEY)
        assert store.missing(CODE, [KEY]) == [KEY]


@pytest.mark.parametrize(
    ("ask", "damage"),
    [
        *itertools.product(
            [MapStore.load, coarsest, MapStore.sides], [NOISE, SHORT, NO_SIZE, NO_NUMBER]
        )
    ],
)
def test_a_damaged_file_is_read_again(store: MapStore, ask, damage) -> None:
    """Were it still there, a project would fail at it for ever."""
    store.add(CODE, KEY, some_maps())
    path = store._path(CODE, KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MissingFeaturesError):
        ask(store, CODE, KEY)
    assert store.missing(CODE, [KEY]) == [KEY]
    store.add(CODE, KEY, some_maps())
    assert equal(store.load(CODE, KEY), some_maps())


@pytest.mark.parametrize("key", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "g" * 64])
def test_a_key_is_a_digest(store: MapStore, key: str) -> None:
    adding = lambda code, k: store.add(code, k, some_maps())  # noqa: E731
    for ask in (store.load, store.sides, adding):
        with pytest.raises(ModelError, match="SHA-256"):
            ask(CODE, key)
    with pytest.raises(ModelError, match="SHA-256"):
        store.missing(CODE, [key])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(store: MapStore, value: float) -> None:
    levels = [level.copy() for level in some_maps().levels]
    levels[1][0, 0, 0] = value
    with pytest.raises(ModelError, match="not finite"):
        store.add(CODE, KEY, ImageMaps(tuple(levels), (4, 4)))
    assert store.missing(CODE, [KEY]) == [KEY]


def test_values_beyond_half_precision_end_at_its_range(store: MapStore) -> None:
    maps = ImageMaps.of((np.array([[[1e9, -1e9, 1.0]]], np.float32),), (1, 1))
    assert maps.levels[0].ravel().tolist() == [LARGEST, -LARGEST, 1.0]
    store.add(CODE, KEY, maps)


def test_pooled_at_the_precision_of_the_cache() -> None:
    full = tuple(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32) for _ in "ab")
    found = ImageMaps.of(full, (9, 9)).pooled()
    assert found.shape == (8,)
    np.testing.assert_allclose(found, pooled(full), atol=1e-3)
    expected = [channel.astype(np.float16).astype(float).mean() for lv in full for channel in lv]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_many_writers_of_one_image_leave_one_whole_file(store: MapStore) -> None:
    """Readers meanwhile see either nothing or everything."""
    versions = [some_maps(n) for n in range(4)]
    errors: list[BaseException] = []
    done = threading.Event()

    def write(maps: ImageMaps) -> None:
        for _ in range(5):
            store.add(CODE, KEY, maps)

    def read() -> None:
        while not done.is_set():
            try:
                if not store.missing(CODE, [KEY]):
                    found = store.load(CODE, KEY)
                    assert any(equal(found, v) for v in versions)
            except BaseException as exc:
                errors.append(exc)
                return

    writers = [threading.Thread(target=write, args=(v,)) for v in versions]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert errors == []
    assert any(equal(store.load(CODE, KEY), v) for v in versions)
    assert [p.name for p in store._path(CODE, KEY).parent.iterdir()] == [f"{KEY}.safetensors"]
