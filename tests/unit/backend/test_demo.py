"""The demonstration's parts that need no server; the whole is run by the acceptance tests."""

from __future__ import annotations

import json
import multiprocessing
import re
from io import BytesIO, StringIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from support.scenes import jpeg, scene, write_packed

from backend.demo import boxes as demo_boxes
from backend.demo import judge as demo_judge
from backend.demo import view as demo_view
from backend.demo.__main__ import main
from backend.demo.curve import (
    Point,
    RandomCurve,
    checkpoints,
    labels_saved_ratio,
    labels_to_reach,
    random_curve,
    sparkline,
)
from backend.demo.data import (
    DemoImage,
    box_config,
    features_of,
    label_config,
    load_demo_data,
    original_name,
    true_result,
)
from backend.demo.judge import judge_of
from backend.demo.memory import Memory
from backend.demo.standing import StoppedError
from backend.demo.view import LiveView, State, summary, write_result
from backend.edges.labels import boxes as drawings
from backend.edges.labels.config import parse_config
from backend.edges.processes import free_port
from backend.errors import LaunchError, SettingError
from backend.settings import Settings
from model.backbones import backbone_hash
from model.detection.bundle import BoxBundle
from model.detection.maps import ImageMaps
from model.detection.types import BoxLabels, Detections
from model.errors import MissingFeaturesError
from model.features import FeatureStore


def png(shade: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, shade // 256, 7)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder_per_class(tmp_path: Path) -> Path:
    for number, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        for i in range(20):
            (tmp_path / name / f"{i}.png").write_bytes(png(100 * number + i))
    return tmp_path


@pytest.fixture
def flat_folder(tmp_path: Path) -> Path:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def test_held_out_images_are_never_imported(folder_per_class: Path) -> None:
    data = load_demo_data(str(folder_per_class))
    assert data.classes == ("cat", "dog")
    assert len(data.pool) == 28
    assert len(data.held_out) == 12
    assert not {i.key for i in data.pool} & {i.key for i in data.held_out}
    assert load_demo_data(str(folder_per_class)) == data, "the same split every time"


def test_names_in_label_studio_do_not_tell_the_class(folder_per_class: Path) -> None:
    data = load_demo_data(str(folder_per_class))
    assert len({i.name for i in data.pool}) == len(data.pool)
    assert not any("cat" in i.name or "dog" in i.name for i in data.pool)


def test_a_part_for_testing_is_what_is_held_out() -> None:
    data = load_demo_data("digits", limit=50)
    assert data.classes == tuple("0123456789")
    assert (len(data.pool), len(data.held_out)) == (50, 599)


def test_a_flat_folder_needs_classes(flat_folder: Path) -> None:
    with pytest.raises(SettingError, match=r"no labels; .*--classes"):
        load_demo_data(str(flat_folder))
    with pytest.raises(SettingError, match="--classes names only 'cat'; give at least two"):
        load_demo_data(str(flat_folder), classes=["cat"])
    data = load_demo_data(str(flat_folder), classes=["a", "b"])
    assert (data.classes, len(data.pool), data.held_out) == (("a", "b"), 12, ())
    assert data.truth == {}


def test_a_label_outside_the_chosen_classes_counts_as_none(folder_per_class: Path) -> None:
    data = load_demo_data(str(folder_per_class), classes=["cat", "bird"])
    assert {i.label for i in data.held_out} == {"cat"}
    assert {i.label for i in data.pool} == {"cat", None}


@pytest.mark.parametrize(
    "classes", [["cat", "dog"], ['say "hi"', "a<b", "R&D", "naïve"], list("0123456789")], ids=str
)
def test_our_own_labeling_config_is_one_we_support(classes: list[str]) -> None:
    parsed = parse_config(label_config(classes))
    assert parsed.problems == ()
    assert parsed.spec is not None
    assert parsed.spec.classes == tuple(classes)
    assert parsed.spec.value_key == "image"


def test_digits_get_their_own_keys() -> None:
    assert 'value="7" hotkey="7"' in label_config("0123456789")
    assert "hotkey" not in label_config(["cat", "dog"])


def test_the_original_name_is_found_again() -> None:
    assert original_name("/data/upload/3/0a1b2c3d-image-00012.jpg") == "image-00012.jpg"
    assert original_name("https://example.com/other.jpg") == ""


class FakeBackbone:
    name, dim, size_px = "efficientnet-lite2", 1280, 8
    hash = backbone_hash("efficientnet-lite2")

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, np.float32)[:1, :1, 0]

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return np.repeat(batch.reshape(len(batch), 1), self.dim, axis=1)


