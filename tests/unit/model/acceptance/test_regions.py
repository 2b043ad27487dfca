"""Images in the order in which they are accepted whole."""

from __future__ import annotations

import numpy as np
import pytest

from model.acceptance.regions import rank_images
from model.errors import ShapeError


def test_images_stand_in_the_order_of_their_regions() -> None:
    p = [np.array([0.8, 0.6]), np.empty(0), np.array([0.9]), np.array([0.7]), np.array([0.5, 1.0])]
    ranked = rank_images(p, np.array([0.4, 1.0, 0.1, 0.6, 0.1]))
    # Two of a mean of 0.7: the one that is rather right as a whole is first.
    assert ranked.images.tolist() == [2, 4, 3, 0]
    assert ranked.p_right.tolist() == [0.9, 0.5, 1.0, 0.7, 0.8, 0.6]
    assert ranked.ends.tolist() == [1, 3, 4, 6]


def test_nothing_is_ranked_where_nothing_is_shown() -> None:
    ranked = rank_images([np.empty(0)], np.array([0.9]))
    assert [len(part) for part in ranked] == [0, 0, 0]
    with pytest.raises(ShapeError, match="p_all_right"):
        rank_images([np.empty(0)], np.empty(0))
