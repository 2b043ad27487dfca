"""Several people who choose sets or draw boxes: by hand, by brute force, and as simulated."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from model.annotators.base import ALONE, APART
from model.annotators.drawings import matches, weigh_drawings
from model.annotators.sets import weigh_sets
from model.annotators.yes_no import (
    AS_SAID,
    SUREST,
    USUAL_ANSWERS,
    USUAL_NO,
    USUAL_YES,
    Questions,
    answer,
)
from model.detection.types import BoxLabels, Detections
from model.errors import ModelError, ShapeError

LEFT, RIGHT, MIDDLE = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.45, 0.4, 0.55, 0.6)
NEAR_LEFT, FAR_LEFT = (0.0, 0.0, 0.5, 1.0), (0.3, 0.0, 0.7, 1.0)  # IoU .8 and 1/7


def found(*regions, classes=2):
    """Regions ``(box, class, probability)``; what is left goes to no class."""
    probs = np.zeros((len(regions), classes))
    for n, (_, label, p) in enumerate(regions):
        probs[n, label] = p
    nothing = np.zeros(len(regions))
    return Detections(
        boxes=np.array([box for box, *_ in regions], float).reshape(-1, 4),
        label=np.array([label for _, label, _ in regions], np.int64),
        p_right=np.array([p for *_, p in regions], float),
        probs=probs, total=nothing, aleatoric=nothing, epistemic=nothing,
        spread=np.zeros((len(regions), 4)), p_all_right=0.5, missed=0.0, size=(100, 100),
    )  # fmt: skip


def drawn(*boxes, ignored=()):
    return BoxLabels.of([box for box, _ in boxes], [n for _, n in boxes], ignored=ignored)


def crowd_of(regions, by_person):
    """One image for each entry; person n drew ``by_person[n][image]``, None where they did not."""
    rows = [
        (image, person, one)
        for person, images in by_person.items()
        for image, one in enumerate(images)
        if one is not None
    ]
    task, who, drawings = zip(*rows, strict=True)
    return weigh_drawings(regions, np.array(task), np.array(who), list(drawings))


# Yes and no


def made(seed, *, tasks=3, questions=2, people=2, unsaid=()):
    rng = np.random.default_rng(seed)
    prior = rng.uniform(0.1, 0.9, tasks * questions)
    prior[list(unsaid)] = np.nan
    rows = [(k, j, rng.random() < 0.5) for k in range(len(prior)) for j in range(people)]
    question, who, yes = np.array(rows).T
    labelled = np.array(list(product(range(tasks), range(people))))
    task = np.repeat(np.arange(tasks), questions)
    return Questions(task, prior, question, who, yes.astype(bool), labelled, np.arange(people))


@pytest.mark.parametrize("unsaid", [(), (0, 3)])
def test_the_estimate_is_where_each_rate_is_what_the_posterior_gives(unsaid):
    """By the formulas, one question at a time."""
    given = made(0, tasks=6, people=3, unsaid=unsaid)
    got = answer(given)
    most = np.log(SUREST / (1 - SUREST))
    for k, prior in enumerate(given.prior):
        of = np.flatnonzero(given.question == k)
        said_yes = given.yes[of].sum()
        if np.isnan(prior):
            odds = np.log(got.unsaid / (1 - got.unsaid))
        else:
            odds = got.model[0] + got.model[1] * np.log(prior / (1 - prior))
        odds = np.clip(odds, -most, most)
        for row in of:
            j, yes = given.who[row], given.yes[row]
            rates = got.sees[j], got.invents[j]
            a, b = rates if yes else (1 - rates[0], 1 - rates[1])
            weight = (said_yes - 1) / said_yes if np.isnan(prior) and yes else 1.0
            odds += weight * np.log(a / b)
        assert got.p[k] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-9)
    for j in range(3):
        mine = given.who == j
        p, yes, w = got.p[given.question[mine]], given.yes[mine], given.weight[mine]
        hits, there = (w * p * yes).sum(), (w * p).sum()
        assert got.sees[j] == pytest.approx(
            (hits + USUAL_YES * USUAL_ANSWERS) / (there + USUAL_ANSWERS), abs=1e-4
        )
        wrong = (w * (1 - p) * yes).sum() + (1 - USUAL_NO) * USUAL_ANSWERS
        assert got.invents[j] == pytest.approx(
            wrong / ((w * (1 - p)).sum() + USUAL_ANSWERS), abs=1e-4
        )


def test_the_estimate_is_the_likeliest():
    """Against a general optimiser, of the likelihood summed over what may be so."""
    given = made(2, tasks=40, questions=1, people=3)

    def loss(at):
        sees, invents, line = expit(at[:3]), expit(at[3:6]), at[6:]
        rows = given.question.reshape(-1, 3)
        assert (rows == np.arange(40)[:, None]).all()
        yes = given.yes.reshape(-1, 3)
        prior = expit(line[0] + line[1] * given.log_odds)
        if_so = np.where(yes, sees, 1 - sees).prod(axis=1)
        if_not = np.where(yes, invents, 1 - invents).prod(axis=1)
        likely = np.log(prior * if_so + (1 - prior) * if_not).sum()
        usual = USUAL_ANSWERS * (
            USUAL_YES * np.log(sees) + (1 - USUAL_YES) * np.log(1 - sees)
            + (1 - USUAL_NO) * np.log(invents) + USUAL_NO * np.log(1 - invents)
        ).sum()  # fmt: skip
        return -likely - usual + AS_SAID / 2 * ((line - (0, 1)) ** 2).sum()

    got = answer(given)
    start = np.concatenate([logit(got.sees) + 0.3, logit(got.invents) - 0.3, [0.1, 0.8]])
    best = minimize(loss, start, tol=1e-10).x
    np.testing.assert_allclose(got.sees, expit(best[:3]), atol=2e-3)
    np.testing.assert_allclose(got.invents, expit(best[3:6]), atol=2e-3)
    np.testing.assert_allclose(got.model, best[6:], atol=1e-2)


def test_what_is_asked_because_one_person_said_yes_is_no_evidence_of_it():
    """Of two who say yes one counts; which is left open, so each counts half."""
    task, prior = np.array([0, 1]), np.array([np.nan, np.nan])
    question, who = np.array([0, 1, 1]), np.array([0, 0, 1])
    labelled = np.array([(0, 0), (1, 0), (1, 1)])
    given = Questions(task, prior, question, who, np.ones(3, bool), labelled, np.arange(2))
    np.testing.assert_allclose(given.weight, [0.0, 0.5, 0.5])
    got = answer(given)
    assert got.p[0] == pytest.approx(got.unsaid)
    assert got.p[1] > got.unsaid


def test_a_model_that_says_too_little_is_believed_more():
    """People are always right; the model's odds are the square root of what they should be."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 2000).clip(1e-3, 1 - 1e-3)
    truth = rng.random(2000) < p
    odds = np.sqrt(p / (1 - p))
    labelled = np.array(list(product(range(2000), range(2))))
    given = Questions(
        np.arange(2000), odds / (1 + odds), labelled[:, 0], labelled[:, 1],
        np.repeat(truth, 2), labelled, np.arange(2),
    )  # fmt: skip
    shift, scale = answer(given).model
    assert shift == pytest.approx(0.0, abs=0.2)
    assert scale == pytest.approx(2.0, abs=0.2)


