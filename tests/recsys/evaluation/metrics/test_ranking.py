from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.evaluation.metrics.ranking import (
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    ranks_of,
    ranks_without,
    recall_at_k,
    tie_order,
)

INF = float("inf")


def flat(questions: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = [len(items) for items in questions]
    items = [item for question in questions for item in question]
    return np.array(items, dtype=np.int64), np.concatenate([[0], np.cumsum(lengths)]).astype(int)


def ranks(scores: list[list[float]], relevant: list[list[int]], tie_order: list[int]) -> list[int]:
    items, offsets = flat(relevant)
    return ranks_of(
        np.array(scores, dtype=np.float32), items, offsets, np.array(tie_order)
    ).tolist()


def test_ranks_count_every_item_of_the_row_relevant_ones_too() -> None:
    scores = [[0.1, 0.9, 0.5, -0.3], [4.0, 3.0, 2.0, 1.0], [-1.0, -2.0, -3.0, -4.0]]
    assert ranks(scores, [[2, 1, 3], [], [3]], [0, 1, 2, 3]) == [2, 1, 4, 4]


def test_ties_follow_the_given_order_not_the_catalogue() -> None:
    assert ranks([[1.0, 1.0, 1.0, 2.0]], [[0, 1, 2, 3]], [2, 0, 1, 3]) == [4, 2, 3, 1]


def test_zero_and_minus_zero_are_a_tie() -> None:
    assert ranks([[-0.0, 0.0]], [[0, 1]], [0, 1]) == [1, 2]


def test_an_item_scored_minus_infinity_is_not_ranked() -> None:
    scores = [[-INF, 1.0, -INF, INF]]
    assert ranks(scores, [[0, 1, 2, 3]], [0, 1, 2, 3]) == [5, 2, 5, 1]


def test_nan_is_refused_rather_than_ranked() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ranks([[float("nan"), 1.0]], [[1]], [0, 1])


def test_no_questions_and_no_relevant_items() -> None:
    assert ranks_of(np.zeros((0, 3), np.float32), *flat([]), np.arange(3)).tolist() == []
    assert ranks([[1.0, 2.0]] * 2, [[], []], [0, 1]) == []


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], list[int]]:
    num_items = draw(st.integers(1, 8))
    value = st.sampled_from([-INF, -1.5, -1e-30, -0.0, 0.0, 1e-30, 0.25, 3.0, 1e30])
    items = st.lists(st.integers(0, num_items - 1), unique=True)
    scores = draw(st.lists(st.lists(value, min_size=num_items, max_size=num_items), max_size=11))
    return scores, [draw(items) for _ in scores], draw(st.permutations(range(num_items)))


@given(rankings())
def test_ranks_equal_a_full_sort(
    case: tuple[list[list[float]], list[list[int]], list[int]],
) -> None:
    scores, relevant, tie_order = case
    expected = []
    for row, items in zip(scores, relevant, strict=True):
        best_first = sorted(range(len(row)), key=lambda item: (-row[item], tie_order[item]))
        for item in items:
            unranked = row[item] == -INF
            expected.append(len(row) + 1 if unranked else best_first.index(item) + 1)
    found = ranks_of(
        np.array(scores, dtype=np.float32).reshape(len(scores), len(tie_order)),
        *flat(relevant),
        np.array(tie_order),
    )
    assert found.tolist() == expected


@given(rankings(), st.data())
def test_ranks_without_some_items_are_those_of_lists_without_them(
    case: tuple[list[list[float]], list[list[int]], list[int]], data: st.DataObject
) -> None:
    raw, relevant, order = case
    scores = np.array(raw, dtype=np.float32).reshape(len(raw), len(order))
    taken = []
    for query, wanted in enumerate(relevant):
        others = [item for item in range(len(order)) if item not in wanted]
        if others:
            picked = data.draw(st.lists(st.sampled_from(others), unique=True))
            taken += [(query, item) for item in sorted(picked)]
    pairs = np.array(taken, dtype=np.int64).reshape(-1, 2)
    items, offsets = flat(relevant)
    ranked = ranks_of(scores, items, offsets, np.array(order))
    left = (pairs[:, 0], pairs[:, 1])
    found = ranks_without(left, scores, items, offsets, ranked, np.array(order))
    scores[left] = -np.inf
    assert found.tolist() == ranks_of(scores, items, offsets, np.array(order)).tolist()


