"""Drawn boxes in, a calibrated version out, on maps whose objects are painted in."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.boxes import CHANNELS, NOTHING, head_shape, painted, random_drawing

pytest.importorskip("torch", reason="needs doubtless[train]")

import torch

from model.backbones.pyramid import STRIDES
from model.calibration.metrics import error_auroc
from model.detection import engine, training
from model.detection.bundle import BoxBundle, as_found, shown, take
from model.detection.calibration import SHOWN
from model.detection.context import Seen
from model.detection.engine import (
    LEAST_OVERLAP,
    MOST_OVERLAP,
    BoxConfig,
    fit,
    fit_head,
    overlap_of,
)
from model.detection.evaluate import match, outcome
from model.detection.graph import last_layers, write_head
from model.detection.head import Head
from model.detection.maps import ImageMaps
from model.detection.network import HeadNetwork
from model.detection.outcomes import LabelledImages, OutOfFold, judge
from model.detection.passes import BOX_ESTIMATORS
from model.detection.schedule import schedule_for
from model.detection.shape import (
    CONFIDENT,
    Standard,
    largest_side,
    log_sides,
    shape_for,
    small_objects,
    smallest_side,
)
from model.detection.training import standard_of
from model.detection.types import BoxLabels
from model.detection.views import View, Window
from model.errors import (
    BundleError,
    ModelError,
    NotEnoughLabelsError,
    ShapeError,
    UnknownNameError,
)
from model.storage import ARRAYS_FILE, FACTS_FILE

CLASSES = ("cup", "key")


def images(drawn: list[BoxLabels], *, seed: int = 0, rows: int = 2) -> LabelledImages:
    """Every third belongs to the random share."""
    maps = [painted(d, rows=rows, columns=3, seed=seed + n) for n, d in enumerate(drawn)]
    random = np.arange(len(drawn)) % 3 == 0
    return LabelledImages(maps, [m.size for m in maps], [m.canvas for m in maps], drawn, random)


def some(count: int, *, seed: int = 0) -> LabelledImages:
    """The last of them is empty."""
    rng = np.random.default_rng(seed)
    return images([random_drawing(rng) for _ in range(count - 1)] + [NOTHING], seed=100 * seed)


@pytest.fixture(scope="module", autouse=True)
def in_a_hurry():
    """Rates at which a few steps are enough for what is painted in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "WARM_UP", 5)
        patch.setattr(
            training, "schedule_for", lambda shape: replace(schedule_for(shape), rate=1e-2)
        )
        yield


@pytest.fixture(scope="module")
def fitted() -> BoxBundle:
    return fit(some(18), CLASSES, config=BoxConfig(steps=100))


def fit_some(data: LabelledImages, classes=CLASSES, **config) -> BoxBundle:
    return fit(data, classes, config=BoxConfig(**{"steps": 2} | config))


def test_what_is_painted_in_is_found(fitted: BoxBundle) -> None:
    test = some(12, seed=5)
    found = [fitted.look(m)[0] for m in test.maps]
    metrics = judge(found, test, CLASSES)
    assert metrics["ap50"] > 0.15  # next to 0 by chance
    right = np.concatenate(
        [match(*as_found(d), t).right for d, t in zip(found, test.drawn, strict=True)]
    )
    stated = np.concatenate([d.p_right for d in found])
    assert error_auroc(stated, right) > 0.8
    assert len(shown(found[-1])) == 0


def test_what_is_said_of_an_image_belongs_together(fitted: BoxBundle) -> None:
    data = some(6, seed=7)
    for maps, size in zip(data.maps, data.sizes, strict=True):
        found, kept = fitted.look(maps)
        assert (np.diff(found.p_right) <= 0).all()
        assert ((found.p_right > 0) & (found.p_right < 1)).all()
        assert 0 < found.p_all_right < 1
        assert found.missed >= 0
        assert found.size == size
        assert (found.spread > 0).all()
        assert (found.probs.sum(1) <= 1 + 1e-9).all()
        np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic)
        np.testing.assert_array_equal(found.boxes, kept.boxes)
        np.testing.assert_array_equal(found.label, kept.label)
        stated = fitted.calibration.p_right(kept, kept.score)
        np.testing.assert_allclose(found.p_right, stated)
        visible = fitted.predict(maps)
        assert len(visible) == (found.p_right >= SHOWN).sum()
        assert (visible.p_right >= SHOWN).all()
        assert visible.p_all_right == found.p_all_right
        everything = take(found, np.ones(len(found), bool))
        np.testing.assert_array_equal(everything.probs, found.probs)