def test_features_are_computed_once_and_unreadable_images_are_left_out(
    folder_per_class: Path, tmp_path: Path
) -> None:
    data = load_demo_data(str(folder_per_class))
    broken = data.pool[3].__class__("broken.png", b"not an image", "cat")
    images = [*data.pool[:5], broken]
    store, seen = FeatureStore(tmp_path / "features"), []
    first, readable = features_of(
        images, store, "efficientnet-lite2", FakeBackbone, lambda done, total: seen.append(total)
    )
    assert readable.tolist() == [True] * 5 + [False]
    assert first.shape == (5, 1280)
    assert seen[-1] == 6
    again, _ = features_of(data.pool[:5], store, "efficientnet-lite2", lambda: pytest.fail("again"))
    assert np.array_equal(first, again)


# --- the curve -------------------------------------------------------------------------------


def points(*pairs: tuple[int, float]) -> list[Point]:
    return [Point(n, a) for n, a in pairs]


def test_labels_to_reach_interpolates_the_running_maximum() -> None:
    curve = points((10, 0.5), (20, 0.4), (30, 0.7))
    assert labels_to_reach(curve, 0.5) == 10
    assert labels_to_reach(curve, 0.6) == pytest.approx(25)
    assert labels_to_reach(curve, 0.8) is None
    assert labels_to_reach([], 0.1) is None


def test_the_ratio_is_against_what_random_order_reaches_in_the_end() -> None:
    random = RandomCurve([50, 100, 200], [0.5, 0.6, 0.8], [0.0, 0.0, 0.0], 3)
    assert labels_saved_ratio(points((50, 0.6), (100, 0.8)), random) == 2.0
    assert labels_saved_ratio(points((200, 0.7)), random) is None


def test_random_order_with_the_product_head() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 240)
    features = (np.eye(3)[truth] * 4 + rng.normal(size=(240, 3))).astype(np.float32)
    curve = random_curve(
        features[:200], truth[:200], features[200:], truth[200:], ["a", "b", "c"],
        labels=[5, 100], seeds=2, estimator="softmax",
    )  # fmt: skip
    assert curve.mean[1] > 0.9
    assert curve.mean[1] >= curve.mean[0]
    assert len(curve.std) == 2


def test_checkpoints_end_with_the_last() -> None:
    assert checkpoints(35) == [10, 20, 30, 35]
    assert checkpoints(5) == [5]


def test_sparkline_spans_zero_to_one() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"


# --- what is shown ---------------------------------------------------------------------------


def test_without_a_terminal_each_version_is_one_line() -> None:
    out = StringIO()
    state = State(until=20, doing="looking at the images: 3 of 9")
    with LiveView(Console(file=out, force_terminal=False, width=100), state) as view:
        view.update()
        view.update()
        state.version = "v2"
        state.points.append(Point(10, 0.5, "v2"))
        view.update()
    assert out.getvalue().splitlines() == [
        "looking at the images: 3 of 9",
        "v2: 10 labels, accuracy 0.500 on held-out images",
    ]


