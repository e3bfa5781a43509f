from __future__ import annotations

from recsys.training.validation import tie_order


def test_ties_are_broken_by_a_seeded_permutation() -> None:
    assert sorted(tie_order(50, 7)) == list(range(50))
    assert (tie_order(50, 7) == tie_order(50, 7)).all()
    assert (tie_order(50, 7) != tie_order(50, 8)).any()
