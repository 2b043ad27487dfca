"""Cached features on disk: immutable shards, written by many processes at once.

``root/<backbone hash>/<shard>.npy`` holds ``(n, D)`` float16, ``<shard>.keys`` the n 32-byte
digests of its rows. The keys file is renamed into place last: a shard without one does not exist.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.errors import MissingFeaturesError, ModelError, ShapeError

KEY_BYTES = 32
_DIGEST = f"S{KEY_BYTES}"  # numpy pads with zero bytes: comparing stays exact at a fixed length
COPY_ROWS = 8192
LARGE_ROWS = 65_536  # compaction leaves shards of this size alone, so that it copies them once
ORPHAN_AGE_S = 3600.0
_RETRIES = 50  # 5 were too few beside three processes that compact without a pause

T = TypeVar("T")


class FeatureStore:
    """Features by the SHA-256 of the image's bytes.

    Safe to use from any number of processes that share the folder; an instance is for one thread.

    Args:
        root: a folder; made when something is first added.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._indexes: dict[str, _Index] = {}

    def add(self, backbone_hash: str, keys: Sequence[str], features: NDArray[np.float32]) -> None:
        """Write one shard, durable when this returns.

        Args:
            backbone_hash: of the backbone that made the features.
            keys: SHA-256 of each image's bytes, 64 hex digits. Adding a key again is harmless.
            features: ``(len(keys), D)``, finite; stored as float16.

        Raises:
            ShapeError: the numbers of keys and rows differ.
            ModelError: a key is not a SHA-256, or a feature is not finite.
        """
        if features.ndim != 2 or len(features) != len(keys):
            raise ShapeError("features", expected=f"({len(keys)}, D)", got=features.shape)
        if not len(keys):
            return
        digests = _to_digests(keys)
        rows = np.clip(features, -65504.0, 65504.0).astype(np.float16)
        if not np.isfinite(rows).all():
            bad = keys[int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])]
            raise ModelError(f"features of image {bad} are not finite; is the backbone damaged?")
        folder = self._root / backbone_hash
        folder.mkdir(parents=True, exist_ok=True)
        shard = _Shard(folder / f"s-{uuid.uuid4().hex}")
        shard.commit(digests, lambda path: _save(path, rows))

    def missing(self, backbone_hash: str, keys: Sequence[str]) -> list[str]:
        """Give the keys that have no features yet, in their order, each once."""
        unique = list(dict.fromkeys(keys))
        if not unique:
            return []
        found = self._index(backbone_hash).find(_to_digests(unique)) >= 0
        return [key for key, is_found in zip(unique, found.tolist(), strict=True) if not is_found]

    def load(self, backbone_hash: str, keys: Sequence[str]) -> NDArray[np.float32]:
        """Read the features of `keys`, in their order, duplicates repeated.

        Returns:
            ``(len(keys), D)`` float32; ``(0, 0)`` without keys.

        Raises:
            MissingFeaturesError: some are not in the cache.
        """
        if not len(keys):
            return np.zeros((0, 0), np.float32)
        digests = _to_digests(keys)
        return _retry(lambda: self._index(backbone_hash).load(digests))

    def compact(self, backbone_hash: str) -> None:
        """Merge small shards into one and drop duplicates; readers and writers may go on.

        A reader that meets a shard just removed looks again. Two compactions at once cost double
        work and leave duplicates for the next one, nothing else.
        """
        folder = self._root / backbone_hash
        if not folder.is_dir():
            return
        _remove_orphans(folder)
        small = [shard for shard in _shards(folder) if (shard.count() or 0) < LARGE_ROWS]
        if len(small) < 2:
            return
        try:
            digests_per_shard = [shard.digests() for shard in small]
            _, first = np.unique(np.concatenate(digests_per_shard), return_index=True)
            merged = _Shard(folder / f"s-{uuid.uuid4().hex}")
            keep = np.sort(first)
            starts = np.cumsum([0, *(len(digests) for digests in digests_per_shard)])
            merged.commit(
                np.concatenate(digests_per_shard)[keep],
                lambda path: _merge(path, small, starts, keep),
            )
        except FileNotFoundError:  # another compaction is doing this
            return
        for shard in small:
            shard.remove()

    def _index(self, backbone_hash: str) -> _Index:
        index = self._indexes.setdefault(backbone_hash, _Index(self._root / backbone_hash))
        _retry(index.refresh)
        return index


class _Shard:
    """One pair of files."""

    def __init__(self, stem: Path) -> None:
        self.stem = stem
        self.rows_path = stem.with_name(stem.name + ".npy")
        self.keys_path = stem.with_name(stem.name + ".keys")

    def count(self) -> int | None:
        try:
            return self.keys_path.stat().st_size // KEY_BYTES
        except FileNotFoundError:
            return None

    def digests(self) -> NDArray[np.bytes_]:
        return np.frombuffer(self.keys_path.read_bytes(), dtype=_DIGEST)

    def rows(self) -> NDArray[np.float16]:
        rows: NDArray[np.float16] = np.load(self.rows_path, mmap_mode="r", allow_pickle=False)
        return rows

    def commit(self, digests: NDArray[np.bytes_], write_rows: Callable[[Path], None]) -> None:
        temporary = self.stem.with_name(f".{self.stem.name}.tmp")
        try:
            write_rows(temporary)
            temporary.replace(self.rows_path)
            with temporary.open("wb") as file:
                file.write(digests.tobytes())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.keys_path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self.stem.parent)

    def remove(self) -> None:
        self.keys_path.unlink(missing_ok=True)
        self.rows_path.unlink(missing_ok=True)


