from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.metrics.classification import (
    auc,
    auc_by_group,
    log_loss,
    pointwise_auc,
)
from recsys.evaluation.metrics.ranking import ranks_of


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


def test_auc_of_rows_by_hand() -> None:
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    # Of four pairs two are won, and one tie is half won.
    assert pointwise_auc(scores, np.array([1, 1, 0, 0])) == 3.5 / 4
    assert np.isnan(pointwise_auc(scores, np.ones(4)))
    assert np.isnan(pointwise_auc(scores[:0], np.zeros(0)))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from("uvw")), min_size=1)
)
def test_auc_by_group_equals_counting_the_pairs(rows: list[tuple[int, int, str]]) -> None:
    scores, labels, users = (np.array(column) for column in zip(*rows, strict=True))
    distinct, found = auc_by_group(scores, labels, users)
    assert distinct.tolist() == sorted(set(users.tolist()))
    for user, value in zip(distinct, found, strict=True):
        ones = scores[(users == user) & (labels == 1)]
        zeros = scores[(users == user) & (labels == 0)]
        won = [(one > zero) + (one == zero) / 2 for one in ones for zero in zeros]
        np.testing.assert_allclose(value, np.mean(won) if won else np.nan)


def test_log_loss_by_hand() -> None:
    found = log_loss(np.array([0.25, 0.25, 0.0]), np.array([1, 0, 1]))
    np.testing.assert_allclose(found, [-np.log(0.25), -np.log(0.75), -np.log(1e-6)])