def test_on_a_terminal_the_view_shows_labels_version_and_accuracy() -> None:
    out = StringIO()
    state = State(labels=7, until=20, version="v2, 5 labels", points=[Point(5, 0.625, "v2")])
    with LiveView(Console(file=out, force_terminal=True, width=100), state):
        pass
    assert "7 of 20" in out.getvalue()
    assert "0.625" in out.getvalue()


def test_the_summary_says_the_ratio() -> None:
    random = RandomCurve([20, 40], [0.5, 0.8], [0.01, 0.02], 5)
    out = StringIO()
    console = Console(file=out, width=200)
    console.print(summary(points((20, 0.8), (40, 0.9)), random, held_out=99, until=40))
    assert "2.00 times fewer" in out.getvalue()
    console.print(summary(points((40, 0.7)), random, held_out=99, until=40))
    assert "Not reached" in out.getvalue()


def test_the_result_is_json(tmp_path: Path) -> None:
    write_result(tmp_path / "new/result.json", {"labels_saved_ratio": None})
    assert json.loads((tmp_path / "new/result.json").read_text()) == {"labels_saved_ratio": None}


# --- boxes -----------------------------------------------------------------------------------


@pytest.fixture
def packed_boxes(tmp_path: Path) -> Path:
    return write_packed(tmp_path / "scenes", 16)


def test_a_set_with_boxes_asks_for_them(packed_boxes: Path) -> None:
    data = load_demo_data(str(packed_boxes))
    assert data.has_boxes
    assert data.classes == ("disc", "rectangle")
    assert (len(data.pool), len(data.held_out)) == (12, 4)
    assert {len(image.boxes or ()) for image in data.truth.values()} <= {1, 2, 3}
    assert len(data.truth) == 12


def test_boxes_of_other_classes_than_the_chosen_are_background(packed_boxes: Path) -> None:
    data = load_demo_data(str(packed_boxes), classes=["disc"])
    assert data.classes == ("disc",)
    assert {box.label for image in data.pool for box in image.boxes or ()} == {"disc"}
    assert () in {image.boxes for image in data.pool}


def test_a_set_without_a_box_needs_classes(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "scenes", 4)
    manifest = packed / "manifest.csv"
    rows = [line.split(",")[:3] for line in manifest.read_text().splitlines()]
    lines = [",".join([*row, "boxes" if n == 0 else "[]"]) for n, row in enumerate(rows)]
    manifest.write_text("\n".join(lines))
    with pytest.raises(SettingError, match=r"no image .* has a box; .*--classes"):
        load_demo_data(str(packed))


@pytest.mark.parametrize("classes", [["cell"], ["RBC", "WBC", "R&D"], ["a<b", 'say "hi"']], ids=str)
def test_our_own_config_for_boxes_is_one_we_support(classes: list[str]) -> None:
    config = box_config(classes)
    spec = parse_config(config).require_spec()
    assert spec.kind == "rectanglelabels"
    assert spec.classes == tuple(classes)
    assert len(set(re.findall("#[0-9a-f]{6}", config))) == len(classes), "a colour each"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_true_boxes_are_submitted_in_percent_of_the_upright_image(orientation: int) -> None:
    spec = parse_config(box_config(["disc", "rectangle"])).require_spec()
    drawn, truth = scene(1)
    image = DemoImage("a.jpg", jpeg(drawn, orientation), None, truth)
    result = true_result(spec, image)
    assert {region["origin"] for region in result} == {"manual"}
    assert {(r["original_width"], r["original_height"]) for r in result} == {(320, 240)}
    assert len({region["id"] for region in result}) == len(truth)
    assert result[0]["value"] == {
        "x": pytest.approx(100 * truth[0].x0, abs=1e-3),
        "y": pytest.approx(100 * truth[0].y0, abs=1e-3),
        "width": pytest.approx(100 * (truth[0].x1 - truth[0].x0), abs=1e-3),
        "height": pytest.approx(100 * (truth[0].y1 - truth[0].y0), abs=1e-3),
        "rotation": 0,
        "rectanglelabels": [truth[0].label],
    }
    read = drawings.decode(drawings.read_result(spec, result))
    assert read is not None
    assert {(d.label, d.origin) for d in read.boxes} == {(box.label, "drawn") for box in truth}
    assert np.allclose(sorted(d.box for d in read.boxes), sorted(b[1:] for b in truth), atol=1e-5)


