"""Boxes: configs that ask for them, what people draw, what they agree on, what we send."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.labels import answers, boxes
from backend.edges.labels.boxes import Drawing, Drawn, Region
from backend.edges.labels.boxes.geometry import Box, clipped, ious, rounded
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labels.results import check_prediction, from_result, to_result
from backend.edges.labelstudio_records import AnnotationRecord
from backend.jobs.publish import prediction
from backend.jobs.sync import annotation_rows
from backend.records import Score
from model.detection.types import BoxLabels, Detections

PAYLOADS = Path(__file__).parents[3] / "payloads"
CONTROLS = {
    "rectanglelabels": '<RectangleLabels name="box" toName="image">{}</RectangleLabels>',
    "ellipselabels": '<EllipseLabels name="box" toName="image">{}</EllipseLabels>',
    "rectangle": '<Rectangle name="box" toName="image"/>'
    '<Labels name="what" toName="image">{}</Labels>',
}
LABELS = '<Label value="RBC"/><Label value="White cell" alias="WBC"/>'


def config(*controls: str, labels: str = LABELS) -> str:
    inside = "".join(CONTROLS.get(c, c).format(labels) for c in controls)
    return f'<View><Image name="image" value="$photo"/>{inside}</View>'


SPECS = {kind: parse_config(config(kind)).require_spec() for kind in CONTROLS}
BOXES, ELLIPSES, PAIRS = SPECS.values()
EVERY = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
NOTHING = '{"boxes":[],"ignored":[]}'


def iou(a: Box, b: Box) -> float:
    return float(ious([a], [b])[0, 0])


# --- configs ---


@EVERY
def test_a_config_of_boxes_says_how_they_are_drawn(spec: TaskSpec) -> None:
    assert spec.boxes
    assert (spec.control, spec.object, spec.value_key) == ("box", "image", "photo")
    assert spec.labels_control == ("what" if spec.kind == "rectangle" else "")
    assert spec.classes == ("RBC", "WBC")
    assert not spec.multiple
    assert parse_config(config(spec.kind)).problems == ()


def test_the_hash_depends_on_kind_names_image_key_and_classes_alone() -> None:
    reordered = '<Label value="White" alias="WBC" background="red"/><Label value="RBC" hotkey="1"/>'
    for kind, spec in SPECS.items():
        same = parse_config(config(kind, labels=reordered)).require_spec()
        assert same.config_hash == spec.config_hash
    others = [
        config("rectangle").replace('"what"', '"which"'),
        config("rectanglelabels").replace('"box"', '"boxes"'),
        config("rectanglelabels").replace("$photo", "$image"),
        config("rectanglelabels").replace('"image"', '"picture"'),
        config("rectanglelabels").replace('"RBC"', '"red"'),
    ]
    hashes = {parse_config(c).require_spec().config_hash for c in others}
    assert len(hashes | {spec.config_hash for spec in SPECS.values()}) == len(others) + 3


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", "fcb132cc6ed586dd"),
        ('choice="multiple"', "28f7e145894e3f26"),
        ('choice="multiple" required="true"', "394dbca9195cd26e"),
    ],
)
def test_the_hash_of_choices_is_what_it_was_before_there_were_boxes(
    attributes: str, expected: str
) -> None:
    """Versions trained before would no longer fit otherwise."""
    spec = parse_config(
        '<View><Image name="image" value="$photo"/>'
        f'<Choices name="animal" toName="image" {attributes}><Choice value="cat"/>'
        '<Choice value="dog"/><Choice value="Owl, great" alias="owl"/></Choices></View>'
    ).require_spec()
    assert spec.config_hash == expected
    assert (spec.kind, spec.boxes) == ("choices", False)


def test_boxes_come_before_choices_and_the_first_of_them_before_the_others() -> None:
    choices = '<Choices name="good" toName="image"><Choice value="yes"/></Choices>'
    second = '<EllipseLabels name="round" toName="image">{}</EllipseLabels>'
    brush = '<BrushLabels name="brush" toName="image">{}</BrushLabels>'
    parsed = parse_config(config(choices, brush, "rectanglelabels", second))
    assert parsed.spec == parse_config(config("rectanglelabels")).spec
    assert len(parsed.problems) == 3
    said = " ".join(parsed.problems)
    assert "only Choices and boxes (RectangleLabels, EllipseLabels, Rectangle with Labels)" in said
    assert "Choices 'good' is left to people: the boxes of RectangleLabels 'box' are" in said
    assert "EllipseLabels 'round' is left to people: RectangleLabels 'box' comes first" in said


def test_one_labels_tag_names_the_rectangles_of_an_image() -> None:
    more = '<Labels name="more" toName="image">{}</Labels>'
    parsed = parse_config(config("rectangle", more))
    assert parsed.spec == PAIRS
    assert parsed.problems == ("Labels 'more' is left to people: Labels 'what' comes first.",)


@pytest.mark.parametrize(
    ("controls", "reason"),
    [
        (
            ['<RectangleLabels name="b" toName="image,other">{}</RectangleLabels>'],
            "several objects",
        ),
        (['<RectangleLabels name="b" toName="text">{}</RectangleLabels>'], "no usable Image"),
        (['<EllipseLabels name="b" toName="image"/>'], "no Label inside"),
        (['<EllipseLabels name="b" toName="image" value="$classes"/>'], "labels from the task's"),
        (['<RectangleLabels name="b" toName="image" visibleWhen="x">{}</RectangleLabels>'], "Whe"),
        (['<RectangleLabels name="b" toName="image" perItem="true">{}</RectangleLabels>'], "perIt"),
        (
            ['<RectangleLabels name="b" toName="image" perRegion="true">{}</RectangleLabels>'],
            "perR",
        ),
        (['<RectangleLabels toName="image">{}</RectangleLabels>'], "no name"),
        (['<Rectangle name="r" toName="image"/>'], "no usable Labels on 'image'"),
        (['<Labels name="what" toName="image">{}</Labels>'], "no Rectangle on 'image' draws"),
        (['<Rectangle name="r" toName="image"/><Labels name="w" toName="image"/>'], "no Label in"),
        (
            ['<Rectangle name="r" toName="image"/><Labels name="w" toName="text">{}</Labels>'],
            "'text'",
        ),
        (['<PolygonLabels name="p" toName="image">{}</PolygonLabels>'], "left to people"),
        (['<KeyPointLabels name="p" toName="image">{}</KeyPointLabels>'], "left to people"),
        (['<BrushLabels name="p" toName="image">{}</BrushLabels>'], "left to people"),
    ],
)
def test_boxes_that_cannot_be_predicted_are_said(controls: list[str], reason: str) -> None:
    parsed = parse_config(config(*controls))
    assert parsed.spec is None
    assert reason in " ".join(parsed.problems)


# --- reading ---


def result(
    spec: TaskSpec,
    *numbers: Any,
    label: Any = "RBC",
    rotation: float | None = None,
    name: str = "a",
    **more: Any,
) -> list[dict[str, Any]]:
    """Label Studio's regions of one shape on an image of 200 x 100 pixels."""
    keys = ("x", "y", "radiusX", "radiusY") if spec is ELLIPSES else ("x", "y", "width", "height")
    value: dict[str, Any] = dict(zip(keys, numbers, strict=True))
    value |= {} if rotation is None else {"rotation": rotation}
    labels = [] if label is None else label if isinstance(label, list) else [label]
    common = {
        "id": name, "to_name": "image", "original_width": 200, "original_height": 100, **more,
    }  # fmt: skip
    if spec is not PAIRS:
        value |= {spec.kind: labels} if label is not None else {}
        return [{"from_name": "box", "type": spec.kind, "value": value, **common}]
    shape = {"from_name": "box", "type": "rectangle", "value": value, **common}
    named = {"from_name": "what", "type": "labels", "value": {**value, "labels": labels}, **common}
    return [shape, named] if labels else [shape]


