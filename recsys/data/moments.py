"""Moments: the items, and the target items, at one timestamp of one user.

Nothing inside a moment has an order, so every model here counts moments, never positions in a list.

Legend: M moments, I items, E events, N distinct (query, item) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.arrays import Bools, Int32s, Int64s
from recsys.data.histories import Histories, UserEvents


@dataclass(frozen=True)
class Moments:
    """All moments of a log, in the order of (user, time).

    Attributes:
        items: CSR [M, I] float32, 1 where the moment has an event of the item.
        target_items: CSR [M, I] float32, 1 where the moment has a target event of the item.
        user: [M] number of the user.
        timestamps: [M] microseconds.
    """

    items: sparse.csr_array
    target_items: sparse.csr_array
    user: Int64s
    timestamps: Int64s

    @property
    def nth_of_user(self) -> Int64s:
        """[M] number of the moment within its user, from 0."""
        return np.arange(len(self.user)) - np.searchsorted(self.user, self.user)

    def where(self, keep: Bools) -> Moments:
        """The moments for which `keep` [M] holds."""
        return Moments(
            self.items[keep], self.target_items[keep], self.user[keep], self.timestamps[keep]
        )

    def merged(self, groups: Int64s) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Merge moments into groups.

        Args:
            groups: [M] rising numbers from 0.

        Returns:
            CSR [groups, I] counts of a group's moments with an event of an item, and with a target
            event of it.
        """
        num_groups = int(groups[-1]) + 1 if len(groups) else 0
        ones = np.ones(len(groups), dtype=np.float32)
        member = sparse.csr_array(
            (ones, (groups, np.arange(len(groups)))), shape=(num_groups, len(groups))
        )
        return member @ self.items, member @ self.target_items


def moments_of(events: UserEvents, num_items: int, target_codes: Sequence[int]) -> Moments:
    """Gather events into moments; events of items outside rows 0..num_items-1 are left out."""
    known = (events.item_rows >= 0) & (events.item_rows < num_items)
    user = np.repeat(np.arange(len(events)), np.diff(events.offsets))[known]
    items = events.item_rows[known]
    moment = _number_moments(user, events.timestamps[known])
    target = np.isin(events.event_codes[known], np.asarray(target_codes))
    num_moments = int(moment[-1]) + 1 if len(moment) else 0
    user_of_moment, timestamps = np.empty((2, num_moments), dtype=np.int64)
    user_of_moment[moment] = user
    timestamps[moment] = events.timestamps[known]
    shape = (num_moments, num_items)
    return Moments(
        _binary(moment, items, shape),
        _binary(moment[target], items[target], shape),
        user_of_moment,
        timestamps,
    )


def first_of_moments(users: UserEvents) -> Bools:
    """[E] whether an event is the first of its moment: of its user's, at one timestamp."""
    return _changes(users.user_of_event) | _changes(users.timestamps)


@dataclass(frozen=True)
class RecentItems:
    """The distinct items of each query's history, with how long ago they last occurred.

    Attributes:
        query, item: [N] rising by query, then by item.
        moments_ago: [N] moments of the query since the item's last one, 0 for the latest.
        items_later: [N] distinct items of the query that occurred in a later moment. An item's
            place in the list of latest items, with one place for all items of a moment.
    """

    query: Int64s
    item: Int64s
    moments_ago: Int64s
    items_later: Int64s

    def weighted(self, keep: Bools, weights: Any, shape: tuple[int, int]) -> Any:
        """CSR [Q, I] float32 with `weights` ([N] or one number) of the pairs to keep."""
        values = np.broadcast_to(np.asarray(weights, dtype=np.float32), keep.shape)[keep]
        return sparse.csr_array((values, (self.query[keep], self.item[keep])), shape=shape)


def recent_items(histories: Histories) -> RecentItems:
    """Find each query's distinct items and the moment each last occurred in."""
    seen = histories.distinct
    latest, last = seen.latest, seen.moment_starts[1:] - 1
    num_so_far = np.cumsum(np.bincount(latest, minlength=len(seen.moment_query)))
    items_later = num_so_far[last[seen.query]] - num_so_far[latest]
    return RecentItems(seen.query, seen.item, seen.moments_after[latest], items_later)


def _number_moments(owner: Int64s, timestamps: Int64s) -> Int64s:
    """[E] number of each event's moment, over all owners, rising."""
    return np.cumsum(_changes(owner) | _changes(timestamps)) - 1


def _changes(values: NDArray[np.integer]) -> Bools:
    """Where a value differs from the one before it; the first always does."""
    changes = np.ones(len(values), dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _binary(rows: Int64s, columns: Int32s, shape: tuple[int, int]) -> sparse.csr_array:
    ones = np.ones(len(rows), dtype=np.float32)
    matrix = sparse.csr_array((ones, (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