def test_metrics_are_complete_and_json(fitted: BoxBundle) -> None:
    metrics = dict(fitted.metrics)
    json.dumps(metrics, allow_nan=False)
    drawn = some(18).drawn
    assert metrics["n_labels"] == 18
    assert metrics["n_random"] == 6
    counts = np.bincount(np.concatenate([d.labels for d in drawn]), minlength=2)
    assert metrics["class_counts"] == dict(zip(CLASSES, counts.tolist(), strict=True))
    shares = ["ap50", "map", "ece", "error_auroc", "oof_accuracy", "random_accuracy", "region_ece"]
    for name in shares:
        assert metrics[name] is None or 0 <= metrics[name] <= 1, name
    assert metrics["map"] <= metrics["ap50"]
    assert metrics["ap50"] == pytest.approx(np.mean(list(metrics["ap50_per_class"].values())))
    low, high = metrics["random_accuracy_interval"]
    assert 0 <= low <= metrics["random_accuracy"] <= high <= 1
    assert metrics["random"]["n_labels"] == 6
    assert metrics["missed_objects"] >= metrics["missed_images"] >= 0
    assert metrics["missed_objects"] <= counts.sum()
    assert metrics["missed_expected"] >= 0
    assert metrics["head_cpu_seconds"] > 0
    assert metrics["seconds"] > 0
    assert metrics["small_objects"] == 0.0
    assert metrics["made_smaller"] == 2.0  # as painted
    assert LEAST_OVERLAP <= metrics["overlap"] <= MOST_OVERLAP
    finest, *others = metrics["levels"]
    assert finest in STRIDES
    assert others == [finest * 2**n for n in range(1, len(others) + 1)]
    assert others
    assert metrics["metric"] == "images right as they are"


def test_each_part_is_left_to_heads_that_are_fitted_to_all_others(monkeypatch) -> None:
    trained: list[tuple[list[int], int]] = []
    data = some(9, seed=3)
    real = training.train_head

    def spy(examples, *args, **kwargs):
        drawn = [example.drawn for example in examples]
        rows = [next(n for n, d in enumerate(data.drawn) if d is one) for one in drawn]
        trained.append((rows, kwargs["steps"]))
        return real(examples, *args, **kwargs)

    def schedule(shape):
        return replace(
            schedule_for(shape), folds=4, networks=3, calibrating_networks=2, calibrating=0.5
        )

    monkeypatch.setattr(training, "train_head", spy)
    monkeypatch.setattr(engine, "schedule_for", schedule)
    fit(data, CLASSES, config=BoxConfig(steps=4))
    *calibrating, first, second, third = trained
    for rows, steps in (first, second, third):
        assert (rows, steps) == (list(range(9)), 4)
    assert [steps for _, steps in calibrating] == [2] * 8
    left = [set(range(9)) - set(rows) for rows, _ in calibrating]
    assert left[::2] == left[1::2], "two networks of one head"
    assert sorted(n for part in left[::2] for n in part) == list(range(9))
    assert {len(part) for part in left} == {2, 3}


@pytest.mark.parametrize(("most", "count"), [(None, 7), (4, 4)])
def test_channels_are_standardised_by_many_images(
    monkeypatch, most: int | None, count: int
) -> None:
    """By all there are, up to as many as are enough; each counts once."""
    data = some(7, seed=4)
    measured: list[list[ImageMaps]] = []
    used: list[Standard] = []
    real = training.train_head

    def measure(maps, strides):
        measured.append(list(maps))
        return standard_of(maps, strides)

    def spy(examples, shape, standard, **kwargs):
        used.append(standard)
        return real(examples, shape, standard, **kwargs)

    if most is not None:
        monkeypatch.setattr(engine, "STANDARD_IMAGES", most)
    monkeypatch.setattr(training, "standard_of", measure)
    monkeypatch.setattr(training, "train_head", spy)
    head = fit_head(data, CLASSES, config=BoxConfig(steps=1))
    (maps,) = measured
    rows = {n for n, own in enumerate(data.maps) for one in maps if one is own}
    assert len(rows) == len(maps) == count
    expected = standard_of([data.maps[n] for n in sorted(rows)], head.shape.inputs)
    for given, level in zip(used[0], expected, strict=True):
        np.testing.assert_allclose(given, level, rtol=1e-5, atol=1e-6)