# Sets


def people_of(seed, *, tasks=200, classes=6, sees=(0.97, 0.9, 0.7), invents=(0.01, 0.03, 0.02)):
    rng = np.random.default_rng(seed)
    probs = rng.beta(0.3, 0.9, (tasks, classes))
    truth = rng.random((tasks, classes)) < probs
    rows = [
        (n, j)
        for n in range(tasks)
        for j in rng.choice(len(sees), rng.integers(1, 4), replace=False)
    ]
    task, who = np.array(rows).T
    rates = np.where(truth[task], np.array(sees)[who][:, None], np.array(invents)[who][:, None])
    return probs, truth, task, who, rng.random(rates.shape) < rates


def test_sets_of_simulated_people_are_judged_right():
    off, holds = [], []
    for seed in range(12):
        probs, truth, task, who, chosen = people_of(seed)
        crowd = weigh_sets(probs, task, who, chosen)
        is_right = (chosen == truth[task]).all(axis=1)
        for one in crowd.annotators:
            real = is_right[who == one.id].mean()
            off.append(one.quality - real)
            holds.append(one.low <= real <= one.high)
        wrong = (crowd.consensus != truth).any(axis=1)
        alone = [(chosen[np.flatnonzero(task == n)[0]] != truth[n]).any() for n in range(200)]
        assert wrong.mean() < 0.7 * np.mean(alone)
        assert (1 - crowd.p_right).mean() == pytest.approx(wrong.mean(), abs=0.07)
    assert abs(np.mean(off)) < 0.01
    assert np.abs(off).max() < 0.08
    assert np.mean(holds) > 0.9