def read(spec: TaskSpec, *regions: list[dict[str, Any]]) -> Drawing:
    text = boxes.read_result(spec, [region for one in regions for region in one])
    drawing = boxes.decode(text)
    assert drawing is not None
    assert answers.is_known(spec, text)
    return drawing


def around(spec: TaskSpec, box: tuple[float, float, float, float], **more: Any) -> Any:
    """The region of a box that is given in percent."""
    x0, y0, x1, y1 = box
    if spec is ELLIPSES:
        return result(spec, (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2, **more)
    return result(spec, x0, y0, x1 - x0, y1 - y0, **more)


@EVERY
def test_a_region_becomes_shares_of_the_image(spec: TaskSpec) -> None:
    drawing = read(spec, around(spec, (10, 20, 40, 60), label="WBC"))
    assert drawing == Drawing((Drawn("WBC", (0.1, 0.2, 0.4, 0.6), "drawn"),))


@EVERY
def test_equal_drawings_are_equal_texts_in_whatever_order(spec: TaskSpec) -> None:
    one = around(spec, (10, 20, 40, 60), name="a")
    two = around(spec, (50 + 1e-9, 20, 90, 60), name="b", label="WBC")
    three = around(spec, (60, 70, 90, 90), name="c", label=None)
    texts = {boxes.read_result(spec, [*x]) for x in (one + two + three, three + two + one)}
    assert len(texts) == 1
    text = texts.pop()
    assert boxes.encode(boxes.decode(text) or Drawing()) == text
    assert json.loads(text) == {
        "boxes": [
            ["RBC", 0.1, 0.2, 0.4, 0.6, "drawn"],
            ["WBC", 0.5, 0.2, 0.9, 0.6, "drawn"],
        ],
        "ignored": [[0.6, 0.7, 0.9, 0.9]],
    }


@EVERY
def test_a_box_is_cut_at_the_edges(spec: TaskSpec) -> None:
    drawing = read(spec, around(spec, (-10, 20, 40, 130)))
    assert [d.box for d in drawing.boxes] == [(0.0, 0.2, 0.4, 1.0)]


@EVERY
@pytest.mark.parametrize(
    "box",
    [
        (101, 10, 120, 20), (10, -30, 20, -1), (10, 10, 10, 10), (10, 10, 10.09, 50),
        (10, 10, 50, 10.09), (99.95, 10, 150, 50), (100, 10, 120, 20),
    ],
)  # fmt: skip
def test_a_box_outside_or_of_no_size_is_dropped(
    spec: TaskSpec, box: tuple[float, float, float, float]
) -> None:
    assert boxes.read_result(spec, around(spec, box)) == NOTHING
    assert boxes.read_result(spec, around(spec, box, label=None)) == NOTHING


def test_a_thousandth_of_the_image_is_enough() -> None:
    for start in range(0, 99_900, 77):
        x = start / 1000
        assert read(BOXES, result(BOXES, x, 10, 0.1, 50)).boxes


def corners(x: float, y: float, w: float, h: float, degrees: float) -> np.ndarray:
    """Of a rectangle turned clockwise about its top left corner, in shares of 200 x 100 pixels."""
    points = np.array([[0, 0], [w * 2, 0], [w * 2, h], [0, h]], float)
    turn = np.exp(1j * math.radians(degrees))  # y down, so a positive angle is clockwise
    turned = (points[:, 0] + 1j * points[:, 1]) * turn
    return np.stack([x * 2 + turned.real, y + turned.imag], 1) / (200, 100)


@pytest.mark.parametrize("spec", [BOXES, PAIRS], ids=["rectanglelabels", "rectangle"])
@pytest.mark.parametrize("degrees", [30, 90, 135, 180, 270, 359.5, -30, 450])
def test_a_rotated_rectangle_is_the_box_around_it_in_pixels(spec: TaskSpec, degrees: float) -> None:
    drawing = read(spec, result(spec, 50, 50, 10, 20, rotation=degrees))
    expected = corners(50, 50, 10, 20, degrees)
    low, high = expected.min(0).clip(0, 1), expected.max(0).clip(0, 1)
    assert drawing.boxes[0].box == pytest.approx((*low, *high), abs=2e-6)


def test_a_quarter_turn_is_told_by_hand() -> None:
    """20 by 20 pixels at (100, 50), turned a quarter: it lies to the left of its corner."""
    drawing = read(BOXES, result(BOXES, 50, 50, 10, 20, rotation=90))
    assert drawing.boxes[0].box == (0.4, 0.5, 0.5, 0.7)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 200, -10])