def test_out_of_fold_there_is_one_answer_for_each_image(fitted: BoxBundle) -> None:
    right, stated = fitted.out_of_fold_right, fitted.out_of_fold_p_right
    assert right.shape == stated.shape == (18,)
    assert right.dtype == bool
    assert right.mean() == fitted.metrics["oof_accuracy"]
    assert ((stated > 0) & (stated < 1)).all()
    data, found = some(18), fitted.out_of_fold_found
    assert [one.size for one in found] == list(data.sizes)
    np.testing.assert_array_equal([one.p_all_right for one in found], stated)
    pairs = zip(found, data.drawn, strict=True)
    assert [outcome(*as_found(shown(one)), drawn).right for one, drawn in pairs] == right.tolist()


def test_a_version_says_the_same_after_it_was_stored(fitted: BoxBundle, tmp_path: Path) -> None:
    fitted.save(tmp_path / "v1")
    back = BoxBundle.load(tmp_path / "v1")
    assert back.classes == CLASSES
    assert back.metrics == dict(fitted.metrics)
    assert back.out_of_fold_right is None
    assert back.out_of_fold_found is None
    for maps in some(4, seed=9).maps:
        one, two = fitted.look(maps)[0], back.look(maps)[0]
        for name, value in vars(one).items():
            np.testing.assert_array_equal(value, getattr(two, name))
    with pytest.raises(BundleError, match="never overwritten"):
        fitted.save(tmp_path / "v1")


def test_a_version_of_many_images_knows_what_surrounds_a_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "LEAST_IMAGES", 12)
    few = fit_some(some(11))
    assert not few.calibration.needs_seen
    assert few.metrics["context"] == 0
    monkeypatch.setattr(OutOfFold, "strength", 0.3)
    bundle = fit_some(some(18), steps=30)
    assert bundle.calibration.needs_seen
    assert bundle.metrics["context"] == 0.3
    assert len(bundle.out_of_fold_found) == 18
    bundle.save(tmp_path / "v1")
    back = BoxBundle.load(tmp_path / "v1")
    for maps in some(4, seed=9).maps:
        (one, kept), two = bundle.look(maps), back.look(maps)[0]
        assert ((one.p_right > 0) & (one.p_right < 1)).all()
        seen, calibration = Seen.of(maps, kept), bundle.calibration
        shared = calibration.regions.doubt(seen)
        assert shared > 0
        stated = calibration.images.p_all_right(one.p_right, seen, shared)
        assert one.p_all_right == pytest.approx(stated, rel=1e-9)
        assert one.missed > 0
        assert one.missed == pytest.approx(calibration.images.missed(one.p_right, seen), rel=1e-9)
        for name, value in vars(one).items():
            np.testing.assert_array_equal(value, getattr(two, name))


@pytest.mark.parametrize("later", [["coarser"], ["coarser", "detail"]])
def test_a_version_from_before_other_levels_were_read_is_loaded(
    fitted: BoxBundle, tmp_path: Path, later: list[str]
) -> None:
    coarse = some(6, seed=1)
    shape = replace(head_shape(1), detail=0) if "detail" in later else head_shape(1)
    with torch.random.fork_rng():
        old = HeadNetwork(shape).eval()
        old.classify.bias.data.fill_(0.0)
    given = standard_of(coarse.maps, shape.inputs)
    head = Head(shape, write_head([old], given), last_layers([old]))
    bundle = replace(fitted, head=head)
    bundle.save(tmp_path / "v1")
    path = tmp_path / "v1" / FACTS_FILE
    facts = json.loads(path.read_text())
    for name in later:
        del facts["shape"][name]
    path.write_text(json.dumps(facts))
    back, now = (b.look(coarse.maps[0])[0] for b in (BoxBundle.load(tmp_path / "v1"), bundle))
    assert len(now)
    np.testing.assert_array_equal(back.boxes, now.boxes)


