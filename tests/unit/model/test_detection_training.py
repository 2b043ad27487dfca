"""What a head is fitted by: batches, losses, and that the same labels give the same weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from support.boxes import NOTHING, head_shape, painted, random_drawing, standard

torch = pytest.importorskip("torch", reason="needs doubtless[train]")

from model.backbones.pyramid import STRIDES  # noqa: E402
from model.detection import training  # noqa: E402
from model.detection.assignment import box_iou  # noqa: E402
from model.detection.copy_paste import Example, copy_paste  # noqa: E402
from model.detection.maps import ImageMaps  # noqa: E402
from model.detection.network import HeadNetwork  # noqa: E402
from model.detection.schedule import schedule_for  # noqa: E402
from model.detection.shape import REACH, HeadShape  # noqa: E402
from model.detection.training import (  # noqa: E402
    ACCEPTED_WEIGHT,
    boxes_of,
    collate,
    standard_of,
    train_head,
)
from model.detection.types import BoxLabels  # noqa: E402
from model.detection.views import View, Window  # noqa: E402
from model.errors import ModelError  # noqa: E402

SHAPE = head_shape()
PLAIN = standard(SHAPE)


def examples(count: int, *, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    drawn = [random_drawing(rng) for _ in range(count)]
    return [Example(painted(d, seed=seed + n), d) for n, d in enumerate(drawn)]


def loss_of(network: HeadNetwork, some: list[Example]) -> float:
    maps, truth, grid = collate(some, SHAPE, PLAIN, None)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return float(training._loss(network, maps, truth, grid))


def contrast_and_overlap(network: HeadNetwork, some: list[Example]) -> tuple[float, float]:
    """By how much logits are higher in the middle of boxes, and the mean IoU of boxes there."""
    maps, truth, grid = collate(some, SHAPE, PLAIN, None)
    with torch.no_grad():
        logits, outputs = network(maps)
    boxes = boxes_of(outputs, grid)
    centre = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    at = (grid[:, :2] - centre[:, None]).square().sum(2).argmin(1)
    inside = logits[truth.image, at, truth.labels]
    overlap = box_iou(boxes[truth.image, at], truth.boxes)
    return float(inside.mean() - logits.mean()), float(overlap.mean())


def fresh(shape: HeadShape = SHAPE) -> HeadNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HeadNetwork(shape)


def trained(some: list[Example], steps: int = 3, *, seed: int = 0) -> HeadNetwork:
    return train_head(some, SHAPE, PLAIN, seed=seed, steps=steps)


def same(a: HeadNetwork, b: HeadNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def finite(network: HeadNetwork) -> bool:
    return all(torch.isfinite(p).all() for p in network.parameters())


def test_a_few_steps_are_enough_to_see_what_is_plain_to_see(monkeypatch) -> None:
    monkeypatch.setattr(training, "WARM_UP", 5)
    monkeypatch.setattr(
        training, "schedule_for", lambda shape: replace(schedule_for(shape), rate=1e-2)
    )
    other = examples(6, seed=100)
    network = trained(examples(8), 30)
    contrast, overlap = contrast_and_overlap(network, other)
    contrast_before, overlap_before = contrast_and_overlap(fresh(), other)
    assert contrast > contrast_before + 0.3
    assert overlap > overlap_before + 0.05


def test_a_seed_gives_the_same_weights_and_another_one_others() -> None:
    some = examples(3)
    first = trained(some)
    assert same(first, trained(some))
    assert not same(first, trained(some, seed=1))
    assert not first.training
    assert finite(first)


def test_nobody_elses_random_numbers_are_touched() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    trained(examples(2))
    assert torch.equal(torch.rand(3), expected)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    "drawings",
    [
        [NOTHING],
        [NOTHING] * 3,
        [BoxLabels.of([[0.2, 0.2, 0.7, 0.7]], [1])],
        [BoxLabels.of([[0.1, 0.1, 0.1005, 0.1005]], [0]), NOTHING],
        [BoxLabels.of([[0.0, 0.0, 1.0, 1.0]] * 2, [0, 1])],
        [BoxLabels.of([], [], ignored=[[0.0, 0.0, 1.0, 1.0]])],
        [BoxLabels.of([[0.2, 0.2, 0.7, 0.7]], [1], ignored=[[0.0, 0.0, 1.0, 1.0]])],
    ],
    ids=["empty", "empties", "one box", "a dot", "the whole twice", "all ignored", "in ignored"],
)
@pytest.mark.parametrize("coarser", [0, 2])
def test_few_images_of_any_kind_train(drawings: list[BoxLabels], coarser: int) -> None:
    said: list[float] = []
    shape = head_shape(coarser=coarser)
    some = [Example(painted(d), d) for d in drawings]
    network = train_head(some, shape, standard(shape), seed=0, steps=2, progress=said.append)
    assert finite(network)
    assert said == [0.5, 1.0]


def test_a_head_that_diverged_is_none(monkeypatch) -> None:
    loss = training._loss
    monkeypatch.setattr(training, "_loss", lambda *given: loss(*given) * float("nan"))
    with pytest.raises(ModelError, match="diverged: its weights are not finite after 3 steps"):
        trained(examples(2))


def test_images_without_boxes_lower_all_scores() -> None:
    network = trained([Example(painted(NOTHING, seed=n), NOTHING) for n in range(3)], 20)
    maps, _, _ = collate([Example(painted(NOTHING, seed=9), NOTHING)], SHAPE, PLAIN, None)
    with torch.no_grad():
        assert network(maps)[0].max() < fresh()(maps)[0].max()


def gradients(
    some: list[Example], shape: HeadShape = SHAPE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By the class logits ``(B, L, C)`` and box outputs ``(B, L, 9)``, and the grid."""
    network = fresh(shape)
    kept: list[torch.Tensor] = []

    def remember(module, given, out) -> None:
        out[0].retain_grad()
        out[1].retain_grad()
        kept.extend(out)

    network.register_forward_hook(remember)
    maps, truth, grid = collate(some, shape, standard(shape), None)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout
        training._loss(network, maps, truth, grid).backward()
    return kept[0].grad, kept[1].grad, grid


