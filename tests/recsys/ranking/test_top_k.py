"""The k highest: best first, ties by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ranking.top_k import top_k


@pytest.mark.parametrize(
    ("scores", "k", "rows"),
    [
        ([1, 3, 2], 2, [1, 2]),
        ([1, 3, 2], 9, [1, 2, 0]),
        ([2, 2, 2], 3, [0, 1, 2]),
        ([-np.inf, 1, -np.inf], 3, [1]),
        ([-np.inf, -np.inf], 1, []),
        ([5], 1, [0]),
    ],
)
def test_top_k(scores: list[float], k: int, rows: list[int]) -> None:
    found, values = top_k(np.array(scores, dtype=np.float32), k)
    assert found.tolist() == rows
    assert values.tolist() == [scores[row] for row in rows]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -np.inf]), min_size=1, max_size=40))
def test_fewer_of_the_best_are_the_first_of_more(values: list[float]) -> None:
    """Ties go by position at the cut too: items with equal texts and prices score alike."""
    scores = np.array(values, dtype=np.float32)
    everything, _ = top_k(scores.copy(), len(scores))
    expected = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if scores[row] > -1]
    assert everything.tolist() == expected
    for k in range(1, len(scores) + 1):
        rows, found = top_k(scores.copy(), k)
        assert rows.tolist() == expected[:k]
        assert found.tolist() == scores[rows].tolist()
