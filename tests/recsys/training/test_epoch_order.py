from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.training.epoch_order import EpochOrder, Share, after, dealt

SIZES = [5, 0, 9, 1, 17]


def users(order: EpochOrder, share: Share) -> list[tuple[int, int]]:
    """Shard and row of everybody in a share, in turn."""
    return [
        (piece.shard, int(row))
        for piece in order.pieces(share)
        for row in order.within(piece.shard)[piece.low : piece.high]
    ]


EVERYBODY = sorted((shard, row) for shard, size in enumerate(SIZES) for row in range(size))


def test_an_epoch_meets_everybody_once_in_an_order_of_its_own() -> None:
    orders = [EpochOrder(SIZES, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    met = [users(order, [(0, order.num_users)]) for order in orders]
    assert all(sorted(each) == EVERYBODY for each in met)
    assert len({tuple(each) for each in met}) == 3
    again = EpochOrder(SIZES, 1, 0)
    assert users(again, [(0, again.num_users)]) == met[0]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 40])
def test_the_workers_shares_are_equal(num_workers: int) -> None:
    order = EpochOrder(SIZES, 0, 0)
    shares = dealt([[(0, order.num_users)]], num_workers)
    met = [users(order, share) for share in shares]
    assert sorted(user for each in met for user in each) == EVERYBODY
    assert max(map(len, met)) - min(map(len, met)) <= 1


@given(
    epoch=st.integers(0, 3),
    groups=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=5),
)
def test_interrupted_again_and_again_nobody_is_skipped_and_nobody_met_twice(
    epoch: int, groups: list[tuple[int, int]]
) -> None:
    """Each group of another size trains on some users of each worker's share, and is lost."""
    order = EpochOrder(SIZES, 0, epoch)
    left: list[Share] = [[(0, order.num_users)]]
    met = []
    for num_workers, num_seen in groups:
        left = dealt(left, num_workers)
        for share in left:
            met += users(order, share)[:num_seen]
        left = [after(share, num_seen) for share in left]
    met += [user for share in left for user in users(order, share)]
    assert sorted(met) == EVERYBODY


def test_a_group_of_the_same_size_goes_on_with_its_own_shares() -> None:
    shares: list[Share] = [[(3, 9)], [(12, 14), (20, 21)]]
    assert dealt(shares, 2) == shares


def test_an_epoch_without_users_has_no_piece() -> None:
    order = EpochOrder([0, 0], 0, 0)
    assert order.pieces([(0, order.num_users)]) == []
    assert dealt([[(0, 0)]], 2) == [[], []]


def test_the_order_is_even() -> None:
    """Everybody comes at every place about equally often."""
    first = [users(EpochOrder([2, 2], 0, epoch), [(0, 1)])[0] for epoch in range(400)]
    counts = np.unique(np.array(first), axis=0, return_counts=True)[1]
    assert len(counts) == 4 and counts.min() > 60