def test_recall_and_precision_are_of_the_choices():
    probs, truth, task, who, chosen = people_of(3, tasks=600)
    crowd = weigh_sets(probs, task, who, chosen)
    for one in crowd.annotators:
        mine = who == one.id
        hits = (chosen[mine] & truth[task[mine]]).sum()
        assert one.recall == pytest.approx(hits / truth[task[mine]].sum(), abs=0.04)
        assert one.precision == pytest.approx(hits / chosen[mine].sum(), abs=0.04)


def test_agreement_of_sets_by_hand():
    """Whole sets: 1 of 2 equal for the first two; single choices by scikit-learn's kappa."""
    probs = np.full((2, 3), 0.5)
    task, who = np.array([0, 0, 1, 1, 1]), np.array([5, 8, 5, 8, 9])
    chosen = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    crowd = weigh_sets(probs, task, who, chosen)
    agreement = {one.id: one.agreement for one in crowd.annotators}
    assert agreement == {5: 1 / 3, 8: 2 / 3, 9: 1 / 2}
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 40, 1)) < 0.4
    two = np.where(rng.random((40, 1)) < 0.7, one, two)
    tasks = np.arange(40)
    pair = weigh_sets(
        np.full((40, 1), 0.4), np.tile(tasks, 2), np.repeat([0, 1], 40), np.concatenate([one, two])
    )
    kappa = cohen_kappa_score(one[:, 0], two[:, 0])
    assert [p.kappa for p in pair.annotators] == [pytest.approx(kappa)] * 2
    assert [p.agreement for p in pair.annotators] == [pytest.approx((one == two).mean())] * 2


def test_the_consensus_of_a_task_that_needs_a_class_has_one():
    probs = np.array([[0.3, 0.2], [0.9, 0.1]])
    task, who = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    nothing = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], bool)
    free = weigh_sets(probs, task, who, nothing)
    bound = weigh_sets(probs, task, who, nothing, at_least_one=True)
    assert free.consensus.tolist() == [[False, False], [True, False]]
    assert bound.consensus.tolist() == [[True, False], [True, False]]
    np.testing.assert_array_equal(free.probs, bound.probs)
    p = bound.probs[0]
    some = 1 - (1 - p[0]) * (1 - p[1])
    assert bound.p_right[0] == pytest.approx(p[0] * (1 - p[1]) / some)
    assert free.p_right[0] == pytest.approx((1 - p[0]) * (1 - p[1]))


@pytest.mark.parametrize("people", [3, 8, 30, 400])
def test_what_nobody_chose_is_as_probable_as_it_is_where_there_has_to_be_a_class(people):
    """However improbable each class is: one of them it is, and here both are alike."""
    tasks = 40
    crowd = weigh_sets(
        np.full((tasks, 2), 0.01),
        np.repeat(np.arange(tasks), people),
        np.tile(np.arange(people), tasks),
        np.zeros((tasks * people, 2), bool),
        at_least_one=True,
    )
    np.testing.assert_allclose(crowd.p_right, 0.5, atol=1e-3)


