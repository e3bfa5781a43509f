from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.metrics.classification import auc
from recsys.metrics.ranking import ranks_of


def test_by_hand() -> None:
    # Of 5 items: the best two; the worst; the first and the last; none.
    ranks = np.array([2, 1, 5, 1, 5])
    offsets = np.array([0, 2, 3, 5, 5])
    # First and last of 5, three irrelevant between: the first wins 3 pairs, the last none of 3.
    np.testing.assert_allclose(auc(ranks, offsets, 5), [1.0, 0.0, 0.5, np.nan])


def test_a_question_where_every_item_is_relevant_has_no_auc() -> None:
    assert np.isnan(auc(np.array([1, 2]), np.array([0, 2]), 2)).all()


def test_unranked_items_lose_every_pair() -> None:
    # Of 4 items, relevant: rank 1 (wins both irrelevant ones) and an unranked one (wins none).
    np.testing.assert_allclose(auc(np.array([5, 1]), np.array([0, 2]), 4), [0.5])
    np.testing.assert_allclose(auc(np.array([5, 5]), np.array([0, 2]), 4), [0.0])


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=9, unique=True),
    st.data(),
)
def test_equals_counting_the_pairs(values: list[int], data: st.DataObject) -> None:
    items = data.draw(st.lists(st.integers(0, len(values) - 1), unique=True, min_size=1))
    others = [item for item in range(len(values)) if item not in items]
    scores = np.array([values], dtype=np.float32)
    offsets = np.array([0, len(items)])
    ranks = ranks_of(scores, np.array(items), offsets, np.arange(len(values)))
    wins = [values[item] > values[other] for item in items for other in others]
    expected = np.mean(wins) if wins else np.nan
    np.testing.assert_allclose(auc(ranks, offsets, len(values)), [expected])