def within(grid: torch.Tensor, area: list[float], example: Example) -> torch.Tensor:
    width, height = example.maps.levels[2].shape[:0:-1]
    x, y = grid[:, 0] / (width * 32), grid[:, 1] / (height * 32)
    return (x >= area[0]) & (x <= area[2]) & (y >= area[1]) & (y <= area[3])


def test_nothing_is_learnt_in_ignored_areas() -> None:
    area = [0.0, 0.0, 0.5, 0.6]
    drawn = BoxLabels.of([[0.6, 0.65, 0.95, 0.95]], [1], ignored=[area])
    example = Example(painted(drawn), drawn)
    by_class, by_box, grid = gradients([example])
    inside = within(grid, area, example)
    assert inside.any()
    assert (by_class[0, inside] == 0).all()
    assert (by_box[0, inside] == 0).all()
    assert (by_class[0, ~inside] != 0).all()


def test_an_object_in_an_ignored_area_is_learnt() -> None:
    box, area = [0.1, 0.1, 0.4, 0.4], [0.0, 0.0, 0.6, 0.6]
    drawn = BoxLabels.of([box], [1], ignored=[area])
    example = Example(painted(drawn), drawn)
    by_class, by_box, grid = gradients([example])
    answers = by_class[0, :, 1] < 0  # the score shall rise
    assert answers.any()
    assert within(grid, box, example)[answers].all()
    assert (by_box[0, answers][:, :5] != 0).any()
    beside = within(grid, area, example) & ~within(grid, box, example)
    assert (by_class[0, beside] == 0).all()


def test_what_lies_in_an_ignored_area_is_no_part_of_the_loss() -> None:
    """The maps are the same; only whether an area is drawn differs."""
    area = [0.0, 0.0, 0.5, 1.0]
    maps = painted(BoxLabels.of([[0.6, 0.2, 0.9, 0.8]], [0]))
    ignored = Example(maps, BoxLabels.of([], [], ignored=[area]))
    plain = Example(maps, NOTHING)
    assert 0 < loss_of(fresh(), [ignored]) < loss_of(fresh(), [plain])
    everything = Example(maps, BoxLabels.of([], [], ignored=[[0.0, 0.0, 1.0, 1.0]]))
    assert loss_of(fresh(), [everything]) == 0.0


def test_accepted_boxes_weigh_less_on_sides_and_the_same_on_classes() -> None:
    box = [[0.2, 0.2, 0.8, 0.7]]
    maps = painted(BoxLabels.of(box, [1]))
    drawn, accepted = (
        gradients([Example(maps, BoxLabels.of(box, [1], accepted=[taken]))])
        for taken in (False, True)
    )
    assert torch.equal(drawn[0], accepted[0])
    assert drawn[1].abs().sum() > 0
    torch.testing.assert_close(accepted[1], ACCEPTED_WEIGHT * drawn[1])
    assert ACCEPTED_WEIGHT < 1


