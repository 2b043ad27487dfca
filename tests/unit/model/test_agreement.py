"""The level of P(right) and how often two learners agree."""

import numpy as np
import pytest
from scipy.special import expit

from model.calibration.agreement import agreement_lift, expected_log_odds, heed
from model.calibration.base import Agreement, OutOfFold, Rest, logit
from model.calibration.choose import choose_calibrator
from model.calibration.doubt import Doubt
from model.heads.propagated import PropagatedEstimator, lead_of, mix, passes_and_agreement
from model.uncertainty.base import FittedEstimator, Neighbours

BELIEVED = Doubt(trust=1.0, base=0.0)


class Says:
    """An estimator, and a reading, that say what they are told to."""

    passes = 2
    weight = 0.5

    def __init__(self, probs):
        self.probs = np.asarray(probs, float)

    def rows(self, features):
        return features

    def sample_rows(self, rows):
        return np.repeat(self.probs[:, None], 2, axis=1)

    def sample(self, features):
        return self.sample_rows(features)

    def arrays(self):
        return {}

    def __call__(self, rows):
        return self.probs


@pytest.mark.parametrize("trust", [1.0, 0.8])
@pytest.mark.parametrize("labels", [10, 100, 1000])
def test_the_mean_moves_a_share_of_the_way_in_log_odds(labels, trust):
    """Brute force: every lift of a fine grid."""
    p = expit(np.random.default_rng(0).normal(1.0, 1.5, 980))
    doubt = Doubt(trust=trust, base=0.5, lift=-0.2)
    agreement = Agreement(0.7, lead=0.5)
    share = 0.4 * 250 / (250 + labels) * 0.98 / 1.25
    stated = logit(np.array([doubt.apply(p).mean()]))[0]
    goal = (1 - share) * stated + share * expected_log_odds(agreement, labels)

    def mean(lift):
        return Doubt(trust=trust, base=0.5, lift=-0.2 + lift).apply(p).mean()

    grid = np.linspace(-2, 2, 4001)
    best = grid[np.argmin([abs(mean(lift) - expit(goal)) for lift in grid])]
    assert agreement_lift(p, doubt, agreement, labels) == pytest.approx(best, abs=2e-3)


def test_more_agreement_never_lowers_and_fewer_labels_move_more():
    p = np.full(500, 0.8)
    lifts = [agreement_lift(p, BELIEVED, Agreement(share), 100) for share in np.linspace(0, 1, 21)]
    assert (np.diff(lifts) >= -1e-4).all()
    assert lifts[0] < 0.0 < lifts[-1]
    low = [agreement_lift(p, BELIEVED, Agreement(0.3), labels) for labels in (80, 400, 10_000)]
    assert low[0] < low[1] < low[2] < 0.0


def test_what_is_not_known_lifts_nothing_and_few_images_little():
    p = np.full(500, 0.8)
    assert agreement_lift(p, BELIEVED, None, 100) == 0.0
    assert agreement_lift(p[:0], BELIEVED, Agreement(0.5), 100) == 0.0
    assert agreement_lift(p, BELIEVED, Agreement(0.5), 0) == 0.0
    assert abs(agreement_lift(p[:1], BELIEVED, Agreement(0.0), 100)) < 0.5
    for share in (0.0, 1.0):
        assert np.isfinite(agreement_lift(p, BELIEVED, Agreement(share), 1))


def test_level_follows_and_order_stays():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(5, 0.4), 400)
    labels = np.array([rng.choice(5, p=row) for row in probs])
    found = {}
    for share in (None, 0.5, 0.9):
        rest = Rest(probs[100:], 5000.0, None if share is None else Agreement(share))
        data = OutOfFold.of(probs[:100], labels[:100], rest=rest)
        published = choose_calibrator(data)
        assert published.facts["agreement"] == share
        found[share] = published.p_right(probs[100:])
    assert found[0.5].mean() < found[None].mean() - 0.02
    assert found[0.9].mean() > found[0.5].mean() + 0.05
    assert (np.argsort(found[0.5]) == np.argsort(found[0.9])).all()


def test_agreement_is_of_the_head_not_of_the_mixture():
    head = [[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]
    read = np.array([[0.1, 0.9], [0.7, 0.3], [0.8, 0.2], [0.1, 0.9]])
    rows = np.zeros((4, 3), np.float32)
    mixed = PropagatedEstimator(Says(head), 0.5, Says(read))
    passes, agreement = passes_and_agreement(
        FittedEstimator(mixed, np.zeros(0), {}, Neighbours(Says(read), 0.3)), rows
    )
    assert agreement == Agreement(0.75, 0.3)
    np.testing.assert_allclose(passes, mix(Says(head).sample_rows(rows), read, 0.5))
    alone, agreement = passes_and_agreement(
        FittedEstimator(Says(head), np.zeros(0), {}, Neighbours(Says(read), 0.3)), rows
    )
    assert agreement == Agreement(0.75, 0.3)
    np.testing.assert_array_equal(alone, Says(head).sample_rows(rows))
    as_it_is, agreement = passes_and_agreement(FittedEstimator(mixed, np.zeros(0)), rows)
    assert agreement is None
    np.testing.assert_array_equal(as_it_is, passes)


def test_neighbours_that_are_far_worse_are_no_second_opinion():
    assert heed(Agreement(0.7), 100, 1000) > 2 * heed(Agreement(0.7, 1.5), 100, 1000)
    better, same = Agreement(0.7, 1.0), Agreement(0.7)
    assert expected_log_odds(better, 100) == pytest.approx(expected_log_odds(same, 100) + 0.5)


def test_the_lead_is_that_of_held_out_labels_whose_class_has_others():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    right = np.eye(3)[labels]
    wrong = right[:, [1, 0, 2]]
    heavy = 8 * (3 / 4) ** 4
    most = np.log((heavy + 1) / 1)
    assert lead_of(right[:, None], wrong, labels) == pytest.approx(2 * most)
    assert lead_of(right[:, None], right, labels) == 0.0
    alone = right.copy()
    alone[8] = [1, 0, 0]  # the only one of its class counts for nothing
    assert lead_of(alone[:, None], right, labels) == 0.0
