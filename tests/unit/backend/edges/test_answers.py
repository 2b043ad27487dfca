"""Answers of several choices an image: as texts, merged, read, written and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.edges.labels import answers
from backend.edges.labels.choices import classify_result, from_result, to_result
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labels.merge import majority_of_each
from backend.edges.labels.results import check_prediction

NAMES = ("cat", "dog", "Eule, groß")


def spec_of(attributes: str) -> TaskSpec:
    inside = "".join(f'<Choice value="{name}"/>' for name in NAMES)
    return parse_config(
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="c" toName="image" {attributes}>{inside}</Choices></View>'
    ).require_spec()


ONE = spec_of("")
SEVERAL = spec_of('choice="multiple"')
REQUIRED = spec_of('choice="Multiple" required="true"')
SETS = st.sets(st.sampled_from(NAMES))


def region(*chosen: str, **changes: Any) -> dict[str, Any]:
    return {
        "from_name": "c", "to_name": "image", "type": "choices",
        "value": {"choices": list(chosen)}, **changes,
    }  # fmt: skip


def item(result: list[dict[str, Any]]) -> dict[str, Any]:
    return {"task": 1, "model_version": "v1", "score": 0.5, "result": result}


def test_the_config_says_whether_there_may_be_several_and_none() -> None:
    assert (ONE.multiple, ONE.required) == (False, False)
    assert (SEVERAL.multiple, SEVERAL.required) == (True, False)
    assert (REQUIRED.multiple, REQUIRED.required) == (True, True)
    assert len({ONE.config_hash, SEVERAL.config_hash, REQUIRED.config_hash}) == 3
    # Whether one answer is required changes nothing for a model of one answer.
    assert spec_of('required="true"').config_hash == ONE.config_hash


def test_a_question_with_one_answer_comes_before_one_with_several() -> None:
    config = (
        '<View><Image name="i" value="$image"/>'
        '<Choices name="many" toName="i" choice="multiple"><Choice value="x"/></Choices>'
        '<Choices name="more" toName="i" choice="multiple"><Choice value="x"/></Choices>{}</View>'
    )
    one = '<Choices name="one" toName="i"><Choice value="x"/></Choices>'
    alone = parse_config(config.format(""))
    assert alone.spec is not None
    assert alone.spec.control == "many"
    assert len(alone.problems) == 1
    both = parse_config(config.format(one))
    assert both.spec is not None
    assert both.spec.control == "one"
    assert len(both.problems) == 2


@given(SETS)
def test_a_set_comes_back_from_its_text_and_its_result(chosen: set[str]) -> None:
    text = answers.encode(chosen)
    assert set(answers.decode(text) or ()) == chosen
    assert answers.is_known(SEVERAL, text)
    result = to_result(SEVERAL, text, 0.25, {"cat": 0.9, "dog": 0.01})
    assert from_result(SEVERAL, result) == text
    assert check_prediction(SEVERAL, item(result)) == []
    assert (result == []) == (not chosen)
    if chosen:
        assert result[0]["value"]["choices"] == [n for n in NAMES if n in chosen]
        assert result[0]["meta"] == {"text": ["cat 0.90"]}


@pytest.mark.parametrize(
    ("spec", "result", "label"),
    [
        (SEVERAL, [region("dog", "cat")], '["cat", "dog"]'),
        (SEVERAL, [region("dog"), region("cat")], '["cat", "dog"]'),
        (SEVERAL, [region("dog", "dog")], '["dog"]'),
        (SEVERAL, [], "[]"),
        (SEVERAL, [region()], "[]"),
        (SEVERAL, [region(value=None)], "[]"),
        (SEVERAL, [region("cat", from_name="other")], "[]"),
        (SEVERAL, [region("cat", "zebra")], None),
        (REQUIRED, [], None),
        (REQUIRED, [region("cat")], '["cat"]'),
    ],
)
def test_annotations_are_read(
    spec: TaskSpec, result: list[dict[str, Any]], label: str | None
) -> None:
    reading = classify_result(spec, result)
    assert reading.label == label
    assert (reading.reason is None) == (label is not None)


@pytest.mark.parametrize(
    ("spec", "text"),
    [(SEVERAL, '["zebra"]'), (SEVERAL, "cat"), (SEVERAL, "3"), (SEVERAL, "[3]"), (ONE, '["cat"]')],
)
def test_an_answer_to_another_question_is_not_known(spec: TaskSpec, text: str) -> None:
    assert not answers.is_known(spec, text)
    with pytest.raises(ValueError, match="is no choice of"):
        to_result(spec, text, None)


@pytest.mark.parametrize("chosen", [None, [], ["zebra"], ["cat", "zebra"], "cat"])
def test_what_label_studio_would_drop_is_found(chosen: Any) -> None:
    assert len(check_prediction(SEVERAL, item([region(value={"choices": chosen})]))) == 1


@given(st.lists(SETS, min_size=1, max_size=6))
def test_annotators_vote_on_every_label(sets: list[set[str]]) -> None:
    agreed = majority_of_each(sets)
    for name in NAMES:
        votes = sum(name in chosen for chosen in sets)
        share = votes / len(sets)
        assert (name in agreed) == (share > 0.5 or (share == 0.5 and name in sets[-1]))
    texts = [answers.encode(chosen) for chosen in sets]
    assert answers.merged(SEVERAL, texts) == answers.encode(agreed)
    assert answers.merged(REQUIRED, texts) == answers.encode(agreed or sets[-1])
    assert answers.merged(SEVERAL, [*texts, "no list"]) == answers.encode(agreed)


def test_nothing_merges_to_nothing_and_one_answer_by_majority() -> None:
    assert answers.merged(SEVERAL, []) is None
    assert answers.merged(ONE, ["cat", "dog", "cat"]) == "cat"


def test_answers_become_arrays_and_counts() -> None:
    texts = ['["cat", "dog"]', "[]", '["dog"]']
    labels = answers.to_labels(SEVERAL, texts, NAMES)
    assert labels.tolist() == [[True, True, False], [False] * 3, [False, True, False]]
    assert answers.counts(SEVERAL, texts, NAMES).tolist() == [1, 2, 0]
    assert answers.to_labels(ONE, ["dog", "cat"], NAMES).tolist() == [1, 0]
    assert answers.counts(ONE, ["dog", "cat", "dog", "zebra"], NAMES).tolist() == [1, 2, 0]


@given(SETS)
def test_predictions_become_texts(chosen: set[str]) -> None:
    row = np.array([name in chosen for name in NAMES])
    assert answers.of_prediction(SEVERAL, NAMES, row) == answers.encode(chosen)
    assert answers.of_prediction(ONE, NAMES, row) is None
    assert answers.of_prediction(ONE, NAMES, np.int64(1)) == "dog"
    assert answers.of_prediction(SEVERAL, NAMES, np.int64(1)) is None
    gone = answers.of_prediction(SEVERAL, ("zebra", *NAMES[1:]), np.array([True, False, False]))
    assert gone is None


def test_probabilities_of_what_is_possible_are_kept() -> None:
    probs = np.array([0.98764, 0.001, 0.01])
    kept = answers.probabilities(SEVERAL, NAMES, probs)
    assert kept == {"cat": 0.9876, "Eule, groß": 0.01}
    assert answers.probabilities(ONE, NAMES, probs) is None


def test_notes_are_short_and_sorted() -> None:
    probs = {str(n): n / 100 for n in range(100)}
    shown = answers.notes(probs)["meta"]["text"]
    assert shown[0] == "99 0.99"
    assert len(shown) == answers.MOST_SHOWN
    assert answers.notes(None) == {}


def test_people_read_the_configs_order() -> None:
    assert answers.readable(SEVERAL, '["Eule, groß", "cat"]') == ["cat", "Eule, groß"]
    assert answers.readable(SEVERAL, None) is None
    assert answers.readable(ONE, "cat") == "cat"
    assert answers.readable(None, "cat") == "cat"