def test_sets_nobody_shares_say_why():
    probs, chosen = np.full((2, 2), 0.5), np.ones((2, 2), bool)
    alone = weigh_sets(probs, np.array([0, 1]), np.array([3, 3]), chosen)
    apart = weigh_sets(probs, np.array([0, 1]), np.array([3, 4]), chosen)
    assert (alone.why, apart.why) == (ALONE, APART)
    assert alone.annotators == apart.annotators == ()


def test_more_shared_tasks_make_intervals_narrower():
    few, many = (
        weigh_sets(*(people_of(5, tasks=n)[i] for i in (0, 2, 3, 4))).annotators for n in (30, 480)
    )
    for a, b in zip(few, many, strict=True):
        assert b.high - b.low < 0.5 * (a.high - a.low)


def test_one_shared_task_says_hardly_anything():
    chosen = np.ones((3, 2), bool)
    crowd = weigh_sets(np.full((2, 2), 0.5), np.array([0, 0, 1]), np.array([1, 2, 2]), chosen)
    assert all(one.low < 0.3 and one.high > 0.97 for one in crowd.annotators)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"probs": np.full((2, 2), 1.5)}, ModelError, "no probabilities"),
        ({"probs": np.full((2, 2), np.nan)}, ModelError, "no probabilities"),
        ({"probs": np.zeros((0, 2))}, ShapeError, "probs"),
        ({"chosen": np.ones((2, 3), bool)}, ShapeError, "chosen"),
        ({"task": np.array([0, 2])}, ModelError, "task 2 is out of range"),
        ({"task": np.array([0, 0])}, ModelError, "labelled task 0 twice"),
        ({"annotator": np.array([1])}, ShapeError, "annotator"),
    ],
)
def test_what_is_no_answer_is_refused(change, error, says):
    good = {
        "probs": np.full((2, 2), 0.5), "task": np.array([0, 1]), "annotator": np.array([1, 1]),
        "chosen": np.ones((2, 2), bool),
    }  # fmt: skip
    with pytest.raises(error, match=says):
        weigh_sets(**{**good, **change})


# Boxes


def test_boxes_are_the_same_by_class_and_iou():
    assert matches(drawn((LEFT, 0), (RIGHT, 1)), drawn((RIGHT, 1), (NEAR_LEFT, 0))) == 2
    assert matches(drawn((LEFT, 0)), drawn((LEFT, 1))) == 0
    assert matches(drawn((LEFT, 0)), drawn((FAR_LEFT, 0))) == 0
    assert matches(drawn(), drawn((LEFT, 0))) == 0
    assert matches(drawn((LEFT, 0), (NEAR_LEFT, 0)), drawn((LEFT, 0))) == 1, "one to one"


@pytest.mark.parametrize("seed", range(20))
def test_as_many_boxes_are_matched_as_can_be(seed):
    """Against every way to pair them."""
    rng = np.random.default_rng(seed)

    def some(n):
        corners = rng.uniform(0, 0.3, (n, 2))
        return BoxLabels.of(np.hstack([corners, corners + 0.5]), rng.integers(0, 2, n))

    def fits(a, b, i, j):
        lo = np.maximum(a.boxes[i, :2], b.boxes[j, :2])
        hi = np.minimum(a.boxes[i, 2:], b.boxes[j, 2:])
        both = np.prod(np.maximum(hi - lo, 0))
        return a.labels[i] == b.labels[j] and both / (0.5 - both) >= 0.5

    a, b = some(3), some(4)
    pairs = [(i, j) for i in range(3) for j in range(4) if fits(a, b, i, j)]
    best = max(
        size
        for size in range(4)
        for chosen in combinations(pairs, size)
        if len({i for i, _ in chosen}) == len({j for _, j in chosen}) == size
    )
    assert matches(a, b) == matches(b, a) == best