def test_a_rotated_ellipse_has_its_own_extent(degrees: float) -> None:
    drawing = read(ELLIPSES, result(ELLIPSES, 50, 50, 20, 10, rotation=degrees))
    t = np.linspace(0, 2 * np.pi, 100_001)
    points = (40 * np.cos(t) + 10j * np.sin(t)) * np.exp(1j * math.radians(degrees))
    x, y = 0.5 + points.real / 200, 0.5 + points.imag / 100
    expected = (x.min(), y.min(), x.max(), y.max())
    assert drawing.boxes[0].box == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("missing", ["original_width", "original_height"])
def test_a_rotation_without_the_images_size_leaves_an_ignored_area(missing: str) -> None:
    turned = result(BOXES, 40, 40, 20, 20, rotation=45)
    for value in (None, 0, "200", -3):
        found = read(BOXES, [{**turned[0], missing: value}])
        assert (len(found.boxes), len(found.ignored)) == (0, 1)
    upright = read(BOXES, [{**result(BOXES, 40, 40, 20, 20, rotation=360)[0], missing: None}])
    assert upright.boxes[0].box == (0.4, 0.4, 0.6, 0.6)


@EVERY
def test_an_object_drawn_twice_is_one_and_the_later_counts(spec: TaskSpec) -> None:
    first = around(spec, (10, 10, 50, 50), name="a", origin="prediction")
    again = around(spec, (11, 10, 51, 50), name="b")
    other = around(spec, (10, 10, 50, 50), name="c", label="WBC")
    beside = around(spec, (20, 10, 60, 50), name="d")
    drawing = read(spec, first, again, other, beside)
    assert {(d.label, d.box, d.origin) for d in drawing.boxes} == {
        ("RBC", (0.11, 0.1, 0.51, 0.5), "drawn"),
        ("WBC", (0.1, 0.1, 0.5, 0.5), "drawn"),
        ("RBC", (0.2, 0.1, 0.6, 0.5), "drawn"),
    }


@EVERY
@pytest.mark.parametrize("label", ["Platelet", None, [], [None], [3], ["Platelet", "other"]])
def test_what_has_no_usable_label_is_neither_object_nor_background(
    spec: TaskSpec, label: Any
) -> None:
    drawing = read(spec, around(spec, (10, 20, 40, 60), label=label))
    assert drawing == Drawing((), ((0.1, 0.2, 0.4, 0.6),))


@EVERY
def test_an_object_in_the_place_of_an_ignored_area_says_more(spec: TaskSpec) -> None:
    unnamed = around(spec, (10, 20, 40, 60), name="a", label=None)
    named = around(spec, (10, 20, 40, 60.5), name="b")
    assert read(spec, unnamed, named) == read(spec, named)


@EVERY
def test_of_two_labels_the_first_known_counts(spec: TaskSpec) -> None:
    drawing = read(spec, around(spec, (10, 20, 40, 60), label=["Platelet", "WBC", "RBC"]))
    assert [d.label for d in drawing.boxes] == ["WBC"]


