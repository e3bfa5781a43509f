from __future__ import annotations

import numpy as np
from tiny_logs import BUY, VIEW, bought, queries, user_events

from recsys.data.moments import moments_of, recent_items


def test_moments_split_at_users_and_times_and_hold_an_item_once() -> None:
    log = user_events(
        [(5, 0, BUY), (5, 0, BUY), (5, 1, VIEW), (7, 1, BUY), (7, 9, BUY)], [(7, 2, VIEW)]
    )
    moments = moments_of(log, num_items=3, target_codes=[BUY])
    assert moments.user.tolist() == [0, 0, 1]
    assert moments.nth_of_user.tolist() == [0, 1, 0]
    assert moments.items.toarray().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert moments.target_items.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_merged_moments_count_the_moments_of_an_item() -> None:
    moments = moments_of(user_events(bought([0], [0, 1], [2])), 3, [BUY])
    seen, wanted = moments.merged(np.array([0, 0, 1]))
    assert seen.toarray().tolist() == [[2, 1, 0], [0, 0, 1]]
    assert wanted.toarray().tolist() == [[2, 1, 0], [0, 0, 1]]


def test_recent_items_are_placed_by_moment() -> None:
    recent = recent_items(queries(bought([3, 5], [4], [3, 7]), [], bought([4])))
    assert recent.query.tolist() == [0, 0, 0, 0, 2]
    assert recent.item.tolist() == [3, 4, 5, 7, 4]
    assert recent.moments_ago.tolist() == [0, 1, 2, 0, 0]
    assert recent.items_later.tolist() == [0, 2, 3, 0, 0]


def test_nothing_at_all() -> None:
    assert recent_items(queries()).item.tolist() == []
    assert moments_of(user_events(), 3, [BUY]).items.shape == (0, 3)
