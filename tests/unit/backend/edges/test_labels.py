"""Labeling configs and results of choices."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.labels.choices import classify_result, from_result, to_result
from backend.edges.labels.config import parse_config
from backend.edges.labels.results import check_prediction
from backend.errors import MediaError, UnsupportedConfigError

PAYLOADS = Path(__file__).parents[3] / "payloads"
CONFIG = (
    '<View><Image name="image" value="$photo"/><Choices name="animal" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/><Choice value="Owl, great" alias="owl"/>'
    "</Choices></View>"
)
SPEC = parse_config(CONFIG).require_spec()


def choices(attributes: str, inside: str = '<Choice value="a"/><Choice value="b"/>') -> str:
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="c" {attributes}>{inside}</Choices></View>'
    )


def test_spec_names_the_tags_the_key_and_the_classes_as_results_spell_them() -> None:
    assert (SPEC.control, SPEC.object, SPEC.value_key) == ("animal", "image", "photo")
    assert SPEC.classes == ("cat", "dog", "owl")
    assert parse_config(CONFIG).problems == ()


def test_hash_ignores_order_and_look_but_not_the_classes() -> None:
    reordered = CONFIG.replace('<Choice value="cat"/><Choice value="dog"/>', "").replace(
        "</Choices>", '<Choice value="dog" hint="x"/><Choice value="cat"/></Choices>'
    )
    assert parse_config(reordered).require_spec().config_hash == SPEC.config_hash
    other = parse_config(CONFIG.replace('"dog"', '"wolf"')).require_spec()
    assert other.config_hash != SPEC.config_hash


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (choices('toName="image" perRegion="true"'), "perRegion"),
        (choices('toName="image" perItem="true"'), "perItem"),
        (choices('toName="image" allowNested="true"'), "tree"),
        (choices('toName="image" visibleWhen="region-selected"'), "visibleWhen"),
        (choices('toName="text"'), "no usable Image"),
        (choices('toName="image,other"'), "several objects"),
        (choices('toName="image" value="$options"', ""), "task's data"),
        (choices('toName="image"', ""), "no Choice inside"),
        (choices('toName="image"').replace('value="$image"', 'valueList="$images"'), "several"),
        (choices('toName="image"').replace("$image", "https://x/$image"), "whole key"),
        (choices('toName="image"').replace("$image", ""), "whole key"),
        ("<View/>", "no Choices"),
        ("", "empty"),
        ("<View>", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "entities"),
    ],
)
def test_what_cannot_be_predicted_is_said(config: str, reason: str) -> None:
    parsed = parse_config(config)
    assert parsed.spec is None
    with pytest.raises(UnsupportedConfigError, match="Doubtless needs") as caught:
        parsed.require_spec()
    assert reason in str(caught.value)


def test_first_usable_control_is_taken_and_the_others_are_reported() -> None:
    parsed = parse_config(
        '<View><Image name="i" value="$image"/><Text name="t" value="$caption"/>'
        '<BrushLabels name="brush" toName="i"><Label value="a"/></BrushLabels>'
        '<Choices name="many" toName="i" choice="multiple"><Choice value="x"/></Choices>'
        '<Choices name="one" toName="i" choice="single-radio"><Choice value="x"/></Choices>'
        '<Choices name="two" toName="i"><Choice value="y"/></Choices></View>'
    )
    assert parsed.spec is not None
    assert parsed.spec.control == "one"
    assert len(parsed.problems) == 3
    assert "BrushLabels 'brush'" in parsed.problems[0]


@given(st.text(max_size=200))
def test_parsing_any_text_never_raises(text: str) -> None:
    parse_config(text)


def test_reference_is_read_from_the_key_or_the_undefined_key() -> None:
    assert SPEC.reference({"photo": " /data/upload/1/a.png "}) == "/data/upload/1/a.png"
    assert SPEC.reference({"$undefined$": "a.png"}) == "a.png"


@pytest.mark.parametrize(
    ("data", "says"),
    [({"img": "a"}, "it has: img"), ({"photo": ["a"]}, "a list"), ({"photo": " "}, "empty text")],
)
def test_task_without_an_image_says_what_it_has(data: dict[str, Any], says: str) -> None:
    with pytest.raises(MediaError, match=f"task 812 has .*{says}"):
        SPEC.reference(data, 812)


@pytest.mark.parametrize("label", SPEC.classes)
def test_result_round_trips(label: str) -> None:
    result = to_result(SPEC, label, 0.25)
    assert from_result(SPEC, result) == label
    item = {"task": 1, "model_version": "v1", "score": 0.5, "result": result}
    assert check_prediction(SPEC, item) == []


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1, True])
def test_impossible_scores_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="score of the region must be"):
        to_result(SPEC, "cat", score)
    item = {"task": 1, "model_version": "v1", "score": score, "result": []}
    assert len(check_prediction(SPEC, item)) == 1


def region(**changes: Any) -> dict[str, Any]:
    return {**to_result(SPEC, "cat", None)[0], **changes}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([], "no answer"),
        ([region(from_name="other")], "no answer"),
        ([region(value={"choices": []})], "no answer"),
        ([region(value=None)], "no answer"),
        ([region(value={"choices": ["cat", "dog"]})], "2 answers"),
        ([region(), region(value={"choices": ["dog"]})], "2 answers"),
        ([region(value={"choices": ["zebra"]})], "'zebra' is no choice"),
    ],
)
def test_annotation_without_a_usable_answer_says_why(
    result: list[dict[str, Any]], reason: str
) -> None:
    reading = classify_result(SPEC, result)
    assert reading.label is None
    assert reason in str(reading.reason)


def test_check_finds_all_that_label_studio_would_drop() -> None:
    """Verdicts recorded from Label Studio's own validator; ours may be stricter, never laxer."""
    recorded = json.loads((PAYLOADS / "validator-verdicts-1.23.2.json").read_text())
    spec = parse_config(recorded["label_config"]).require_spec()
    stricter = {"two choices", "no choices", "score null", "region score above"}
    for case in recorded["cases"]:
        accepted = not check_prediction(spec, case["prediction"])
        expected = case["accepted"] and case["case"] not in stricter
        assert accepted == expected, case["case"]


@pytest.mark.parametrize("change", [{"task": None}, {"task": "1"}, {"model_version": ""}])
def test_check_wants_a_task_and_a_version(change: dict[str, Any]) -> None:
    item = {"task": 1, "model_version": "v1", "score": 0.5, "result": [], **change}
    assert len(check_prediction(SPEC, item)) == 1