def test_agreement_of_boxes_by_hand():
    """2 of 2 + 2 on the first image, 0 of 1 + 2 on the second: F1 is 2 * 2 / 7."""
    first = drawn((LEFT, 0), (RIGHT, 0))
    crowd = crowd_of(
        [found(), found(), found()],
        {
            4: [first, drawn((LEFT, 1)), drawn((LEFT, 0))],
            6: [drawn((NEAR_LEFT, 0), (RIGHT, 0)), drawn((LEFT, 0), (RIGHT, 0)), None],
        },
    )
    assert [one.agreement for one in crowd.annotators] == [pytest.approx(4 / 7)] * 2
    assert [one.kappa for one in crowd.annotators] == [None, None]
    assert [(one.labels, one.shared) for one in crowd.annotators] == [(3, 2), (2, 2)]


def test_what_one_leaves_open_is_not_held_against_the_other():
    both = {1: [drawn((LEFT, 0), ignored=[RIGHT])], 2: [drawn((LEFT, 0), (RIGHT, 0))]}
    crowd = crowd_of([found((LEFT, 0, 0.9), (RIGHT, 0, 0.9))], both)
    assert [one.agreement for one in crowd.annotators] == [1.0, 1.0]
    closed = crowd_of([found((LEFT, 0, 0.9), (RIGHT, 0, 0.9))], both | {1: [drawn((LEFT, 0))]})
    assert closed.annotators[0].recall < crowd.annotators[0].recall


def test_the_model_tells_who_overlooks_and_who_invents():
    regions = [found((LEFT, 0, 0.9), (RIGHT, 1, 0.9), (MIDDLE, 0, 0.06)) for _ in range(30)]
    right = drawn((LEFT, 0), (RIGHT, 1))
    crowd = crowd_of(
        regions,
        {
            1: [right] * 30,
            2: [drawn((LEFT, 0))] * 15 + [right] * 15,
            3: [right] * 20 + [drawn((LEFT, 0), (RIGHT, 1), (MIDDLE, 1))] * 10,
        },
    )
    good, overlooks, invents = crowd.annotators
    assert good.quality > 0.97
    assert overlooks.recall == pytest.approx(45 / 60, abs=0.02)
    assert overlooks.precision > 0.97
    assert invents.recall > 0.97
    assert invents.precision == pytest.approx(60 / 70, abs=0.02)
    assert overlooks.quality == pytest.approx(2 * 45 / (45 + 60), abs=0.02)
    assert overlooks.high < good.quality
    assert all(matches(one, right) == len(one) == 2 for one in crowd.drawn)


def test_what_nobody_drew_is_there_if_people_overlook_much_and_the_model_is_sure():
    """Each of two sees half of what is there, so a quarter is seen by neither."""
    regions = [found((LEFT, 0, 0.95))] * 12
    seen, overlooked = drawn((LEFT, 0)), drawn()
    often = crowd_of(
        regions,
        {1: [seen, seen, overlooked, overlooked] * 3, 2: [seen, overlooked] * 6},
    )
    assert [len(one) for one in often.drawn] == [1] * 12
    np.testing.assert_allclose(often.drawn[3].boxes, [LEFT])
    assert often.p_right[3] < often.p_right[1] < often.p_right[0]
    assert [one.recall for one in often.annotators] == [pytest.approx(0.5, abs=0.05)] * 2
    seldom = crowd_of(regions, {n: [*[seen] * 11, overlooked] for n in (1, 2)})
    assert [len(one) for one in seldom.drawn] == [1] * 11 + [0]


def test_the_sides_are_the_medians_of_those_who_drew_it():
    boxes = [(0.0, 0.0, 0.40, 1.0), (0.0, 0.0, 0.42, 1.0), (0.0, 0.0, 0.50, 1.0)]
    crowd = crowd_of([found((LEFT, 0, 0.9))], {n: [drawn((box, 0))] for n, box in enumerate(boxes)})
    np.testing.assert_allclose(crowd.drawn[0].boxes, [boxes[1]])


