from __future__ import annotations

import pytest
from scipy.stats import binomtest

from backend.retraining import compare, decide, round_size


def decided(**given):
    facts = {
        "new": 0, "labels": 50, "quiet_for_s": 1.0, "requested": None, "outdated": False,
        "retrain_after": 10, "retrain_growth": 0.05, "quiet_s": 20.0,
    }  # fmt: skip
    return decide(**(facts | given))


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({"new": 10}, True),
        ({"new": 9}, False),
        ({"new": 1, "quiet_for_s": 20.0}, True),
        ({"new": 0, "quiet_for_s": 500.0}, False),
        ({"new": 0, "requested": "pressed"}, True),
        ({"new": 0, "outdated": True}, True),
        ({"labels": 0, "requested": "pressed"}, False),
        ({"new": 49, "labels": 1000}, False),
        ({"new": 50, "labels": 1000}, True),
    ],
)
def test_training_is_due_after_enough_labels_quiet_or_a_request(given, due):
    assert decided(**given).due is due


def test_decision_says_when_quiet_would_make_it_due():
    assert decided(new=3, quiet_for_s=5.0).wait_s == pytest.approx(15.0)


def test_round_grows_with_the_labels():
    assert [round_size(n, retrain_after=10, retrain_growth=0.05) for n in (0, 200, 201, 1000)] == [
        10,
        10,
        11,
        50,
    ]


def test_first_version_is_promoted():
    assert compare({1: False}, None).promote


def test_candidate_is_kept_back_only_when_significantly_worse():
    live = dict.fromkeys(range(40), True)
    slightly = dict.fromkeys(range(40), True) | {0: False, 1: False, 2: False, 3: False}
    clearly = dict.fromkeys(range(40), True) | dict.fromkeys(range(5), False)
    assert compare(slightly, live).promote
    verdict = compare(clearly, live)
    assert not verdict.promote
    p = binomtest(0, 5, 0.5, alternative="less").pvalue
    assert f"p = {p:.3f}" in verdict.reason
    assert "right on 35 of 40" in verdict.reason


def test_versions_for_other_classes_are_replaced_whatever_they_score():
    assert compare({1: False}, {1: True}, outdated=True).promote


def test_no_common_random_labels_promote():
    assert compare({}, {1: True}).promote