@EVERY
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("prediction", "accepted"), ("prediction-changed", "edited"), ("manual", "drawn"),
        (None, "drawn"), ("new in 2.0", "drawn"), ([], "drawn"),
    ],
)  # fmt: skip
def test_origin_tells_what_was_taken_over(spec: TaskSpec, origin: Any, expected: str) -> None:
    drawing = read(spec, around(spec, (10, 20, 40, 60), origin=origin))
    assert [d.origin for d in drawing.boxes] == [expected]


@EVERY
def test_turning_the_view_of_the_image_changes_nothing(spec: TaskSpec) -> None:
    plain = around(spec, (10, 20, 40, 60), rotation=20)
    for degrees in (90, 180, 270):
        assert read(spec, [{**r, "image_rotation": degrees} for r in plain]) == read(spec, plain)


@EVERY
def test_regions_of_other_controls_do_not_count(spec: TaskSpec) -> None:
    ours = around(spec, (10, 20, 40, 60))
    others = [
        {**ours[0], "from_name": "other", "id": "x"},
        {**ours[0], "type": "brushlabels", "id": "y"},
        {"from_name": "good", "to_name": "image", "type": "choices", "value": {"choices": ["yes"]}},
    ]
    assert read(spec, ours, others) == read(spec, ours)
    assert boxes.read_result(spec, others) == NOTHING


def test_a_rectangle_and_its_labels_are_one_region_in_any_order() -> None:
    shape, named = around(PAIRS, (10, 20, 40, 60))
    assert read(PAIRS, [named, shape]) == read(PAIRS, [shape, named]) == read(PAIRS, [named])
    assert len(read(PAIRS, [shape, named]).boxes) == 1
    two = around(PAIRS, (50, 20, 80, 60), name="b", label="WBC")
    mixed = read(PAIRS, [shape, two[0], two[1], named])
    assert [d.label for d in mixed.boxes] == ["RBC", "WBC"]


@EVERY
def test_no_region_says_there_is_no_object_and_a_skip_says_nothing(spec: TaskSpec) -> None:
    def record(number: int, regions: list[dict[str, Any]], *, skipped: bool) -> AnnotationRecord:
        return AnnotationRecord(number, 7, regions, skipped, 1, "2026-11-26", False)

    drawn = around(spec, (10, 20, 40, 60))
    rows = annotation_rows(
        spec,
        [record(1, [], skipped=False), record(2, [], skipped=True), record(3, drawn, skipped=False),
         record(4, drawn, skipped=True)],
    )  # fmt: skip
    texts = [row["label"] for row in rows]
    assert texts[:2] == [NOTHING, None]
    assert texts[2:] == ['{"boxes":[["RBC",0.1,0.2,0.4,0.6,"drawn"]],"ignored":[]}', None]
    assert answers.is_known(spec, NOTHING)


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(10**400), 10**400),
    st.floats(-20, 120),
    st.sampled_from([None, "12", "NaN", True, [], {}]),
)
VALUES = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.dictionaries(
        st.sampled_from(
            ["x", "y", "width", "height", "radiusX", "radiusY", "rotation", "labels",
             "rectanglelabels", "ellipselabels"]
        ),
        st.one_of(NUMBERS, st.lists(st.sampled_from(["RBC", "WBC", "x", 3, None]), max_size=2)),
    ),
)  # fmt: skip
REGIONS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(st.none(), st.sampled_from(["a", "b"]), st.integers(), st.just([])),
        "from_name": st.sampled_from(["box", "what", None, []]),
        "type": st.sampled_from([*CONTROLS, "labels", "ellipse", None, []]),
        "origin": st.one_of(st.none(), st.text(max_size=3), st.just([])),
        "original_width": NUMBERS,
        "original_height": NUMBERS,
        "value": VALUES,
    },
)


@EVERY
@given(st.lists(st.one_of(REGIONS, st.none(), st.text(max_size=2)), max_size=6))
def test_whatever_stands_in_a_result_is_read(spec: TaskSpec, regions: list[Any]) -> None:
    text = boxes.read_result(spec, regions)
    assert answers.is_known(spec, text)
    drawing = boxes.decode(text)
    assert drawing is not None
    assert boxes.encode(drawing) == text
    labels = boxes.to_box_labels(text, spec.classes)
    assert len(labels) == len(drawing.boxes)


# --- texts ---


@pytest.mark.parametrize(
    "text",
    [
        "", "cat", "[]", "3", "null", "{}", '{"boxes":[]}', '{"boxes":[],"ignored":[[0,0,1]]}',
        '{"boxes":[["RBC",0.1,0.2,0.3,0.4]],"ignored":[]}',
        '{"boxes":[["RBC",0.1,0.2,0.3,0.4,"guessed"]],"ignored":[]}',
        '{"boxes":[["RBC",0.1,0.2,0.3,0.4,[]]],"ignored":[]}',
        '{"boxes":[[1,0.1,0.2,0.3,0.4,"drawn"]],"ignored":[]}',
        '{"boxes":[["RBC",0.3,0.2,0.3,0.4,"drawn"]],"ignored":[]}',
        '{"boxes":[["RBC",NaN,0.2,0.3,0.4,"drawn"]],"ignored":[]}',
        '{"boxes":[["RBC",0.1,0.2,0.3,1.4,"drawn"]],"ignored":[]}',
        '{"boxes":[],"ignored":[["0.1",0,1,1]]}',
    ],
)  # fmt: skip
def test_what_is_no_drawing_is_not_known(text: str) -> None:
    assert boxes.decode(text) is None
    assert not answers.is_known(BOXES, text)
    assert answers.merged(BOXES, [text]) is None
    with pytest.raises(ValueError, match="no drawing of boxes"):
        boxes.to_box_labels(text, BOXES.classes)


