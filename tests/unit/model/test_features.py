from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from model.errors import MissingFeaturesError, ModelError, ShapeError
from model.features import FeatureStore

HASH = "abc123"


def keys_of(*names: object) -> list[str]:
    return [hashlib.sha256(str(name).encode()).hexdigest() for name in names]


def rows(*values: float) -> np.ndarray:
    return np.array([[value, -value] for value in values], np.float32)


def test_rows_come_back_in_the_order_asked_with_repeats(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    a, b, c = keys_of("a", "b", "c")
    store.add(HASH, [a, b], rows(1, 2))
    store.add(HASH, [c], rows(3))
    assert store.load(HASH, [c, a, b, a])[:, 0].tolist() == [3, 1, 2, 1]
    assert store.load(HASH, [c]).dtype == np.float32


def test_missing_keeps_the_order_and_drops_repeats(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    a, b, c = keys_of("a", "b", "c")
    assert store.missing(HASH, []) == []
    assert store.missing(HASH, [c, a, c]) == [c, a]
    store.add(HASH, [a], rows(1))
    assert store.missing(HASH, [c, a, b, c]) == [c, b]
    assert store.missing("another", [a]) == [a]


def test_absent_features_are_an_error_that_names_the_image(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    a, b = keys_of("a", "b")
    store.add(HASH, [a], rows(1))
    with pytest.raises(MissingFeaturesError, match=f"1 of 2 images .* {b}"):
        store.load(HASH, [a, b])


def test_digests_that_end_in_zero_bytes(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    keys = ["ab" + "00" * 31, "ab" + "00" * 30 + "01", "00" * 32]
    store.add(HASH, keys, rows(1, 2, 3))
    assert store.load(HASH, keys)[:, 0].tolist() == [1, 2, 3]
    with pytest.raises(MissingFeaturesError, match="cd" + "00" * 31):
        store.load(HASH, ["cd" + "00" * 31])


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with pytest.raises(ShapeError):
        store.add(HASH, keys_of("a"), rows(1, 2))
    with pytest.raises(ModelError, match="'nonsense' is not a SHA-256"):
        store.add(HASH, ["nonsense"], rows(1))
    with pytest.raises(ModelError, match="not finite"):
        store.add(HASH, keys_of("a"), rows(np.nan))
    store.add(HASH, [], np.zeros((0, 2), np.float32))
    assert not list(tmp_path.rglob("*.npy"))


def test_a_store_sees_what_another_added_later(tmp_path: Path) -> None:
    reader, writer = FeatureStore(tmp_path), FeatureStore(tmp_path)
    (a,) = keys_of("a")
    assert reader.missing(HASH, [a]) == [a]
    writer.add(HASH, [a], rows(7))
    assert reader.load(HASH, [a])[0, 0] == 7


def test_a_shard_without_its_keys_does_not_exist_and_is_removed_when_old(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    a, b = keys_of("a", "b")
    store.add(HASH, [a], rows(1))
    store.add(HASH, [b], rows(2))
    torn = tmp_path / HASH / "s-torn.npy"
    np.save(torn, rows(9))
    assert store.load(HASH, [a, b])[:, 0].tolist() == [1, 2]
    store.compact(HASH)
    assert torn.exists()
    os.utime(torn, (time.time() - 7200,) * 2)
    store.compact(HASH)
    assert not torn.exists()
    assert store.load(HASH, [a, b])[:, 0].tolist() == [1, 2]


def test_compaction_leaves_one_shard_without_repeats(tmp_path: Path) -> None:
    store, reader = FeatureStore(tmp_path), FeatureStore(tmp_path)
    keys = keys_of(*range(50))
    for start in range(0, 50, 5):
        stop = start + 6  # one row of the next shard too
        store.add(HASH, keys[start:stop], rows(*range(start, min(stop, 50))))
    assert reader.load(HASH, keys)[:, 0].tolist() == list(range(50))
    store.compact(HASH)
    assert len(list(tmp_path.rglob("*.npy"))) == len(list(tmp_path.rglob("*.keys"))) == 1
    assert (tmp_path / HASH / next(tmp_path.rglob("*.keys"))).stat().st_size == 50 * 32
    assert reader.load(HASH, keys[::-1])[:, 0].tolist() == list(range(50))[::-1]
    store.compact("never seen")


def _write(root: Path, worker: int) -> None:
    store = FeatureStore(root)
    for step in range(10):
        store.add(HASH, keys_of((worker, step)), rows(worker * 10 + step))
        if step % 4 == 3:
            store.compact(HASH)


def test_processes_may_add_read_and_compact_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    store = FeatureStore(tmp_path)
    everything = keys_of(*((w, s) for w in range(3) for s in range(10)))
    while any(worker.is_alive() for worker in workers):
        there = sorted(set(everything) - set(store.missing(HASH, everything)))
        assert len(store.load(HASH, there)) == len(there)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert store.load(HASH, everything)[:, 0].tolist() == list(range(30))


def test_a_hundred_thousand_rows_load_in_seconds(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    count, dim = 100_000, 16
    digests = np.random.default_rng(0).bytes(32 * count)
    keys = [digests[i * 32 : i * 32 + 32].hex() for i in range(count)]
    features = np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)
    for start in range(0, count, 5000):
        store.add(HASH, keys[start : start + 5000], features[start : start + 5000])
    begin = time.perf_counter()
    loaded = store.load(HASH, keys)
    assert time.perf_counter() - begin < 10
    np.testing.assert_allclose(loaded, features, rtol=2e-3, atol=1e-3)