class _Index:
    """Where each key of one backbone is; reads only shards it has not seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, _Shard] = {}
        self._digests: dict[str, NDArray[np.bytes_]] = {}
        self._forget_order()

    def _forget_order(self) -> None:
        self._sorted: NDArray[np.bytes_] = np.zeros(0, _DIGEST)
        self._where: NDArray[np.int64] = np.zeros(0, np.int64)  # position in all rows of all shards
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)

    def refresh(self) -> None:
        present = {shard.stem.name: shard for shard in _shards(self._folder)}
        if present.keys() == self._shards.keys():
            return
        digests = {
            name: self._digests[name] if name in self._digests else shard.digests()
            for name, shard in present.items()
        }
        self._shards, self._digests = present, digests
        everything = np.concatenate(list(digests.values()) or [np.zeros(0, _DIGEST)])
        self._where = np.argsort(everything, kind="stable")
        self._sorted = everything[self._where]
        self._starts = np.cumsum([0, *(len(rows) for rows in digests.values())])

    def find(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Position of each digest among all rows, -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(digests), -1, np.int64)
        slot = np.minimum(np.searchsorted(self._sorted, digests), len(self._sorted) - 1)
        return np.where(self._sorted[slot] == digests, self._where[slot], -1)

    def load(self, digests: NDArray[np.bytes_]) -> NDArray[np.float32]:
        position = self.find(digests)
        absent = np.flatnonzero(position < 0)
        if len(absent):
            first = digests[absent[0]].ljust(KEY_BYTES, b"\0").hex()
            raise MissingFeaturesError(
                f"{len(absent)} of {len(digests)} images have no features in {self._folder} "
                f"(the first is {first}); extract them before asking"
            )
        shard_of = np.searchsorted(self._starts, position, side="right") - 1
        shards = list(self._shards.values())
        features: NDArray[np.float32] | None = None
        for number in np.unique(shard_of).tolist():
            rows = shards[number].rows()
            if features is None:
                features = np.empty((len(digests), rows.shape[1]), np.float32)
            wanted = np.flatnonzero(shard_of == number)
            wanted = wanted[np.argsort(position[wanted])]  # the disk is read front to back
            for start in range(0, len(wanted), COPY_ROWS):
                block = wanted[start : start + COPY_ROWS]
                features[block] = rows[position[block] - self._starts[number]]
        assert features is not None
        return features


def _to_digests(keys: Sequence[str]) -> NDArray[np.bytes_]:
    try:
        raw = bytes.fromhex("".join(keys))
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES * len(keys) or any(len(key) != 2 * KEY_BYTES for key in keys):
        bad = next((key for key in keys if not _is_digest(key)), "")
        raise ModelError(f"{bad[:80]!r} is not a SHA-256; a key has 64 hex digits")
    return np.frombuffer(raw, dtype=_DIGEST)


def _is_digest(key: str) -> bool:
    return len(key) == 2 * KEY_BYTES and all(c in "0123456789abcdefABCDEF" for c in key)


def _shards(folder: Path) -> list[_Shard]:
    """Complete shards, in an order that is the same for every reader."""
    return [_Shard(path.with_suffix("")) for path in sorted(folder.glob("s-*.keys"))]


def _save(path: Path, rows: NDArray[np.float16]) -> None:
    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _merge(
    path: Path, shards: Sequence[_Shard], starts: NDArray[np.int64], keep: NDArray[np.int64]
) -> None:
    """Copy the rows `keep` (positions over all shards, ascending) into one file, in blocks."""
    first = shards[0].rows()
    merged = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float16, shape=(len(keep), first.shape[1])
    )
    done = 0
    for number, shard in enumerate(shards):
        low, high = np.searchsorted(keep, [starts[number], starts[number + 1]])
        rows = shard.rows()
        for start in range(int(low), int(high), COPY_ROWS):
            block = keep[start : min(start + COPY_ROWS, int(high))] - starts[number]
            merged[done : done + len(block)] = rows[block]
            done += len(block)
    merged.flush()
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove_orphans(folder: Path) -> None:
    """Remove what a process that died while writing has left."""
    before = time.time() - ORPHAN_AGE_S
    for path in [*folder.glob("s-*.npy"), *folder.glob(".s-*.tmp")]:
        try:
            is_old = path.stat().st_mtime < before
        except FileNotFoundError:
            continue
        if is_old and not path.with_suffix(".keys").exists():
            path.unlink(missing_ok=True)


def _retry(work: Callable[[], T]) -> T:
    """Look again when a shard vanished between listing and reading: it was compacted."""
    for attempt in range(_RETRIES):
        try:
            return work()
        except FileNotFoundError:
            if attempt == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
