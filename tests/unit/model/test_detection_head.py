"""A head without torch against the network it was, and against decoding written out slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.boxes import CHANNELS, head_shape, standard

from model.backbones.pyramid import STRIDES
from model.detection.geometry import iou_matrix
from model.detection.graph import last_layers, write_head
from model.detection.head import BEFORE, LEAST_SCORE, Head, Kept, LastLayers
from model.detection.maps import ImageMaps
from model.detection.shape import LARGEST_LOG, REACH
from model.detection.suppression import non_maximum_suppression

torch = pytest.importorskip("torch", reason="needs doubtless[train]")

from model.detection.network import HeadNetwork  # noqa: E402
from model.detection.training import boxes_of  # noqa: E402

SIZES = [(2, 2), (3, 5), (7, 2)]


def network(
    levels: int,
    *,
    n_classes: int = 3,
    spread: float = 1.0,
    start: float = -2.0,
    coarser: int = 0,
):
    """Random weights everywhere, so that no part of it does nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(levels)
        found = HeadNetwork(head_shape(levels, n_classes=n_classes, coarser=coarser)).eval()
        with torch.no_grad():
            for p in found.parameters():
                p.add_(torch.randn(p.shape) * 0.05)
            found.classify.weight.normal_(std=spread / 2)
            found.classify.bias.fill_(start)
            found.regress.weight.normal_(std=spread / 10)
            found.scale.normal_(std=0.3)
    return found


def head_of(net, given=None, *, overlap: float = 0.6) -> Head:
    last = LastLayers(
        (net.classify.weight.detach().numpy().T.copy(), net.classify.bias.detach().numpy().copy()),
        (net.regress.weight.detach().numpy().T.copy(), net.regress.bias.detach().numpy().copy()),
        net.scale.detach().numpy().copy(),
    )
    graph = write_head([net], given or standard(net.shape))
    return Head(net.shape, graph, last, overlap=overlap)