class Flips:
    """Instead of a generator: flips every image, or none."""

    def __init__(self, flip: bool) -> None:
        self.flip = flip

    def random(self) -> float:
        return 0.0 if self.flip else 1.0


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_stay_on_their_pixels(flip: bool) -> None:
    """Each box is exactly four cells of the finest map, whose first channel is 1 there."""
    cells = [(2, 3), (6, 11)]
    maps, drawings = [], []
    for (row, column), columns in zip(cells, (4, 5), strict=True):
        one = painted(NOTHING, rows=3, columns=columns)
        one.levels[0][:] = 0
        one.levels[0][0, row : row + 2, column : column + 2] = 1
        maps.append(one)
        height, width = one.levels[0].shape[1:]
        box = [column / width, row / height, (column + 2) / width, (row + 2) / height]
        area = [0.0, 0.0, box[0], box[1]]
        drawings.append(BoxLabels.of([box], [0], ignored=[area]))
    some = [Example(m, d) for m, d in zip(maps, drawings, strict=True)]
    levels, truth, grid = collate(some, SHAPE, PLAIN, Flips(flip))
    assert levels[0].shape == (2, 8, 12, 20)
    for n, (example, box, area) in enumerate(
        zip(some, truth.boxes.tolist(), truth.ignored.tolist(), strict=True)
    ):
        x0, y0, x1, y1 = (round(v / 8) for v in box)
        expected = torch.zeros(12, 20)
        expected[y0:y1, x0:x1] = 1
        assert torch.equal(levels[0][n, 0], expected)
        own = example.maps.levels[2].shape[2] * 32
        assert area == pytest.approx(
            [box[2], 0, own, box[1]] if flip else [0, 0, box[0], box[1]], abs=1e-3
        )
        for out, level in zip(levels, example.maps.levels, strict=True):
            width = level.shape[2]
            seen = out[n, :, :, :width].numpy()
            np.testing.assert_array_equal(seen[:, :, ::-1] if flip else seen, level)
            assert (out[n, :, :, width:] == 0).all()
        assert truth.valid[n].tolist() == (grid[:, 0] < own).tolist()


def test_every_other_image_is_flipped() -> None:
    some = examples(200)
    _, truth, _ = collate(some, SHAPE, PLAIN, np.random.default_rng(0))
    _, plain, _ = collate(some, SHAPE, PLAIN, None)
    turned = [
        not torch.equal(truth.boxes[truth.image == n], plain.boxes[plain.image == n])
        for n in range(200)
    ]
    assert 70 < sum(turned) < 130


@pytest.mark.parametrize("coarser", [0, 1, 2])
def test_images_of_different_canvases_train_together(coarser: int) -> None:
    shape = head_shape(coarser=coarser)
    drawn = BoxLabels.of([[0.1, 0.2, 0.6, 0.9]], [1])
    sizes = [(2, 6), (6, 2), (3, 3), (2, 2)]
    some = [Example(painted(drawn, rows=r, columns=c), drawn) for r, c in sizes]
    maps, truth, grid = collate(some, shape, standard(shape), None)
    assert [m.shape[2:] for m in maps] == [(24, 24), (12, 12), (6, 6)]
    for n, (rows, columns) in enumerate(sizes):
        w, h = columns * 32, rows * 32
        inside = (grid[:, 0] < w) & (grid[:, 1] < h)
        assert torch.equal(truth.valid[n], inside)
        assert inside[grid[:, 2] <= 32].sum() == rows * columns * (16 + 4 + 1)
        box = truth.boxes[truth.image == n][0].tolist()
        assert box == pytest.approx([0.1 * w, 0.2 * h, 0.6 * w, 0.9 * h], abs=1e-3)
    assert finite(train_head(some, shape, standard(shape), seed=0, steps=3))
    by_class, _, _ = gradients(some, shape)
    assert (by_class[~truth.valid] == 0).all()
    assert (by_class[truth.valid] != 0).any()