def test_a_constant_model_scores_as_chance_does() -> None:
    """Wherever the relevant items stand in the catalogue, all-equal scores win nothing."""
    num_items, num_draws = 100, 2000
    first_items, offsets = flat([[0, 1, 2, 3, 4]])
    scores = np.zeros((1, num_items), np.float32)
    rng = np.random.default_rng(0)
    recall = [
        recall_at_k(ranks_of(scores, first_items, offsets, rng.permutation(num_items)), offsets, 10)
        for _ in range(num_draws)
    ]
    assert np.mean(recall) == pytest.approx(0.1, abs=0.01)


# Three questions: relevant items at ranks 1 and 4; none; at 3, 11 and 12.
RANKS = np.array([4, 1, 3, 11, 12])
OFFSETS = np.array([0, 2, 2, 5])
NAN = float("nan")


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (
            ndcg_at_k,
            10,
            [
                (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
                NAN,
                0.5 / (1 + 1 / math.log2(3) + 0.5),
            ],
        ),
        (ndcg_at_k, 1, [1.0, NAN, 0.0]),  # the ideal fills one place only
        (recall_at_k, 10, [1.0, NAN, 1 / 3]),
        (recall_at_k, 1, [0.5, NAN, 0.0]),  # the standard recall: hits / relevant
        (mrr_at_k, 10, [1.0, NAN, 1 / 3]),
        (mrr_at_k, 2, [1.0, NAN, 0.0]),
        (hit_rate_at_k, 10, [1.0, NAN, 1.0]),
        (hit_rate_at_k, 2, [1.0, NAN, 0.0]),
    ],
)
def test_metrics_by_hand(metric, k: int, expected: list[float]) -> None:  # type: ignore[no-untyped-def]
    values = metric(RANKS, OFFSETS, k)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected)


@pytest.mark.parametrize("metric", [ndcg_at_k, recall_at_k, mrr_at_k, hit_rate_at_k])
def test_metrics_of_nothing_and_of_a_senseless_k(metric) -> None:  # type: ignore[no-untyped-def]
    nothing = np.array([], dtype=np.int64)
    assert metric(nothing, np.array([0]), 10).shape == (0,)
    assert np.isnan(metric(nothing, np.array([0, 0]), 10)).all()
    with pytest.raises(ValueError, match="k must be at least 1"):
        metric(RANKS, OFFSETS, 0)


@given(st.lists(st.lists(st.integers(1, 30), unique=True, max_size=6), max_size=5))
def test_ndcg_stays_within_0_and_1_and_is_1_for_the_ideal(questions: list[list[int]]) -> None:
    values = ndcg_at_k(*flat(questions), 10)
    for value, question in zip(values, questions, strict=True):
        if not question:
            assert math.isnan(value)
        elif set(range(1, min(len(question), 10) + 1)) <= set(question):
            assert value == pytest.approx(1)
        else:
            assert 0 <= value < 1


def test_ranking_a_large_catalogue_takes_milliseconds_a_row() -> None:
    rng = np.random.default_rng(0)
    num_rows, num_items = 64, 92_000
    scores = rng.standard_normal((num_rows, num_items)).astype(np.float32)
    relevant, offsets = flat(rng.integers(0, num_items, (num_rows, 10)).tolist())
    tie_order = rng.permutation(num_items)
    took = []
    for _ in range(3):
        start = time.process_time()
        ranks_of(scores, relevant, offsets, tie_order)
        took.append(time.process_time() - start)
    # CPU time, so that a busy machine does not matter; about 0.6 ms a row on one server core.
    assert min(took) / num_rows < 3e-3


def test_ties_are_broken_by_a_seeded_permutation() -> None:
    assert sorted(tie_order(50, 7)) == list(range(50))
    assert (tie_order(50, 7) == tie_order(50, 7)).all()
    assert (tie_order(50, 7) != tie_order(50, 8)).any()