def random_maps(rows: int, columns: int, seed: int = 0) -> ImageMaps:
    rng = np.random.default_rng(seed)
    levels = [
        rng.normal(0.5, 2, (c, rows * 32 // s, columns * 32 // s)).astype(np.float16)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]
    return ImageMaps(tuple(levels), (columns * 40, rows * 50))


def torch_outputs(net, given, maps: ImageMaps):
    levels = [
        torch.from_numpy((x.astype(np.float32) - m[:, None, None]) / d[:, None, None])[None]
        for x, (m, d) in zip(maps.levels[-len(net.shape.inputs) :], given, strict=True)
    ]
    with torch.no_grad():
        logits, outputs = net(levels)
    return logits[0], outputs[0]


@pytest.mark.parametrize("coarser", [0, 1, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_graph_equals_the_network(levels: int, coarser: int) -> None:
    net = network(levels, coarser=coarser)
    given = standard(net.shape, seed=levels)
    head = head_of(net, given)
    for rows, columns in SIZES:
        maps = random_maps(rows, columns)
        logits, outputs = torch_outputs(net, given, maps)
        of_class, of_box, grid, canvas = head.features(maps)
        assert canvas == (columns * 32, rows * 32)
        assert len(grid) == sum(
            math.ceil(rows * 32 / s) * math.ceil(columns * 32 / s) for s in net.shape.strides
        )
        weight, bias = head.last.classify
        np.testing.assert_allclose(of_class @ weight + bias, logits, atol=1e-3)
        level = np.array([net.shape.strides.index(int(s)) for s in grid[:, 2]])
        boxes, quality, spread = head.boxes(of_box, grid, level)
        expected = boxes_of(outputs, torch.from_numpy(grid))
        np.testing.assert_allclose(boxes, expected, atol=0.05, rtol=1e-3)
        np.testing.assert_allclose(quality, outputs[:, 4].sigmoid(), atol=1e-3)
        np.testing.assert_allclose(spread, outputs[:, 5:].exp(), rtol=2e-3)
        assert logits.std() > 0.3  # it would not notice much otherwise


def test_several_networks_say_their_mean() -> None:
    nets = [network(2, spread=s, start=-s) for s in (0.5, 1.0, 2.0)]
    for n, net in enumerate(nets):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(n)
            for p in net.parameters():
                p.add_(torch.randn(p.shape) * 0.05)
    given = standard(nets[0].shape, seed=2)
    head = Head(nets[0].shape, write_head(nets, given), last_layers(nets))
    maps = random_maps(3, 5)
    told = [torch_outputs(net, given, maps) for net in nets]
    logits = np.mean([t[0].numpy() for t in told], axis=0)
    outputs = torch.stack([t[1] for t in told]).mean(0)
    of_class, of_box, grid, _ = head.features(maps)
    weight, bias = head.last.classify
    np.testing.assert_allclose(of_class @ weight + bias, logits, atol=1e-3)
    level = np.array([nets[0].shape.strides.index(int(s)) for s in grid[:, 2]])
    boxes, quality, _ = head.boxes(of_box, grid, level)
    expected = boxes_of(outputs, torch.from_numpy(grid))
    np.testing.assert_allclose(boxes, expected, atol=0.05, rtol=1e-3)
    np.testing.assert_allclose(quality, outputs[:, 4].sigmoid(), atol=1e-3)
    apart = [np.abs(t[0].numpy() - logits).mean() for t in told]
    assert min(apart) > 0.1  # one of them alone would not pass


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    shared = width * height
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole > 0 else 0.0


def slow_find(net, given, maps: ImageMaps, overlap: float) -> list[tuple]:
    """Location by location: boxes in shares, label, score, quality, spread in shares."""
    logits, outputs = torch_outputs(net, given, maps)
    height, width = (32 * n for n in maps.levels[-1].shape[1:])
    places = [
        ((column + 0.5) * s, (row + 0.5) * s, s)
        for s in net.shape.strides
        for row in range(math.ceil(height / s))
        for column in range(math.ceil(width / s))
    ]
    found = []
    for (x, y, s), scores, out in zip(places, logits.tolist(), outputs.tolist(), strict=True):
        label = max(range(len(scores)), key=lambda c: scores[c])
        score = 1 / (1 + math.exp(-scores[label]))
        if score <= LEAST_SCORE or x >= width or y >= height:
            continue
        reach = [math.exp(min(max(v, -LARGEST_LOG), LARGEST_LOG)) * REACH * s for v in out[:4]]
        box = [x - reach[0], y - reach[1], x + reach[2], y + reach[3]]
        box = [min(max(v / n, 0.0), 1.0) for v, n in zip(box, (width, height) * 2, strict=True)]
        sides = [box[2] - box[0], box[3] - box[1]] * 2
        spread = [math.exp(v) * side for v, side in zip(out[5:], sides, strict=True)]
        found.append((score, box, label, 1 / (1 + math.exp(-out[4])), spread))
    found = sorted(found, key=lambda f: -f[0])[: BEFORE * net.shape.regions]
    kept: list[tuple] = []
    for one in found:
        if not any(k[2] == one[2] and slow_iou(k[1], one[1]) > overlap for k in kept):
            kept.append(one)
    return kept[: net.shape.regions]


@pytest.mark.parametrize("coarser", [0, 1, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_regions_equal_a_slow_decoding(levels: int, rows: int, columns: int, coarser: int) -> None:
    net = network(levels, coarser=coarser)
    given = standard(net.shape, seed=levels)
    head = head_of(net, given, overlap=0.5)
    maps = random_maps(rows, columns, seed=5)
    found = head.find(maps)
    expected = slow_find(net, given, maps, 0.5)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.score, [e[0] for e in expected], atol=1e-4)
    np.testing.assert_allclose(found.boxes, [e[1] for e in expected], atol=1e-3)
    assert found.label.tolist() == [e[2] for e in expected]
    np.testing.assert_allclose(found.quality, [e[3] for e in expected], atol=1e-3)
    np.testing.assert_allclose(found.spread, [e[4] for e in expected], rtol=1e-2, atol=1e-4)


def test_what_is_kept_belongs_together() -> None:
    """Boxes, scores and levels are what the last layers read from the features beside them."""
    net = network(3)
    head = head_of(net)
    found = head.find(random_maps(3, 4))
    weight, bias = head.last.classify
    logits = found.of_class @ weight + bias
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-logits.astype(float))), atol=1e-6)
    assert (found.label == found.scores.argmax(1)).all()
    boxes, quality, _ = head.boxes(found.of_box, found.grid, found.level)
    shares = np.clip(boxes / np.array([*found.canvas, *found.canvas]), 0, 1)
    np.testing.assert_allclose(found.boxes, shares, atol=1e-5)
    np.testing.assert_allclose(found.quality, quality, atol=1e-6)
    assert (np.array(net.shape.strides)[found.level] == found.grid[:, 2]).all()
    assert len(set(found.level.tolist())) > 1
    turned = found.take(np.arange(len(found))[::-1])
    assert isinstance(turned, Kept)
    np.testing.assert_array_equal(turned.boxes[::-1], found.boxes)
    assert turned.canvas == found.canvas


def test_never_more_than_its_shape_says_and_none_with_next_to_no_score() -> None:
    net = network(3, start=4.0)
    many = head_of(net, overlap=1.0).find(random_maps(7, 7))
    assert len(many) == net.shape.regions == 100
    more = head_of(net, overlap=1.0)
    more.shape = replace(net.shape, regions=150)
    found = more.find(random_maps(7, 7))
    assert len(found) == 150
    np.testing.assert_array_equal(found.boxes[:100], many.boxes)
    found = head_of(network(3, start=-4.0)).find(random_maps(7, 7))
    assert len(found) > 0
    assert found.score.min() >= LEAST_SCORE
    assert (np.diff(found.score) <= 0).all()
    none = head_of(network(3, start=-40.0)).find(random_maps(3, 3))
    assert len(none) == 0
    assert none.boxes.shape == none.spread.shape == (0, 4)
    assert none.scores.shape == (0, 3)
    assert none.score.shape == (0,)


def test_regions_stay_within_the_image() -> None:
    found = head_of(network(3, spread=6.0)).find(random_maps(2, 5))
    assert len(found) > 0
    assert found.boxes.min() >= 0.0
    assert found.boxes.max() <= 1.0
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert {0.0, 1.0} <= set(found.boxes.ravel().tolist())


def test_a_head_comes_back_from_its_arrays() -> None:
    head = head_of(network(2), overlap=0.55)
    back = Head.restore(head.shape, head.arrays())
    maps = random_maps(3, 3)
    one, two = head.find(maps), back.find(maps)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name))
    assert back.overlap == 0.55
    assert back.arrays().keys() == head.arrays().keys()


SEEDS = st.integers(0, 2**32 - 1)


def rivals(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 30))
    corner = rng.uniform(0, 3, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 2, (count, 2))], 1)
    return boxes, rng.permutation(count) / 100, rng.integers(0, 3, count)