def test_an_image_without_objects_is_shared_too():
    crowd = crowd_of([found(), found()], {1: [drawn(), drawn()], 2: [drawn(), drawn()]})
    assert crowd.why is None
    assert [len(one) for one in crowd.drawn] == [0, 0]
    np.testing.assert_allclose(crowd.p_right, 1.0)
    for one in crowd.annotators:
        assert one.shared == 2
        assert one.agreement is None
        assert one.recall is one.precision is None
        assert one.high - one.low > 0.5, "nothing was drawn, so nothing is known"


def test_the_order_of_drawings_does_not_matter():
    rng = np.random.default_rng(1)
    regions = [found((LEFT, 0, 0.7), (RIGHT, 1, 0.4), (MIDDLE, 0, 0.2)) for _ in range(8)]
    task = np.repeat(np.arange(8), 3)
    who = np.tile([3, 1, 2], 8)
    options = [drawn((LEFT, 0)), drawn((NEAR_LEFT, 0), (RIGHT, 1)), drawn((MIDDLE, 1))]
    drawings = [options[n] for n in rng.integers(0, 3, 24)]
    first = weigh_drawings(regions, task, who, drawings)
    order = rng.permutation(24)
    second = weigh_drawings(regions, task[order], who[order], [drawings[n] for n in order])
    np.testing.assert_allclose(first.p_right, second.p_right)
    assert [one.id for one in first.annotators] == [1, 2, 3]
    for a, b in zip(first.annotators, second.annotators, strict=True):
        assert a.quality == pytest.approx(b.quality)


def test_boxes_of_simulated_people_are_judged_right():
    """People overlook and invent; the model finds most, with a probability that is true."""
    grid = [(x / 4, y / 4, x / 4 + 0.2, y / 4 + 0.2) for x in range(4) for y in range(4)]
    overlooks, invents = (0.03, 0.1, 0.3), (0.01, 0.02, 0.05)
    off, holds = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        regions, by_person, there = [], {0: [], 1: [], 2: []}, []
        for _ in range(60):
            odds = rng.normal(0, 2, 16)
            is_there = rng.random(16) < norm.cdf(odds)
            there.append(drawn(*[(grid[n], 0) for n in np.flatnonzero(is_there)]))
            regions.append(found(*[(grid[n], 0, norm.cdf(odds[n])) for n in range(16)]))
            for j, one in by_person.items():
                rates = np.where(is_there, 1 - overlooks[j], invents[j])
                one.append(drawn(*[(grid[n], 0) for n in np.flatnonzero(rng.random(16) < rates)]))
            by_person[int(rng.integers(3))][-1] = None
        crowd = crowd_of(regions, by_person)
        for one in crowd.annotators:
            pairs = [(a, b) for a, b in zip(by_person[one.id], there, strict=True) if a is not None]
            same = sum(matches(a, b) for a, b in pairs)
            real = 2 * same / sum(len(a) + len(b) for a, b in pairs)
            off.append(one.quality - real)
            holds.append(one.low <= real <= one.high)
    assert abs(np.mean(off)) < 0.01
    assert np.abs(off).max() < 0.03
    assert np.mean(holds) > 0.8


def test_drawings_that_nobody_shares_are_not_compared(monkeypatch):
    """A project of one person has thousands, and every training would wait for nothing."""
    monkeypatch.setattr(
        "model.annotators.drawings._objects", lambda *given: pytest.fail("compared")
    )
    crowd = crowd_of([found((LEFT, 0, 0.9))] * 2, {1: [drawn((LEFT, 0)), None], 2: [None, drawn()]})
    assert (crowd.why, crowd.drawn, len(crowd.p_right)) == (APART, (), 0)


def test_drawings_that_do_not_belong_together_are_refused():
    one, here = drawn((LEFT, 0)), np.array([0])
    with pytest.raises(ShapeError, match="drawn"):
        weigh_drawings([found()], here, here, [one, one])
    with pytest.raises(ModelError, match="labelled task 0 twice"):
        weigh_drawings([found()], np.array([0, 0]), np.array([1, 1]), [one, one])
    assert weigh_drawings([found()], here, here, [one]).why == ALONE
