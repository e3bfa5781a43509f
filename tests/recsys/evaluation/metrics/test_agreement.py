"""How alike two lists are."""

from __future__ import annotations

import pytest

from recsys.evaluation.metrics.agreement import overlap, rank_biased_overlap


def test_the_same_and_nothing_in_common() -> None:
    for size in (1, 3, 50):
        same, other = list(range(size)), list(range(100, 100 + size))
        assert overlap(same, same) == 1
        assert rank_biased_overlap(same, same) == pytest.approx(1)
        assert overlap(same, other) == rank_biased_overlap(same, other) == 0
    assert overlap([], []) == rank_biased_overlap([], []) == 1


def test_by_hand() -> None:
    # Agreement at depths 1 and 2: 0, 1. p = 0.5: 1 * 0.25 + 0.5 / 0.5 * (0 * 0.5 + 1 * 0.25).
    assert rank_biased_overlap("ab", "ba", 0.5) == pytest.approx(0.5)
    # Depths 1, 2, 3: 1, 1/2, 2/3: 2/3 * 0.125 + 0.5 + 0.125 + 2/3 * 0.125.
    assert rank_biased_overlap("abc", "acd", 0.5) == pytest.approx(0.625 + 1 / 6)
    assert overlap("abc", "acd") == pytest.approx(2 / 3)


def test_the_first_places_weigh_most() -> None:
    whole = list("abcdefghij")
    first, last = ["x", *whole[1:]], [*whole[:-1], "x"]
    assert rank_biased_overlap(whole, first) < rank_biased_overlap(whole, last) < 1
    assert overlap(whole, first) == overlap(whole, last)


def test_a_shorter_list_misses_something() -> None:
    assert overlap("abcd", "ab") == 0.5
    assert 0 < rank_biased_overlap("abcd", "ab") < 1