@given(SEEDS, st.floats(0.0, 1.0))
def test_suppression_leaves_no_rivals_and_drops_none_without(seed: int, overlap: float) -> None:
    boxes, scores, labels = rivals(seed)
    kept = non_maximum_suppression(boxes, scores, labels, overlap=overlap)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    near = (iou_matrix(boxes, boxes) > overlap) & (labels[:, None] == labels[None, :])
    among = near[np.ix_(kept, kept)] & ~np.eye(len(kept), dtype=bool)
    assert not among.any()
    for gone in set(range(len(boxes))) - set(kept.tolist()):
        assert (near[gone, kept] & (scores[kept] >= scores[gone])).any()
    again = non_maximum_suppression(boxes[kept], scores[kept], labels[kept], overlap=overlap)
    assert again.tolist() == list(range(len(kept)))


@given(SEEDS)
def test_suppression_does_not_depend_on_the_order(seed: int) -> None:
    boxes, scores, labels = rivals(seed)
    order = np.random.default_rng(seed).permutation(len(boxes))
    one = non_maximum_suppression(boxes, scores, labels, overlap=0.3)
    other = non_maximum_suppression(boxes[order], scores[order], labels[order], overlap=0.3)
    assert order[other].tolist() == one.tolist()


def test_suppression_by_hand() -> None:
    boxes = np.array([[0.0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 1, 0.8], [0.0, 0, 1, 1]])
    scores, labels = np.array([0.5, 0.9, 0.4, 0.8]), np.array([0, 0, 0, 1])
    # 0 has 0.9 with 1; 2 has 8/9 with 1; 3 is of another class.
    assert non_maximum_suppression(boxes, scores, labels, overlap=0.5).tolist() == [1, 3]
    assert non_maximum_suppression(boxes, scores, labels, overlap=0.89).tolist() == [1, 3, 2]
    assert non_maximum_suppression(boxes, scores, labels, overlap=1.0).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("levels", [1, 2])
def test_the_finer_map_moves_boxes_and_no_classes(levels: int) -> None:
    head = head_of(network(levels))
    maps = random_maps(3, 5)
    of_class, of_box, _, _ = head.features(maps)
    for below in range(len(STRIDES) - levels):
        changed = list(maps.levels)
        changed[below] = random_maps(3, 5, seed=1).levels[below]
        class_now, box_now, _, _ = head.features(ImageMaps(tuple(changed), maps.size))
        np.testing.assert_array_equal(of_class, class_now)
        is_read = below == len(STRIDES) - levels - 1
        assert np.allclose(of_box, box_now, atol=0.1) != is_read
