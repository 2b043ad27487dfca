from __future__ import annotations

import numpy as np
import pytest
from support.tiny_sets import blobs

from model.acquisition import ACQUISITIONS
from model.engine import EngineConfig, fit
from model.errors import DataError, ModelError, UnknownNameError
from model.simulation.data import LabelledSet
from model.simulation.replay import Checkpoint, Plan, Run, replay, with_all_labels
from model.types import Labelled


def plan(**changes: float | str) -> Plan:
    return Plan(**{"initial": 0, "batch": 8, "rounds": 4, **changes})


@pytest.mark.parametrize("name", sorted(ACQUISITIONS))
@pytest.mark.parametrize("initial", [0, 6])
def test_every_rule_asks_for_distinct_images_of_the_pool(name: str, initial: int) -> None:
    data = blobs()
    told: list[Checkpoint] = []
    run = replay(data, plan(initial=initial), name, 0, progress=told.append)
    expected = [initial + 8 * k for k in range(0 if initial else 1, 5)]
    assert [p.labels for p in run.checkpoints] == expected
    assert tuple(told) == run.checkpoints
    assert len(set(run.asked)) == len(run.asked) == expected[-1]
    assert set(run.asked) <= set(data.pool.tolist())
    assert len(run.p_right) == len(run.right) == int(data.test.sum())
    last = run.checkpoints[-1]
    assert last.accuracy == pytest.approx(np.mean(run.right))
    values = [last.accuracy, last.ece, last.brier, last.augrc]
    assert np.isfinite(values).all()


def test_rules_of_one_seed_start_from_the_same_images_and_draws_and_seeds_differ() -> None:
    data = blobs()
    runs = {n: replay(data, plan(initial=10), n, 3) for n in ("random", "margin", "typical")}
    starts = {run.asked[:10] for run in runs.values()}
    assert len(starts) == 1
    assert all(all(run.is_random[:10]) for run in runs.values())
    assert replay(data, plan(initial=10), "margin", 4).asked[:10] not in starts
    assert runs["margin"].asked != runs["typical"].asked
    assert replay(data, plan(initial=10), "margin", 3).asked == runs["margin"].asked


@pytest.mark.parametrize(("batch", "share"), [(8, 0.2), (3, 0.2), (2, 0.2), (8, 0.0), (8, 1.0)])
def test_the_random_share_is_kept_after_every_round(batch: int, share: float) -> None:
    run = replay(blobs(), plan(initial=4, batch=batch, random_share=share, rounds=6), "margin", 0)
    for count in range(batch, 6 * batch + 1, batch):
        drawn = sum(run.is_random[4 : 4 + count])
        assert abs(drawn - share * count) <= 0.5


def test_the_share_is_drawn_before_any_score_is_looked_at() -> None:
    """The same draws whatever the rule, as long as the rules agree on what is left."""
    data = blobs()
    first = [
        [row for row, drawn in zip(run.asked, run.is_random, strict=True) if drawn][:2]
        for run in (replay(data, plan(rounds=1), name, 5) for name in ("margin", "typical"))
    ]
    assert first[0] == first[1]


def test_labels_of_the_held_out_images_are_never_learnt() -> None:
    data = blobs()
    broken = np.where(data.test, (data.labels + 1) % 3, data.labels)
    other = LabelledSet(**{**vars(data), "labels": broken})
    assert replay(data, plan(), "auto", 0).asked == replay(other, plan(), "auto", 0).asked


def test_the_last_round_is_what_the_engine_gives_on_these_labels() -> None:
    data = blobs()
    run = replay(data, plan(rounds=2), "random", 1)
    rows = np.array(run.asked)
    bundle = fit(
        Labelled(data.features[rows], data.labels[rows], np.ones(len(rows), bool)),
        data.classes,
        pool=data.features[data.pool],
        config=EngineConfig(seed=1),
    )
    found = bundle.predict(data.features[data.test])
    np.testing.assert_allclose(run.p_right, found.p_right, atol=1e-6)
    np.testing.assert_array_equal(run.right, found.label == data.labels[data.test])


def test_the_plain_head_is_compared_on_random_labels_alone() -> None:
    data = blobs()
    with_plain = replay(data, plan(), "random", 0).checkpoints
    assert all(0 <= (p.plain_accuracy or -1) <= 1 for p in with_plain)
    assert replay(data, plan(), "margin", 0).checkpoints[0].plain_accuracy is None
    assert replay(blobs(plain=False), plan(), "random", 0).checkpoints[0].plain_accuracy is None


def test_a_pool_that_ends_ends_the_replay() -> None:
    data = blobs(60)
    run = replay(data, plan(batch=15, rounds=9), "auto", 0)
    assert [p.labels for p in run.checkpoints] == [15, 30, 40]
    assert set(run.asked) == set(data.pool.tolist())


def test_hard_sets_are_replayed_without_nan() -> None:
    """Copies, constant features, a class with one image, one that is only held out."""
    data = blobs(48)
    labels = data.labels.copy()
    labels[data.test] = 2
    labels[~data.test] = 0
    labels[data.pool[0]] = 1
    for features in (np.ones_like(data.features), np.tile(data.features[:4], (12, 1))):
        hard = LabelledSet(**{**vars(data), "labels": labels, "features": features})
        for name in ("random", "auto", "margin-cluster"):
            last = replay(hard, plan(), name, 0).checkpoints[-1]
            assert last.accuracy == 0
            assert last.error_auroc is None
            assert np.isfinite([last.ece, last.brier, last.augrc]).all()


def test_all_labels_give_one_accuracy_for_each_head() -> None:
    found = with_all_labels(blobs(), "softmax")
    assert set(found) == {"accuracy", "plain_accuracy"}
    assert all(0.4 < value <= 1 for value in found.values())
    assert set(with_all_labels(blobs(plain=False), "softmax")) == {"accuracy"}


def test_a_run_survives_json() -> None:
    import json

    run = replay(blobs(), plan(), "margin", 2)
    assert Run.from_json(json.loads(json.dumps(run.to_json(), allow_nan=False))) == run


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"initial": -1}, ModelError, "initial is -1"),
        ({"batch": 0}, ModelError, "batch is 0"),
        ({"rounds": 0}, ModelError, "rounds is 0"),
        ({"random_share": 1.5}, ModelError, "1.5"),
        ({"random_share": float("nan")}, ModelError, "nan"),
        ({"initial": 1}, ModelError, "start with 2"),
        ({"batch": 1}, ModelError, "start with 2"),
        ({"initial": 79}, DataError, "80 images to learn from"),
        ({"initial": 5, "batch": 90}, DataError, "make them smaller, or add images"),
        ({"initial": 0, "batch": 90}, DataError, "fewer than one batch of 90; make it smaller"),
        ({"uncertainty": "sofmax"}, UnknownNameError, "Did you mean 'softmax'"),
    ],
)
def test_a_plan_that_cannot_be_played_is_refused(
    changes: dict[str, float | str], error: type[ModelError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        plan(**changes).check(blobs())


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="margn"):
        replay(blobs(), plan(), "margn", 0)