def test_a_drawing_goes_to_the_model_with_what_it_does_not_know_ignored() -> None:
    text = boxes.encode(
        Drawing(
            (
                Drawn("WBC", (0.5, 0.5, 0.6, 0.6), "edited"),
                Drawn("RBC", (0.1, 0.2, 0.3, 0.4), "accepted"),
                Drawn("gone", (0.7, 0.7, 0.8, 0.8)),
            ),
            ((0.0, 0.0, 0.1, 0.1),),
        )
    )
    labels = boxes.to_box_labels(text, ("WBC", "RBC"))
    assert labels.boxes.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.6, 0.6]]
    assert labels.labels.tolist() == [1, 0]
    assert labels.accepted.tolist() == [True, False]
    assert labels.ignored.tolist() == [[0.0, 0.0, 0.1, 0.1], [0.7, 0.7, 0.8, 0.8]]
    assert not answers.is_known(BOXES, text)
    assert len(boxes.to_box_labels(NOTHING, ("WBC",))) == 0


def test_objects_are_counted_and_shown_by_class() -> None:
    text = boxes.encode(
        Drawing(
            (
                Drawn("WBC", (0.5, 0.5, 0.6, 0.6)),
                Drawn("RBC", (0.1, 0.2, 0.3, 0.4)),
                Drawn("WBC", (0.1, 0.2, 0.3, 0.4)),
            )
        )
    )
    assert answers.counts(BOXES, [text, NOTHING, text], ("WBC", "other", "RBC")).tolist() == [
        4,
        0,
        2,
    ]
    assert answers.readable(BOXES, text) == {"RBC": 1, "WBC": 2}
    assert answers.readable(BOXES, NOTHING) == {}
    assert answers.readable(BOXES, "cat") is None
    assert answers.readable(BOXES, None) is None


def test_iou_against_counting_of_pixels() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 18, (30, 2))
    places = np.concatenate([low, low + rng.integers(1, 12, (30, 2))], 1)
    masks = np.zeros((30, 32, 32), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, places, strict=True):
        mask[y0:y1, x0:x1] = True
    both = (masks[:, None] & masks).sum((2, 3))
    either = (masks[:, None] | masks).sum((2, 3))
    shares = [tuple(box) for box in places / 32]
    np.testing.assert_allclose(ious(shares, shares), both / either)
    assert ious([], shares).shape == (0, 30)


# --- several annotators ---

HERE = (0.1, 0.1, 0.3, 0.3)
NEAR = (0.12, 0.1, 0.32, 0.3)
FAR = (0.6, 0.6, 0.9, 0.9)


def drawing(*objects: Drawn, ignored: tuple[Any, ...] = ()) -> Drawing:
    return Drawing(objects, ignored)


def test_one_annotators_drawing_is_taken_as_it_is() -> None:
    alone = drawing(Drawn("RBC", HERE, "accepted"), Drawn("RBC", NEAR), ignored=(FAR,))
    assert boxes.agreed([alone]) == alone
    assert answers.merged(BOXES, [boxes.encode(alone)]) == boxes.encode(alone)


def test_sides_are_the_median_of_those_who_drew_it() -> None:
    two = boxes.agreed([drawing(Drawn("RBC", HERE)), drawing(Drawn("RBC", NEAR))])
    assert two == drawing(Drawn("RBC", (0.11, 0.1, 0.31, 0.3)))
    wide = (0.1, 0.1, 0.37, 0.3)
    three = [drawing(Drawn("RBC", box)) for box in (HERE, wide, NEAR)]
    assert boxes.agreed(three) == drawing(Drawn("RBC", (0.1, 0.1, 0.32, 0.3)))


@pytest.mark.parametrize(
    ("votes", "there"),
    [([1, 0], False), ([1, 1], True), ([1, 0, 1], True), ([0, 1, 0], False), ([1, 1, 0, 0], False)],
)
def test_what_half_or_fewer_drew_is_disputed(votes: list[int], there: bool) -> None:
    given = [drawing(*[Drawn("RBC", HERE)] * vote) for vote in votes]
    found = boxes.agreed(given)
    assert found == (drawing(Drawn("RBC", HERE)) if there else drawing(ignored=(HERE,)))


def test_all_who_drew_nothing_agree_that_nothing_is_there() -> None:
    assert answers.merged(BOXES, [NOTHING, NOTHING]) == NOTHING
    assert answers.merged(BOXES, []) is None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["RBC", "WBC"], "WBC"), (["WBC", "RBC"], "RBC"), (["RBC", "RBC", "WBC"], "RBC")],
)
def test_who_differs_in_the_class_alone_is_outvoted_or_older(
    labels: list[str], expected: str
) -> None:
    found = boxes.agreed([drawing(Drawn(label, HERE)) for label in labels])
    assert found == drawing(Drawn(expected, HERE))


