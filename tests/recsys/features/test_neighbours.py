from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from recsys.features import neighbours
from recsys.features.neighbours import strongest_pairs


def csr(rows: list[list[int]]) -> sparse.csr_array:
    return sparse.csr_array(np.array(rows, dtype=np.float32))


def as_counts(
    counts: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    return counts


def test_keeps_thestrongest_and_prefers_the_frequent_among_equals() -> None:
    left = csr([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    right = csr([[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 1, 0]])
    # Item 0 meets 1 and 2 once and 3 twice; 2 is more frequent than 1.
    kept = strongest_pairs(left, right, as_counts, num_kept=2)
    assert kept.toarray().tolist() == [[0, 0, 1, 2], [0, 0, 1, 0], [0] * 4, [0] * 4]


def test_a_weight_of_0_leaves_the_pair_out() -> None:
    ones = csr([[1, 1]])
    kept = strongest_pairs(
        ones, ones, lambda counts, rows, columns: counts * (rows != columns), num_kept=5
    )
    assert kept.nnz == 2
    assert kept.toarray().tolist() == [[0, 1], [1, 0]]


def test_a_robots_basket_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_ITEMS", 2)
    both = csr([[1, 1, 0], [1, 1, 1]])
    assert strongest_pairs(both, both, as_counts, 5).toarray().tolist() == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 7), st.sampled_from([1, 5, 10**6])
)
def test_equals_the_whole_product(
    seed: int, num_situations: int, num_items: int, pairs_at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = (rng.random((2, num_situations, num_items)) < 0.4).astype(np.float32)
    whole = left.T @ right
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "PAIRS_AT_ONCE", pairs_at_once)
        sides = sparse.csr_array(left), sparse.csr_array(right)
        assert np.array_equal(strongest_pairs(*sides, as_counts, num_items).toarray(), whole)
        best = strongest_pairs(*sides, as_counts, 2).toarray()
    assert np.array_equal(np.sort(best)[:, -2:], np.sort(whole)[:, -2:])
    assert ((best > 0).sum(axis=1) <= 2).all()
