from __future__ import annotations

import threading
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.backbones import Backbone
from model.extract import extract
from model.images import decode_image


def png(seed: int) -> bytes:
    out = BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


class ColourBackbone:
    """Features are the mean colour; counts what it is asked."""

    name, dim, size_px, hash = "colour", 3, 8, "c"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def prepare(self, image: Image.Image) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        return np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.batches.append(len(inputs))
        return inputs.mean(axis=(2, 3))

    def features(self, images: list[Image.Image]) -> np.ndarray:
        return self.forward(np.stack([self.prepare(image) for image in images]))


@pytest.mark.parametrize("count", [0, 1, 4, 11])
@pytest.mark.parametrize("threads", [1, 3])
def test_features_keep_their_names_and_order(count: int, threads: int) -> None:
    backbone = ColourBackbone()
    items = [(f"i{n}", png(n)) for n in range(count)]
    names, rows = [], []
    for batch_names, features, errors in extract(backbone, items, batch=4, decode_threads=threads):
        assert not errors
        assert len(batch_names) == len(features)
        names += batch_names
        rows += list(features)
    assert names == [name for name, _ in items]
    expected = [ColourBackbone().features([decode_image(data)])[0] for _, data in items]
    np.testing.assert_allclose(np.array(rows).reshape(-1, 3), np.array(expected).reshape(-1, 3))
    assert sum(backbone.batches) == count
    assert all(name.startswith("decode") for name in backbone.threads)


def test_broken_images_cost_nobody_else_anything() -> None:
    items = [("a", png(1)), ("b", b""), ("c", b"text"), ("d", png(2)), ("e", b"\x89PNG")]
    names: list[str] = []
    errors: dict[str, str] = {}
    for batch_names, features, batch_errors in extract(ColourBackbone(), items, batch=2):
        assert features.shape == (len(batch_names), 3)
        names += batch_names
        errors |= batch_errors
    assert names == ["a", "d"]
    assert set(errors) == {"b", "c", "e"}
    assert "empty" in errors["b"]


def test_images_are_read_no_further_than_two_batches_ahead() -> None:
    taken = 0

    def endless() -> Iterator[tuple[str, bytes]]:
        nonlocal taken
        while True:
            taken += 1
            yield str(taken), png(0)

    batches = extract(ColourBackbone(), endless(), batch=4)
    next(batches)
    assert taken <= 12
    batches.close()


def test_an_error_of_the_source_reaches_the_caller() -> None:
    def failing() -> Iterator[tuple[str, bytes]]:
        yield "a", png(0)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(extract(ColourBackbone(), failing()))


def test_the_path_of_jobs_equals_features_of_decoded_images(lite0: Backbone) -> None:
    items = [(str(n), png(n)) for n in range(3)]
    ((_, features, _),) = extract(lite0, items)
    images = [decode_image(data, size_hint=lite0.size_px) for _, data in items]
    np.testing.assert_allclose(features, lite0.features(images), atol=1e-4)