def test_boxes_of_one_class_are_matched_before_better_overlaps() -> None:
    first = drawing(Drawn("RBC", HERE), Drawn("WBC", NEAR))
    second = drawing(Drawn("WBC", HERE), Drawn("RBC", NEAR))
    found = boxes.agreed([first, second])
    middle = (0.11, 0.1, 0.31, 0.3)
    assert sorted(found.boxes) == [Drawn("RBC", middle), Drawn("WBC", middle)]
    assert found.ignored == ()


def test_one_annotators_boxes_are_never_one_object() -> None:
    both = drawing(Drawn("RBC", HERE), Drawn("RBC", NEAR))
    found = boxes.agreed([both, both])
    assert sorted(d.box for d in found.boxes) == [HERE, NEAR]


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (["accepted", "accepted"], "accepted"),
        (["accepted", "edited"], "edited"),
        (["drawn", "accepted", "edited"], "drawn"),
    ],
)
def test_an_object_is_accepted_when_all_accepted_it(origins: list[Any], expected: str) -> None:
    found = boxes.agreed([drawing(Drawn("RBC", HERE, origin)) for origin in origins])
    assert [d.origin for d in found.boxes] == [expected]


def test_an_area_without_a_class_votes_for_an_object_but_not_for_its_class() -> None:
    gone = drawing(Drawn("Platelet", HERE))
    texts = [boxes.encode(d) for d in (drawing(Drawn("RBC", HERE)), gone)]
    assert boxes.decode(str(answers.merged(BOXES, texts))) == drawing(Drawn("RBC", HERE))
    unclear = [drawing(ignored=(HERE,)), drawing(ignored=(HERE,))]
    assert boxes.agreed(unclear) == drawing(ignored=(HERE,))


SIDES = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
SHAPES = SIDES.map(lambda s: clipped((s[0], s[1], s[0] + s[2], s[1] + s[3])) or HERE)
OBJECTS = st.builds(
    Drawn, st.sampled_from(["RBC", "WBC"]), SHAPES, st.sampled_from(["drawn", "edited", "accepted"])
)
DRAWINGS = st.builds(
    lambda objects, areas: Drawing(tuple(objects), tuple(areas)),
    st.lists(OBJECTS, max_size=4),
    st.lists(SHAPES, max_size=2),
)


@given(st.lists(DRAWINGS, min_size=1, max_size=4))
def test_merging_always_gives_a_drawing_of_the_same_classes(given_: list[Drawing]) -> None:
    text = answers.merged(BOXES, [boxes.encode(d) for d in given_])
    assert answers.is_known(BOXES, text)
    found = boxes.decode(str(text))
    assert found is not None
    marks = sum(len(d.boxes) + len(d.ignored) for d in given_)
    assert len(found.boxes) + len(found.ignored) <= marks
    if len(given_) > 1:
        most = sum(len(d.boxes) for d in given_) + sum(len(d.ignored) for d in given_)
        assert len(found.boxes) <= 2 * most / len(given_)


@given(DRAWINGS, st.integers(2, 3))
def test_annotators_who_drew_the_same_agree(one: Drawing, n: int) -> None:
    """As far as their boxes are further apart than matching can confuse."""
    places = [d.box for d in one.boxes] + [*one.ignored]
    if any(iou(a, b) > 0 for i, a in enumerate(places) for b in places[:i]):
        return
    assert boxes.encode(boxes.agreed([one] * n)) == boxes.encode(one)


# --- predictions ---

SIZE = (640, 480)
REGION = Region("RBC", (0.1, 0.2, 0.4, 0.6), 0.93, (3.0, 2.2, 4.0, 0.4), 0.21)
SURE = Region("WBC", (0.0, 0.0, 1.0, 1.0), 0.99, (0.0, 0.0, 0.0, 0.0), 0.0)
TEXT = boxes.encode_prediction([REGION, SURE], SIZE)


def item(spec: TaskSpec, text: str) -> dict[str, Any]:
    return {"task": 1, "model_version": "v1", "score": 0.5, "result": to_result(spec, text, 0.5)}


def test_regions_stand_in_a_text_most_trustworthy_first() -> None:
    found = boxes.decode_prediction(TEXT)
    assert found is not None
    assert found.regions == (SURE, REGION)
    assert found.size == SIZE
    assert boxes.encode_prediction(found.regions, found.size) == TEXT
    assert json.loads(TEXT)["regions"][1] == {
        "label": "RBC", "box": [0.1, 0.2, 0.4, 0.6], "p": 0.93, "spread": [3.0, 2.2, 4.0, 0.4],
        "entropy": 0.21,
    }  # fmt: skip
    assert answers.is_prediction(BOXES, TEXT)
    assert not answers.is_known(BOXES, TEXT)
    assert answers.readable(BOXES, TEXT) == {"RBC": 1, "WBC": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"p": 1.5}, {"p": math.nan}, {"entropy": math.inf}, {"entropy": -0.5},
        {"box": (0.2, 0.2, 0.2, 0.6)}, {"box": (0.1, 0.2, 1.4, 0.6)}, {"spread": (1, 2, 3)},
        {"spread": (1, 2, 3, -1)},
    ],
)  # fmt: skip
def test_impossible_regions_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no region"):
        boxes.encode_prediction([Region(**{**vars(REGION), **change})], SIZE)