def test_means_of_cells_are_of_the_image_and_not_of_its_padding() -> None:
    """Beside a larger image the coarser levels are what they are when it is predicted alone."""
    shape = head_shape(1, coarser=2)
    sizes = [(3, 5), (6, 7), (1, 1)]
    some = [Example(painted(NOTHING, rows=r, columns=c, seed=r), NOTHING) for r, c in sizes]

    def coarser(few: list[Example], told: bool) -> list[torch.Tensor]:
        """What the levels coarser than any map read."""
        network = fresh(shape)
        read: list[torch.Tensor] = []
        for lateral in network.lateral[1:]:
            lateral.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        maps, truth, _ = collate(few, shape, standard(shape), None)
        with torch.no_grad():
            network(maps, valid=truth.valid if told else None)
        return read[::-1]

    together = coarser(some, True)
    for n, (rows, columns) in enumerate(sizes):
        for level, alone in enumerate(coarser(some[n : n + 1], False), start=1):
            high, wide = -(-rows // 2**level), -(-columns // 2**level)
            assert alone.shape[2:] == (high, wide)
            torch.testing.assert_close(together[level - 1][n, :, :high, :wide], alone[0])
    assert not torch.equal(coarser(some, False)[0], together[0])  # that it would be seen


def test_standards_make_each_channel_of_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    maps = []
    for rows in (2, 3):
        one = painted(NOTHING, rows=rows)
        levels = [x * rng.uniform(1, 3) + rng.normal(0, 2, x.shape) for x in one.levels]
        maps.append(ImageMaps(tuple(x.astype(np.float16) for x in levels), one.size))
    for strides in (STRIDES, STRIDES[1:]):
        for stride, (mean, deviation) in zip(strides, standard_of(maps, strides), strict=True):
            level = STRIDES.index(stride)
            every = np.concatenate(
                [m.levels[level].astype(float).reshape(len(mean), -1) for m in maps], axis=1
            )
            np.testing.assert_allclose(mean, every.mean(1), atol=1e-5)
            np.testing.assert_allclose(deviation, every.std(1), atol=1e-5)
    flat = replace(maps[0], levels=tuple(np.ones_like(x) for x in maps[0].levels))
    assert all(np.isfinite(1 / d).all() for _, d in standard_of([flat], STRIDES))


def test_boxes_reach_to_all_sides_of_their_location() -> None:
    grid = torch.tensor([[20.0, 28.0, 8.0], [16.0, 48.0, 32.0]])
    outputs = torch.zeros(1, 2, 9)
    outputs[0, 0, :4] = torch.log(torch.tensor([1.0, 2.0, 0.5, 0.25]))
    found = boxes_of(outputs, grid)[0]
    r = REACH * 8
    expected = [20 - r, 28 - 2 * r, 20 + r / 2, 28 + r / 4]
    torch.testing.assert_close(found[0], torch.tensor(expected))
    wide = REACH * 32
    torch.testing.assert_close(found[1], torch.tensor([16 - wide, 48 - wide, 16 + wide, 48 + wide]))
    assert torch.isfinite(boxes_of(outputs + 1e6, grid)).all()


def test_every_other_image_is_seen_in_one_of_its_views() -> None:
    rng = np.random.default_rng(0)
    drawn = BoxLabels.of([[0.25, 0.25, 0.75, 0.75]], [1])
    window = Window(0.25, 0.25, 0.5, 0.5)
    views = [View(window, painted(drawn, seed=n)) for n in (1, 2)]
    example = Example(painted(drawn), drawn, views)
    seen = [training._seen(example, rng) for _ in range(400)]
    counts = [sum(one.maps is maps for one in seen) for maps in (example.maps, views[0].maps)]
    assert 160 < counts[0] < 240
    assert 60 < counts[1] < 140
    for one in seen:
        whole = [[0.25, 0.25, 0.75, 0.75]] if one.maps is example.maps else [[0, 0, 1, 1]]
        np.testing.assert_allclose(one.drawn.boxes, whole)


def test_views_change_what_is_learnt_and_an_image_without_them_nothing() -> None:
    some = examples(4)
    same_as_before = [replace(one, views=[]) for one in some]
    assert same(trained(some), trained(same_as_before))
    viewed = [
        replace(one, views=[View(Window(0, 0, 1, 1), painted(one.drawn, seed=50 + n))])
        for n, one in enumerate(some)
    ]
    assert not same(trained(some), trained(viewed))
    assert same(trained(viewed), trained(viewed))


@dataclass
class Watched:
    """What happens in a training, by step unless it says otherwise.

    Attributes:
        pasted: scenes before and after an object was put into them, of all steps.
        scenes: of all steps.
        levels: that objects are pasted on.
        collated: maps of the batch.
        read: maps of the batch, as the network reads them.
        rates: of each group of weights.
        weights: before the first step, and after each.
        network: at its end.
    """

    pasted: list[tuple[Example, Example]] = field(default_factory=list)
    scenes: list[Example] = field(default_factory=list)
    levels: set[tuple[int, ...]] = field(default_factory=set)
    collated: list[list[torch.Tensor]] = field(default_factory=list)
    read: list[list[torch.Tensor]] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    weights: list[list[torch.Tensor]] = field(default_factory=list)
    network: HeadNetwork | None = None


def weights_of(network: HeadNetwork) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def watched(steps: int, **constants: float) -> Watched:
    seen = Watched()

    def pasting(into, source, levels, rng):
        seen.levels.add(tuple(levels))
        seen.pasted.append((into, copy_paste(into, source, levels, rng)))
        return seen.pasted[-1][1]

    def collating(scenes, *rest):
        seen.scenes.extend(scenes)
        maps, truth, grid = collate(scenes, *rest)
        seen.collated.append([level.clone() for level in maps])
        return maps, truth, grid

    loss = training._loss

    def reading(network, maps, *rest):
        seen.network = network
        seen.weights = seen.weights or [weights_of(network)]
        seen.read.append([level.cpu() for level in maps])
        return loss(network, maps, *rest)

    class Rates(torch.optim.AdamW):
        def step(self, closure=None):
            seen.rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def done(share: float) -> None:
        seen.weights.append(weights_of(seen.network))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "copy_paste", pasting)
        patch.setattr(training, "collate", collating)
        patch.setattr(training, "_loss", reading)
        patch.setattr(torch.optim, "AdamW", Rates)
        for name, value in constants.items():
            patch.setattr(training, name, value)
        train_head(examples(6), SHAPE, PLAIN, seed=0, steps=steps, progress=done)
    return seen