def test_an_image_without_an_object_is_submitted_without_a_region() -> None:
    spec = parse_config(box_config(["disc"])).require_spec()
    assert true_result(spec, DemoImage("a.png", png(1), None, ())) == []


class FakePyramid:
    """One map a level whose values are the mean colour."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, np.float32).mean(axis=(0, 1))

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.full((3, side, side), pixels[0], np.float32) for side in (4, 2, 1))


class AllKnowing:
    """A version that says the true boxes, or nothing, whatever the maps."""

    def __init__(self, classes: tuple[str, ...], truth: list[BoxLabels]) -> None:
        self.classes, self._truth = classes, iter(truth)

    def look(self, maps: ImageMaps) -> tuple[Detections, None]:
        truth = next(self._truth)
        count = len(truth)
        zeros, four = np.zeros(count), np.zeros((count, 4))
        found = Detections(
            truth.boxes, truth.labels, np.full(count, 0.9), np.zeros((count, 2)),
            zeros, zeros, zeros, four, 0.9, 0.0, maps.size,
        )  # fmt: skip
        return found, None


def test_versions_are_measured_by_average_precision_on_cached_maps(
    packed_boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(name: str, *_: object, **__: object) -> FakePyramid:
        loads.append(name)
        return FakePyramid()

    monkeypatch.setattr(demo_boxes, "load_pyramid", load)
    settings = Settings.load({}, home=str(tmp_path / "home"))
    data = load_demo_data(str(packed_boxes))
    broken = DemoImage("broken.jpg", b"not an image", None, ())
    said: list[str] = []
    images = [*data.held_out, broken]
    keys = demo_boxes.read_maps(images, settings, said.append)
    assert keys == [image.key for image in data.held_out], "the unreadable one is left out"
    assert said[-1] == "looking at the held-out images: 5 of 5"
    assert demo_boxes.read_maps(data.held_out, settings, said.append) == keys
    assert loads == ["efficientnet-lite0-pyramid"], "read once"

    truth = demo_boxes.boxes_of(data, data.held_out)
    nothing = BoxLabels.of([], [])
    for given, expected in (([truth[key] for key in keys], 1.0), ([nothing] * 4, 0.0)):
        model = cast(BoxBundle, AllKnowing(data.classes, given))
        found = demo_boxes.average_precision_of(model, settings, keys, truth, said.append)
        assert found == pytest.approx(expected)
    judge = judge_of(data, settings)
    assert (judge.task, judge.metric, judge.until, judge.seeds) == ("detection", "AP50", 40, 1)
    assert judge.prepare(said.append) == 4


def test_a_failure_in_random_order_is_one_sentence(packed_boxes: Path, tmp_path: Path) -> None:
    """The process that trains there finds no maps."""
    settings = Settings.load({}, home=str(tmp_path / "home"))
    data = load_demo_data(str(packed_boxes))
    said: list[str] = []
    with pytest.raises(LaunchError, match="training in random order failed: the maps of image"):
        demo_boxes.random_order_of_boxes(
            data, settings,
            pool=[image.key for image in data.pool], held_out=[], labels=[2], seeds=1,
            progress=said.append,
        )  # fmt: skip
    assert said[:2] == [f"random order: other views of images, {n} of 2" for n in (1, 2)]
    assert said[2] == "random order: starting"


def test_ctrl_c_ends_the_process_that_trains_in_random_order(
    packed_boxes: Path, tmp_path: Path
) -> None:
    settings = Settings.load({}, home=str(tmp_path / "home"))
    data = load_demo_data(str(packed_boxes))

    def stop(what: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        demo_boxes.random_order_of_boxes(
            data, settings, pool=[], held_out=[], labels=[2], seeds=1, progress=stop
        )
    assert multiprocessing.active_children() == []


def test_the_summary_of_boxes_says_what_was_measured() -> None:
    out = StringIO()
    console = Console(file=out, width=200)
    curve, random = points((10, 0.6), (20, 0.8)), RandomCurve([10, 20], [0.5, 0.7], [0.0, 0.0], 1)
    said = {"held_out": 9, "until": 20, "metric": "AP50", "unit": "labelled images"}
    console.print(summary(curve, random, **said))
    assert "AP50 on 9 held-out images" in out.getvalue()
    assert "above random order with as many labelled images, mean over the rows: +0.100." in (
        out.getvalue()
    )
    assert "±" not in out.getvalue()
    assert "times" not in out.getvalue(), "one random order is too few to say that"
    console.print(summary(points((10, 0.6)), None, **said))
    assert "not measured (--seeds 0)" in out.getvalue()


def test_an_order_that_needs_more_labels_is_not_called_fewer() -> None:
    out = StringIO()
    random = RandomCurve([10, 20], [0.5, 0.7], [0.0, 0.0], 2)
    curve = points((20, 0.6), (40, 0.8))
    Console(file=out, width=200).print(summary(curve, random, held_out=9, until=40))
    assert "needs 30 for that: 1.50 times as many." in out.getvalue()


def test_long_work_is_a_line_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(demo_view.time, "monotonic", lambda: now[0])
    out = StringIO()
    state = State(version="v2")
    with LiveView(Console(file=out, force_terminal=False, width=100), state) as view:
        for second in range(11):
            now[0], state.doing = float(second), f"training ({second} %)"
            view.update()
    assert out.getvalue().splitlines() == [f"training ({n} %)" for n in (0, 5, 10)]


# --- what goes wrong ---------------------------------------------------------------------------


def test_the_memory_is_ours_alone_and_kept(tmp_path: Path) -> None:
    made = Memory.load(tmp_path / "demo.json")
    assert (tmp_path / "demo.json").stat().st_mode & 0o077 == 0
    assert 6 <= len(made.token) <= 40
    assert Memory.load(tmp_path / "demo.json") == made


def test_a_damaged_memory_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(SettingError, match="delete the folder"):
        Memory.load(tmp_path / "demo.json")


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((LaunchError, SettingError), match="--home"):
        Memory.load(tmp_path / "file/demo.json")


def demo(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = demo("--home", tmp_path, "--ls-port", port)
    assert code == 1
    assert f"port {port} on 127.0.0.1 is taken" in said
    assert "--ls-port" in said


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    code, said = demo("--home", tmp_path, "--ls-port", free_port(), "--data", tmp_path / "no")
    assert code == 1
    assert "neither a folder" in said


def test_auto_needs_true_labels(tmp_path: Path, flat_folder: Path) -> None:
    code, said = demo(
        "--home", tmp_path / "home", "--ls-port", free_port(), "--data", flat_folder,
        "--classes", "a,b", "--auto",
    )  # fmt: skip
    assert code == 1
    assert "true labels" in said


def test_features_that_are_deleted_while_they_are_read_are_made_again(
    folder_per_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_demo_data(str(folder_per_class))
    asked: list[int] = []

    def deleted_once(images, store, *rest):
        asked.append(len(images))
        if len(asked) == 1:
            raise MissingFeaturesError("3 of 4 images have no features")
        return np.zeros((len(images), 3), np.float32), np.ones(len(images), bool)

    monkeypatch.setattr(demo_judge, "features_of", deleted_once)
    judge = judge_of(data, Settings.load({}, home=str(tmp_path)))
    assert judge.prepare(lambda said: None) == len(data.held_out)
    assert len(asked) == 2