@pytest.mark.parametrize("size", [(0, 480), (640.0, 480), (640,), (True, 2)])
def test_impossible_sizes_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="no size of an image"):
        boxes.encode_prediction([], size)


@pytest.mark.parametrize("text", ["", "RBC", "[]", "{}", NOTHING, '{"regions":[],"size":[1]}'])
def test_what_is_no_prediction_of_boxes_is_refused(text: str) -> None:
    assert boxes.decode_prediction(text) is None
    assert not answers.is_prediction(BOXES, text)
    with pytest.raises(ValueError, match="no prediction of boxes"):
        boxes.box_result(BOXES, text)


def test_a_class_that_the_config_lost_is_not_sent() -> None:
    text = boxes.encode_prediction([Region(**{**vars(REGION), "label": "Platelet"})], SIZE)
    assert not answers.is_prediction(BOXES, text)
    with pytest.raises(ValueError, match="'Platelet' is no label of 'box': RBC, WBC"):
        boxes.box_result(BOXES, text)


def test_what_the_model_says_becomes_a_text() -> None:
    said = Detections(
        boxes=np.array([[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.5, 0.5], [-0.1, 0.5, 0.2, 1.1]]),
        label=np.array([1, 0, 0]),
        p_right=np.array([0.9, 0.8, 0.7]),
        probs=np.full((3, 2), 0.4),
        total=np.array([0.5, 0.1, -1e-12]),
        aleatoric=np.zeros(3),
        epistemic=np.zeros(3),
        spread=np.ones((3, 4)),
        p_all_right=0.5,
        missed=0.1,
        size=SIZE,
    )
    found = boxes.decode_prediction(boxes.from_detections(("RBC", "WBC"), said))
    assert found is not None
    assert [(r.label, r.box, r.p, r.entropy) for r in found.regions] == [
        ("WBC", (0.1, 0.2, 0.4, 0.6), 0.9, 0.5),
        ("RBC", (0.0, 0.5, 0.2, 1.0), 0.7, 0.0),
    ]


def test_a_prediction_becomes_rectangles() -> None:
    first, second = boxes.box_result(BOXES, TEXT)
    assert first["value"] == {
        "x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["WBC"],
    }  # fmt: skip
    assert first["id"] != second["id"]
    assert {k: v for k, v in second.items() if k != "id"} == {
        "from_name": "box", "to_name": "image", "type": "rectanglelabels",
        "original_width": 640, "original_height": 480, "image_rotation": 0, "score": 0.93,
        "value": {
            "x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0,
            "rectanglelabels": ["RBC"],
        },
        "meta": {"text": ["P(right) 0.93", "sides ±3 ±2 ±4 ±0.4 px", "entropy 0.21"]},
    }  # fmt: skip


def test_a_prediction_becomes_the_ellipse_that_touches_the_boxs_sides() -> None:
    found = boxes.box_result(ELLIPSES, TEXT)[1]
    assert found["type"] == "ellipselabels"
    assert found["value"] == {
        "x": 25, "y": 40, "radiusX": 15, "radiusY": 20, "rotation": 0, "ellipselabels": ["RBC"],
    }  # fmt: skip


def test_a_prediction_becomes_a_rectangle_and_its_labels_with_one_id() -> None:
    found = boxes.box_result(PAIRS, TEXT)
    assert [(r["from_name"], r["type"]) for r in found] == [
        ("box", "rectangle"), ("what", "labels"), ("box", "rectangle"), ("what", "labels"),
    ]  # fmt: skip
    assert [r["id"] for r in found[::2]] == [r["id"] for r in found[1::2]]
    assert "labels" not in found[2]["value"]
    assert found[3]["value"] == {**found[2]["value"], "labels": ["RBC"]}


@st.composite
def predictions(draw: st.DrawFn) -> str:
    """Any boxes at all, down to a millionth of the image."""
    regions = []
    for _ in range(draw(st.integers(0, 4))):
        x0, x1 = sorted(draw(st.sets(st.integers(0, 10**6), min_size=2, max_size=2)))
        y0, y1 = sorted(draw(st.sets(st.integers(0, 10**6), min_size=2, max_size=2)))
        box = rounded((x0 / 10**6, y0 / 10**6, x1 / 10**6, y1 / 10**6))
        label = draw(st.sampled_from(["RBC", "WBC"]))
        regions.append(Region(label, box, draw(st.floats(0, 1)), (1.0, 1.0, 1.0, 1.0), 0.1))
    return boxes.encode_prediction(regions, SIZE)