def test_a_stored_version_predicts_without_torch(fitted: BoxBundle, tmp_path: Path) -> None:
    fitted.save(tmp_path / "v1")
    sizes = [(c, 64 // s, 96 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from model.detection.bundle import BoxBundle; from model.detection.maps import ImageMaps;"
        f"maps = ImageMaps(tuple(np.zeros(s, np.float16) for s in {sizes}), (9, 6));"
        "BoxBundle.load(Path(sys.argv[1])).predict(maps);"
        "assert not {'torch', 'onnx', 'pycocotools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "v1")], check=True)


@pytest.mark.parametrize("change", ["format", "kind", "shape", "truncated", "no calibrator"])
def test_a_damaged_version_is_refused(fitted: BoxBundle, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "v1"
    fitted.save(folder)
    path = folder / FACTS_FILE
    facts = json.loads(path.read_text())
    if change == "truncated":
        arrays = folder / ARRAYS_FILE
        arrays.write_bytes(arrays.read_bytes()[:-10])
    elif change == "shape":
        del facts["shape"]["width"]
    elif change == "no calibrator":
        arrays = folder / ARRAYS_FILE
        arrays.write_bytes(arrays.read_bytes().replace(b"calibrator.image", b"calibrator.imagf"))
    else:
        facts[change] = "other"
    path.write_text(json.dumps(facts))
    with pytest.raises(BundleError):
        BoxBundle.load(folder)


def test_maps_of_another_pyramid_are_refused(fitted: BoxBundle) -> None:
    levels = tuple(
        np.zeros((c + 1, 64 // s, 64 // s), np.float16)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    )
    with pytest.raises(ShapeError, match="channels"):
        fitted.look(ImageMaps(levels, (10, 10)))


def test_fitting_twice_gives_the_same_and_the_seed_matters() -> None:
    data = some(5)
    one, two, other = fit_some(data), fit_some(data), fit_some(data, seed=1)
    assert one.head.arrays()["graph"].tobytes() == two.head.arrays()["graph"].tobytes()
    np.testing.assert_array_equal(one.out_of_fold_p_right, two.out_of_fold_p_right)
    assert one.head.arrays()["graph"].tobytes() != other.head.arrays()["graph"].tobytes()


@pytest.mark.parametrize("estimator", sorted(BOX_ESTIMATORS))
def test_every_estimator_fits(estimator: str) -> None:
    bundle = fit_some(some(4), estimator=estimator)
    found, _ = bundle.look(some(1, seed=3).maps[0])
    assert (found.epistemic >= 0).all()
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic)


def test_progress_goes_from_0_to_1() -> None:
    said: list[tuple[float, str]] = []
    fit(some(4), CLASSES, config=BoxConfig(steps=4), progress=lambda p, w: said.append((p, w)))
    shares = [share for share, _ in said]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.3
    assert said[-1] == (1.0, "fitted")


ONE = BoxLabels.of([[0.2, 0.2, 0.7, 0.8]], [0])
HIDDEN = BoxLabels.of([[0.2, 0.2, 0.7, 0.8]], [1], ignored=[[0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    "drawn",
    [[ONE, NOTHING], [ONE, ONE], [NOTHING, NOTHING, ONE], [HIDDEN, NOTHING, HIDDEN]],
    ids=["one", "two", "empty ones", "in ignored areas"],
)
def test_few_images_are_enough(drawn: list[BoxLabels]) -> None:
    """A class with one example, and one with none; folds without any object."""
    data = images(drawn)
    bundle = fit_some(data, ("cup", "key", "none"))
    json.dumps(dict(bundle.metrics), allow_nan=False)
    assert bundle.metrics["class_counts"]["none"] == 0
    assert bundle.metrics["ap50_per_class"]["none"] is None
    assert len(bundle.out_of_fold_right) == len(drawn)
    found, _ = bundle.look(data.maps[0])
    assert np.isfinite(found.p_right).all()
    assert 0 < found.p_all_right < 1


def test_without_a_random_share_nothing_is_claimed_about_the_pool() -> None:
    data = replace(some(4), random=np.zeros(4, bool))
    metrics = fit_some(data).metrics
    assert metrics["random_accuracy"] is metrics["random_accuracy_interval"] is None
    assert metrics["random"] is None
    assert metrics["n_random"] == 0


def test_images_of_different_shapes_fit_together() -> None:
    wide = images([ONE] * 2, rows=2)
    high = images([ONE, NOTHING], rows=4, seed=9)
    data = LabelledImages(
        [*wide.maps, *high.maps], [*wide.sizes, *high.sizes], [*wide.canvases, *high.canvases],
        [*wide.drawn, *high.drawn], np.ones(4, bool),
    )  # fmt: skip
    bundle = fit_some(data)
    for maps in data.maps:
        assert np.isfinite(bundle.look(maps)[0].p_right).all()


def test_too_little_is_said_to_be_too_little() -> None:
    for data in (images([]), images([ONE])):
        with pytest.raises(NotEnoughLabelsError, match=f"{len(data)} labelled images"):
            fit_some(data)
    with pytest.raises(NotEnoughLabelsError, match="none of the 3 labelled images has an object"):
        fit_some(images([NOTHING] * 3))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    bad = BoxLabels.of([[0.2, 0.2, 0.7, 0.8]] * 2, [0, label])
    with pytest.raises(ModelError, match=f"label {label} is outside the 2 classes"):
        fit_some(images([ONE, bad]))


def test_views_are_learnt_from_while_few_images_are_labelled(monkeypatch) -> None:
    data = some(6)
    other = [[View(Window(0, 0, 1, 1), painted(d, seed=70 + n))] for n, d in enumerate(data.drawn)]
    viewed = replace(data, views=other)
    plain, with_views = (fit_head(d, CLASSES, config=BoxConfig(steps=5)) for d in (data, viewed))
    assert plain.graph != with_views.graph
    monkeypatch.setattr(engine, "MOST_VIEWED", 5)
    assert fit_head(viewed, CLASSES, config=BoxConfig(steps=5)).graph == plain.graph


def test_lengths_that_differ_are_refused() -> None:
    data = some(4)
    for name in ("maps", "sizes", "canvases"):
        with pytest.raises(ShapeError, match=name):
            fit_some(replace(data, **{name: getattr(data, name)[:3]}))
    with pytest.raises(ShapeError, match="random"):
        fit_some(replace(data, random=np.ones(3, bool)))
    with pytest.raises(ShapeError, match="views"):
        fit_some(replace(data, views=[[]] * 3))
    with pytest.raises(UnknownNameError, match="Did you mean"):
        fit_some(data, estimator="softmaks")


def test_room_for_boxes_that_people_drew_over_each_other() -> None:
    half = [[0.0, 0.0, 0.6, 1.0], [0.0, 0.0, 1.0, 1.0]]  # IoU 0.6
    assert overlap_of([]) == overlap_of([NOTHING]) == overlap_of([ONE] * 9) == LEAST_OVERLAP
    assert overlap_of([BoxLabels.of(half, [0, 1])]) == LEAST_OVERLAP  # of different classes
    apart = [[0.0, 0.0, 0.4, 1.0], [0.5, 0.0, 1.0, 1.0]]
    assert overlap_of([BoxLabels.of(apart, [0, 0])] * 5) == LEAST_OVERLAP
    crowded = [BoxLabels.of([[0.0, 0.0, 0.55, 1.0], [0.0, 0.0, 1.0, 1.0]], [0, 0])] * 50
    assert overlap_of(crowded) == pytest.approx(0.65)
    assert overlap_of([BoxLabels.of(half, [1, 1])] * 50) == MOST_OVERLAP
    seldom = [ONE] * 400 + [BoxLabels.of(half, [0, 0])]
    assert overlap_of(seldom) == LEAST_OVERLAP


def shape_of(side_px: float):
    """For boxes of that side on a canvas of 640 x 480."""
    box = [[0.0, 0.0, side_px / 640, side_px / 480]]
    return shape_for([BoxLabels.of(box, [0])] * 20, [(640, 480)] * 20, 3, CHANNELS)


def test_levels_follow_the_sizes_of_boxes() -> None:
    shapes = [shape_of(side) for side in (8, 20, 40, 80, 160, 400)]
    for found in shapes:
        first = STRIDES.index(found.strides[0])
        own = len(STRIDES) - first
        assert found.strides[:own] == STRIDES[first:]
        assert found.channels[:own] == CHANNELS[first:]
        assert found.strides[own:] == tuple(64 * 2**n for n in range(found.coarser))
        assert found.channels[own:] == (CHANNELS[-1],) * found.coarser
        finer = max(first - 1, 0)
        assert (found.inputs, found.input_channels) == (STRIDES[finer:], CHANNELS[finer:])
        assert found.n_classes == 3
        assert found.width % 8 == 0
    finest = [found.strides[0] for found in shapes]
    assert finest == sorted(finest)
    assert finest[0] == 8 < finest[-1]
    # No object of any class spans more than eight cells of the coarsest, and two levels are read.
    coarsest = [found.strides[-1] for found in shapes]
    assert coarsest == [32, 32, 32, 32, 64, 64]
    assert min(len(found.strides) for found in shapes) == 2
    # The same share of a larger canvas has more cells.
    box = [BoxLabels.of([[0.0, 0.0, 0.1, 0.1]], [0])] * 20
    for sides, stride in (((640, 480), 8), ((1280, 960), 16)):
        assert shape_for(box, [sides] * 20, 3, CHANNELS).strides[0] == stride
    assert shape_for([NOTHING], [(9, 9)], 3, CHANNELS).strides[0] == 8


def test_twice_as_many_regions_are_kept_as_the_fullest_image_has_objects() -> None:
    def kept(*counts: int) -> int:
        boxes = [BoxLabels.of([[0.0, 0.0, 0.1, 0.1]] * n, [0] * n) for n in counts]
        return shape_for(boxes, [(640, 480)] * len(boxes), 1, CHANNELS).regions

    assert kept(0) == kept(3, 50, 7) == 100
    assert kept(3, 51, 7) == 102
    assert kept(150) == 300
    assert kept(4000) == 500


def test_objects_that_are_too_small_are_counted() -> None:
    boxes = [[0.0, 0.0, side / 640, side / 480] for side in (8, 15, 17, 100)]
    logs = log_sides([BoxLabels.of(boxes, [0, 1, 1, 0])], [(640, 480)], 3)
    assert small_objects(logs) == 0.5


def test_a_class_of_large_objects_gets_coarser_levels() -> None:
    small, large = [0.0, 0.0, 0.05, 0.05], [0.0, 0.0, 0.9, 0.9]
    both = [BoxLabels.of([small, large], [0, 1])] * 20
    found = shape_for(both, [(640, 480)] * 20, 2, CHANNELS)
    assert (found.strides, found.coarser) == ((8, 16, 32, 64), 1)  # 500 pixels are 7.8 cells
    found = shape_for([BoxLabels.of([small], [0])] * 20, [(640, 480)] * 20, 2, CHANNELS)
    assert (found.strides, found.coarser) == ((8, 16, 32), 0)
    wide = shape_for([BoxLabels.of([large], [1])] * 20, [(1568, 192)] * 20, 2, CHANNELS)
    assert wide.strides == (32, 64)
    assert largest_side(
        [np.log([2.0, 600.0, 700.0]), np.empty(0), np.log([30.0])]
    ) == pytest.approx(600)
    assert largest_side([np.empty(0)]) == 0.0


def test_the_smallest_class_is_not_small_by_chance() -> None:
    """Four classes of 150 pixels, three objects each: the smallest median alone is mostly below."""
    rng = np.random.default_rng(0)
    drawn = [[rng.normal(np.log(150), 0.4, 3) for _ in range(4)] for _ in range(200)]
    medians = np.array([min(np.median(one) for one in logs) for logs in drawn])
    likely = np.array([np.log(smallest_side(logs)) for logs in drawn])
    assert (medians < np.log(128)).mean() > 0.5
    assert (likely < np.log(128)).mean() < 0.15
    # What is small indeed stays small, and with many objects the median is what counts.
    rare = [np.log(np.full(100, 100.0)), np.log([40.0, 41.0])]
    assert smallest_side(rare) < 64
    many = [rng.normal(np.log(100), 0.4, 4000), np.empty(0)]
    assert smallest_side(many) == pytest.approx(np.exp(np.median(many[0])), rel=0.02)
    assert smallest_side([np.empty(0)]) == 0.0


def test_the_error_of_a_median() -> None:
    draws = np.random.default_rng(1).normal(5.0, 0.3, (4000, 15))
    deviation = float(np.median(draws, axis=1).std())
    added = np.mean([np.log(smallest_side([one])) - np.median(one) for one in draws[:400]])
    assert added == pytest.approx(CONFIDENT * deviation, rel=0.15)


def test_a_handful_of_images_never_claims_certainty() -> None:
    bundle = fit_some(some(3))
    found, _ = bundle.look(some(1, seed=4).maps[0])
    assert found.p_all_right < 0.9999
    assert math.isfinite(found.missed)