@pytest.fixture(scope="module")
def thirty() -> Watched:
    return watched(30)


def test_every_other_scene_gets_an_object_of_another_image(thirty: Watched) -> None:
    assert len(thirty.scenes) == 30 * 4
    assert 40 < len(thirty.pasted) < 80
    assert sum(found is not into for into, found in thirty.pasted) > 0.8 * len(thirty.pasted)
    learnt = {id(scene) for scene in thirty.scenes}
    assert all(id(found) in learnt for _, found in thirty.pasted)
    # On all maps that are read, the one below the head's own levels included.
    assert thirty.levels == {tuple(training.levels_of(SHAPE.inputs))}


def test_a_tenth_of_the_channels_is_dropped_and_the_rest_makes_up_for_it(thirty: Watched) -> None:
    dropped = []
    for collated, read in zip(thirty.collated, thirty.read, strict=True):
        for before, after in zip(collated, read, strict=True):
            gone = (after == 0).all(dim=3).all(dim=2)
            dropped.append(gone.flatten())
            torch.testing.assert_close(after[~gone], before[~gone] / 0.9)
            assert (before[gone] != 0).any(dim=1).any(dim=1).all(), "it was not empty before"
    every = torch.cat(dropped).double()
    assert len(every) == 30 * 4 * sum(SHAPE.input_channels)
    assert float(every.mean()) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("most", [0.99, 0.15])
def test_the_weights_are_an_average_of_those_of_all_steps(most: float) -> None:
    """Each step keeps 1/10, 2/11, 3/12 of the average before it, and never more than most."""
    seen = watched(3, AVERAGE=most, WARM_UP=1)  # so that steps are long
    first, second, third = (min(keep, most) for keep in (1 / 10, 2 / 11, 3 / 12))
    shares = [
        first * second * third, (1 - first) * second * third, (1 - second) * third, 1 - third,
    ]  # fmt: skip
    assert sum(shares) == pytest.approx(1)
    assert len(seen.weights) == 4
    for found, *steps in zip(weights_of(seen.network), *seen.weights, strict=True):
        expected = sum(share * step for share, step in zip(shares, steps, strict=True))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert (found - steps[-1]).abs().max() > 1e-4, "the last one is another"


def test_rates_warm_up_and_then_fall_as_a_cosine() -> None:
    seen = watched(10, WARM_UP=4)
    most = schedule_for(SHAPE).rate
    fall = [0.02 + 0.49 * (1 + np.cos(np.pi * step / 10)) for step in range(10)]
    warm = [0.25, 0.5, 0.75, *[1.0] * 7]
    expected = [most * w * f for w, f in zip(warm, fall, strict=True)]
    np.testing.assert_allclose(seen.rates, np.stack([expected, expected], 1))


def test_the_rate_at_the_first_the_warm_the_middle_and_the_last_step() -> None:
    assert training._rate(0, 600) == pytest.approx(1 / training.WARM_UP)
    assert training._rate(training.WARM_UP - 1, 10**6) == pytest.approx(1, abs=1e-4)
    assert training._rate(300, 600) == pytest.approx(0.51)
    assert training._rate(599, 600) == pytest.approx(training.LAST_RATE, abs=1e-4)
    rates = [training._rate(step, 600) for step in range(600)]
    highest = int(np.argmax(rates))
    assert highest == training.WARM_UP - 1
    assert (np.diff(rates[: highest + 1]) > 0).all()
    assert (np.diff(rates[highest:]) < 0).all()