@EVERY
@given(text=predictions())
def test_every_prediction_can_be_sent_and_comes_back_as_it_was(spec: TaskSpec, text: str) -> None:
    sent = item(spec, text)
    assert check_prediction(spec, sent) == []
    assert to_result(spec, text, None) == sent["result"]  # ids too
    for region in sent["result"]:
        value = region["value"]
        if spec is ELLIPSES:
            ends = [value["x"] + value["radiusX"], value["y"] + value["radiusY"]]
        else:
            ends = [value["x"] + value["width"], value["y"] + value["height"]]
        assert max(ends) <= 100
    accepted = boxes.decode(
        str(from_result(spec, [{**r, "origin": "prediction"} for r in sent["result"]]))
    )
    said = boxes.decode_prediction(text)
    assert accepted is not None
    assert said is not None
    places = [r.box for r in said.regions]
    if all(clipped(b) for b in places) and not any(
        iou(a, b) >= 0.9 for i, a in enumerate(places) for b in places[:i]
    ):
        assert sorted(accepted.boxes) == sorted(
            Drawn(r.label, r.box, "accepted") for r in said.regions
        )


def test_a_score_that_carries_regions_is_published_as_regions() -> None:
    row = Score(task_id=3, label=TEXT, score=0.4, p_right=0.7)
    sent = prediction(BOXES, "v2", row)
    assert (sent["task"], sent["score"]) == (3, 0.4)
    assert sent["result"] == boxes.box_result(BOXES, TEXT)
    assert check_prediction(BOXES, sent) == []
    nothing = Score(task_id=3, label=boxes.encode_prediction([], SIZE), score=0.4, p_right=0.7)
    assert prediction(BOXES, "v2", nothing)["result"] == []


def broken(spec: TaskSpec, key: str, change: dict[str, Any]) -> dict[str, Any]:
    sent = item(spec, TEXT)
    region = sent["result"][-1]
    sent["result"][-1] = (
        {**region, **change} if not key else {**region, key: {**region[key], **change}}
    )
    return sent


@EVERY
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("", {"from_name": "other"}), ("", {"from_name": None}), ("", {"to_name": "other"}),
        ("", {"type": "choices"}), ("", {"id": ""}), ("", {"original_width": 0}),
        ("", {"original_height": 4.5}), ("", {"image_rotation": 90}), ("", {"value": None}),
        ("", {"score": 1.2}), ("", {"score": math.nan}), ("", {"id": "another"}),
        ("value", {"x": -1}), ("value", {"x": 99}), ("value", {"y": math.nan}),
        ("value", {"y": "4"}), ("value", {"rotation": 3}),
    ],
)  # fmt: skip
def test_what_label_studio_would_draw_wrongly_is_found(
    spec: TaskSpec, key: str, change: dict[str, Any]
) -> None:
    whole = change == {"id": "another"} and spec is not PAIRS  # a name of its own is no mistake
    assert bool(check_prediction(spec, broken(spec, key, change))) != whole


@EVERY
@pytest.mark.parametrize("chosen", [None, [], ["RBC", "WBC"], ["Platelet"], "RBC"])
def test_a_region_has_one_label_of_the_config(spec: TaskSpec, chosen: Any) -> None:
    key = "labels" if spec is PAIRS else spec.kind
    assert len(check_prediction(spec, broken(spec, "value", {key: chosen}))) == 1


@EVERY
def test_sizes_above_nothing_and_ids_of_their_own_are_wanted(spec: TaskSpec) -> None:
    size = "radiusX" if spec is ELLIPSES else "width"
    assert len(check_prediction(spec, broken(spec, "value", {size: 0}))) == 1
    sent = item(spec, TEXT)
    twice = {**sent, "result": [{**r, "id": "same"} for r in sent["result"]]}
    assert "id 'same'" in " ".join(check_prediction(spec, twice))
    assert check_prediction(spec, {**sent, "result": ["region"]}) != []


def test_label_studios_own_validator_takes_what_we_send() -> None:
    """Its verdicts, recorded; ours may be stricter, never laxer."""
    recorded = json.loads((PAYLOADS / "validator-verdicts-boxes-1.23.2.json").read_text())
    for case in recorded["cases"]:
        spec = parse_config(case["label_config"]).require_spec()
        ours = check_prediction(spec, case["prediction"]) == []
        assert case["accepted"] or not ours, case["case"]
        if case["case"].startswith("sent"):
            assert ours
            text = case["text"]
            assert case["prediction"]["result"] == to_result(spec, text, 0.5)


def test_what_the_model_has_is_a_text_again():
    text = boxes.encode(
        Drawing((Drawn("RBC", (0.1, 0.2, 0.3, 0.4)), Drawn("WBC", (0.5, 0.5, 1.0, 0.9))),
                ((0.0, 0.0, 0.1, 0.1),))
    )  # fmt: skip
    labels = boxes.to_box_labels(text, ("WBC", "RBC"))
    assert boxes.of_box_labels(labels, ("WBC", "RBC")) == text
    # A region may reach out of the image, and one may lie outside.
    outside = BoxLabels(
        np.array([(-0.1, 0.2, 0.3, 1.2), (1.1, 0.0, 1.3, 0.5)]), np.array([1, 0]),
        np.zeros(2, bool), np.zeros((0, 4)),
    )  # fmt: skip
    assert boxes.of_box_labels(outside, ("WBC", "RBC")) == boxes.encode(
        Drawing((Drawn("RBC", (0.0, 0.2, 0.3, 1.0)),))
    )
