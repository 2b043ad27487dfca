"""Other views of labelled images: what they show, where objects are in them, and what is kept."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.backbones.pyramid import canvas
from model.detection.maps import ImageMaps, MapStore
from model.detection.types import BoxLabels
from model.detection.views import (
    MOST_VIEWED,
    VIEWS,
    ZOOM,
    StoredViews,
    Window,
    cache_views,
    images_to_view,
    missing_views,
    shown_through,
    view_keys,
    window_of,
)

CODE = "0123456789ab"


def key_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Averages:
    """A pyramid of one level: means of blocks of 32 pixels."""

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        return 64, 64

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((64, 64)), np.float32) / 255

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return (pixels.reshape(2, 32, 2, 32, 3).mean((1, 3)).transpose(2, 0, 1),)


def png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_a_window_moves_boxes_and_tells_what_is_cut_off() -> None:
    drawn = BoxLabels.of(
        [[0.3, 0.3, 0.5, 0.5], [0.0, 0.0, 0.2, 0.2], [0.2, 0.2, 0.35, 0.3], [0.7, 0.3, 0.9, 0.4]],
        [0, 1, 2, 1],
        accepted=[True, False, False, True],
        ignored=[[0.4, 0.4, 0.9, 0.5], [0.9, 0.9, 1.0, 1.0]],
    )
    seen = Window(0.25, 0.25, 0.5, 0.5).drawn(drawn)
    np.testing.assert_allclose(seen.boxes, [[0.1, 0.1, 0.5, 0.5]])
    assert seen.labels.tolist() == [0]
    assert seen.accepted.tolist() == [True]
    # The ignored area within it, and objects of which less than half is seen.
    np.testing.assert_allclose(
        seen.ignored, [[0.3, 0.3, 1, 0.5], [0, 0, 0.2, 0.1], [0.9, 0.1, 1, 0.3]]
    )


def test_nothing_drawn_stays_nothing() -> None:
    seen = Window(-0.1, 0.0, 1.2, 1.1).drawn(BoxLabels.of([], []))
    assert len(seen) == 0
    assert seen.ignored.shape == (0, 4)


@given(st.integers(0, 10**6), st.lists(st.tuples(*[st.floats(0, 0.9)] * 4), max_size=6))
def test_boxes_of_any_view_are_boxes(number: int, corners: list[tuple[float, ...]]) -> None:
    boxes = [[x, y, x + max(w * (1 - x), 0.01), y + max(h * (1 - y), 0.01)]
             for x, y, w, h in corners]  # fmt: skip
    seen = window_of(key_of(str(number))).drawn(BoxLabels.of(boxes, [0] * len(boxes)))
    again = BoxLabels.of(
        seen.boxes.tolist(), seen.labels.tolist(), accepted=seen.accepted.tolist(),
        ignored=seen.ignored.tolist(),
    )  # fmt: skip
    assert len(again) + len(again.ignored) <= len(boxes)


@pytest.mark.parametrize("size", [(320, 240), (2400, 1700)])
def test_an_object_is_where_the_window_says(size: tuple[int, int]) -> None:
    """Of small images and of those that are made smaller first."""
    width, height = size
    box = np.array([[0.4, 0.45, 0.55, 0.6]])
    image = Image.new("RGB", size, (40, 40, 40))
    pixels = (box[0] * [width, height, width, height]).astype(int)
    image.paste((230, 230, 230), tuple(pixels.tolist()))
    for n in range(20):
        key = key_of(f"view {n}")
        seen = np.asarray(shown_through(image, key, canvas(*size)).convert("L"), float)
        bright = seen > (seen.min() + seen.max()) / 2
        ys, xs = np.nonzero(bright)
        found = [xs.min() / seen.shape[1], ys.min() / seen.shape[0],
                 (xs.max() + 1) / seen.shape[1], (ys.max() + 1) / seen.shape[0]]  # fmt: skip
        said = window_of(key).drawn(BoxLabels.of(box.tolist(), [0]))
        where = said.boxes if len(said) else said.ignored
        np.testing.assert_allclose(found, where[0], atol=0.012)


def test_views_differ_in_zoom_and_colour_and_are_the_same_every_time() -> None:
    image = Image.effect_noise((96, 64), 80).convert("RGB")
    keys = [key_of(str(n)) for n in range(200)]
    zooms = 1 / np.array([(w.width * w.height) ** 0.5 for w in map(window_of, keys)])
    assert zooms.min() >= ZOOM[0] - 1e-9
    assert zooms.max() <= ZOOM[1] + 1e-9
    assert zooms.min() < 0.8 < 1.3 < zooms.max()
    for key in keys[:50]:
        window = window_of(key)
        assert window == window_of(key)
        for start, side in ((window.left, window.width), (window.top, window.height)):
            assert min(0, 1 - side) <= start <= max(0, 1 - side)
    first, again, other = (
        np.asarray(shown_through(image, k, (96, 64))) for k in (keys[0], *keys[:2])
    )
    assert first.shape == (64, 96, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_views_are_kept_once_and_read_when_asked_for(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    files = {key_of(str(n)): png(Image.effect_noise((80, 60), 60)) for n in range(3)}
    bad = key_of("bad")
    items = [*files.items(), (bad, b"no image")]
    assert missing_views(store, CODE, [*files, *files]) == list(files)
    pyramid = Averages()
    assert list(cache_views(pyramid, items, code=CODE, maps=store)) == [*files, bad]  # type: ignore[arg-type]
    assert missing_views(store, CODE, [*files, bad]) == [bad]
    views = StoredViews(store, CODE, [*files, bad])
    assert [len(one) for one in views] == [VIEWS] * 3 + [0]
    name = view_keys(next(iter(files)))[2]
    seen = views[0][2]
    assert seen.window == window_of(name)
    assert seen.maps.size == (80, 60)
    image = Image.open(BytesIO(next(iter(files.values())))).convert("RGB")
    seen_so = shown_through(image, name, pyramid.canvas(*image.size))
    wanted = ImageMaps.of(pyramid.forward(pyramid.prepare(seen_so)), image.size)
    np.testing.assert_array_equal(seen.maps.levels[0], wanted.levels[0])
    assert [v.window for v in views[1:3][0][1:3]] == [v.window for v in views[1]][1:3]


def test_views_are_wanted_of_few_labelled_images_only() -> None:
    keys = [key_of(str(n)) for n in range(MOST_VIEWED)]
    assert images_to_view([*keys[1:], keys[1]]) == keys[1:]
    assert images_to_view([*keys, key_of("one more")]) == []
    assert len({name for key in keys for name in view_keys(key)}) == VIEWS * len(keys)
