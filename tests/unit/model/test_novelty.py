"""Novelty and nearest labelled images, against brute force, scikit-learn and its own promise."""

from __future__ import annotations

import numpy as np
import pytest

from model import novelty
from model.errors import ModelError, ShapeError
from model.novelty import novelty_of


def images(n: int, seed: int, width: int = 16) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, width)) + 2.0).astype(np.float32)


def halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows asked about, and labelled rows in no order."""
    order = np.random.default_rng(7).permutation(n)
    return order[: n // 3], order[n // 3 :]


def test_neighbours_and_share_are_those_of_another_library() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    features = images(150, 0)
    rows, labelled = halves(150)
    found = novelty_of(features, rows, labelled, k=4)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    search = neighbors(metric="cosine", algorithm="brute").fit(centred[labelled])
    distance, place = search.kneighbors(centred[rows], 4)
    assert np.array_equal(found.nearest, labelled[place])
    np.testing.assert_allclose(found.similarity, 1.0 - distance, atol=1e-6)
    usual = search.kneighbors(centred[labelled], 2)[0][:, 1]
    share = [(usual < d).sum() / (len(usual) + 1) for d in distance[:, 0]]
    np.testing.assert_allclose(found.share, share, atol=1e-12)


def test_the_simple_share_is_one_less_the_full_conformal_p_value() -> None:
    """In full each labelled image has the new one among its neighbours as well."""
    features = images(60, 1, width=3)
    rows, labelled = halves(60)
    found = novelty_of(features, rows, labelled)
    unit = features - features.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for n, row in enumerate(rows):
        bag = [*labelled, row]
        gaps = np.linalg.norm(unit[bag][:, None].astype(np.float64) - unit[bag], axis=2)
        np.fill_diagonal(gaps, np.inf)
        strange = gaps.min(axis=1)
        p_value = (strange >= strange[-1] - 1e-9).mean()
        assert found.share[n] == pytest.approx(1.0 - p_value)


def test_what_is_drawn_like_the_labelled_is_rarely_new() -> None:
    shares = []
    for seed in range(300):
        features = images(40, seed, width=4)
        shares.append(novelty_of(features, np.array([39]), np.arange(39)).share[0])
    for level in (0.05, 0.2, 0.5):
        often = np.mean(np.array(shares) >= 1.0 - level - 1e-12)
        assert often <= level + 3.0 * np.sqrt(level * (1 - level) / 300)
    assert np.mean(shares) > 0.4  # and it is not simply low


def test_the_odd_one_is_new_and_a_copy_is_not() -> None:
    features = images(60, 3) * np.where(np.arange(16) < 2, 1.0, 0.02).astype(np.float32)
    features[58] = 40.0 * np.eye(16)[9]
    features[59] = features[11]
    found = novelty_of(features, np.array([58, 59]), np.arange(58))
    assert found.share[0] == 58 / 59
    assert found.share[1] == 0.0
    assert found.nearest[1, 0] == 11
    assert found.similarity[1, 0] == 1.0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = images(150, 4)
    rows, labelled = halves(150)
    whole = novelty_of(features, rows, labelled)
    monkeypatch.setattr(novelty, "BLOCK_ROWS", 7)
    parts = novelty_of(features, rows, labelled)
    assert np.array_equal(whole.nearest, parts.nearest)
    np.testing.assert_allclose(whole.share, parts.share)
    np.testing.assert_allclose(whole.similarity, parts.similarity, atol=1e-6)


def test_of_many_labels_a_thousand_are_compared_with() -> None:
    features = images(3_000, 5, width=8)
    rows, labelled = np.arange(50), np.arange(50, 3_000)
    found = novelty_of(features, rows, labelled)
    np.testing.assert_allclose(found.share * 1001, np.rint(found.share * 1001), atol=1e-9)
    unit = features - features.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit[labelled] @ unit[labelled].T
    np.fill_diagonal(cosine, -1.0)
    usual = cosine.max(axis=1)
    every = np.array([(usual > c).mean() for c in (unit[rows] @ unit[labelled].T).max(axis=1)])
    assert np.abs(found.share - every).max() < 0.06


def test_few_labels_say_little() -> None:
    features = images(4, 6)
    alone = novelty_of(features, np.array([1, 2]), np.array([0]))
    assert alone.share.tolist() == [0.0, 0.0]  # one label has no other to be near to
    assert alone.nearest.tolist() == [[0], [0]]
    none = novelty_of(features, np.array([], np.int64), np.array([0, 1]))
    assert none.nearest.shape == (0, 2)


def test_what_cannot_be_compared_is_refused() -> None:
    features = images(6, 7)
    rows, labelled = np.array([0, 1]), np.array([2, 3])
    with pytest.raises(ModelError, match="nothing is labelled"):
        novelty_of(features, rows, labelled[:0])
    with pytest.raises(ModelError, match="row 1 is labelled itself"):
        novelty_of(features, rows, np.array([1, 2]))
    with pytest.raises(ModelError, match="k is 0"):
        novelty_of(features, rows, labelled, k=0)
    with pytest.raises(ShapeError, match="features"):
        novelty_of(features[0], rows, labelled)
    features[3, 2] = np.nan
    with pytest.raises(ModelError, match="not all finite"):
        novelty_of(features, rows, labelled)
