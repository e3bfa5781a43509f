"""Situations in which items meet, as of several cuts at once: transitions, and windows of moments.

Each situation is counted from one cut on. A window that a cut goes through has fewer moments as of
that cut: this part of it is counted there, and taken away at the next cut, where a longer one
stands. So counts as of a cut are sums over the situations up to it, whatever they are split into.

Legend: S situations, M moments, I items, E entries, C cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.moments import Moments
from recsys.features.neighbours import MAX_ITEMS


@dataclass(frozen=True)
class Situations:
    """Items that meet.

    Attributes:
        left: CSR [S, I] float32, 1 where the item takes part in the situation on the left.
        right: the same on the right.
        since: [S] number of the cut from which on the situation counts.
        sign: [S] float32, 1 or -1: counted, or taken away.
    """

    left: sparse.csr_array
    right: sparse.csr_array
    since: Int64s
    sign: Float32s

    def joined(self, other: Situations) -> Situations:
        """The situations of both."""
        return Situations(
            sparse.vstack([self.left, other.left], format="csr"),
            sparse.vstack([self.right, other.right], format="csr"),
            np.concatenate([self.since, other.since]),
            np.concatenate([self.sign, other.sign]),
        )

    def reversed(self) -> Situations:
        """The same situations taken away, and those taken away counted."""
        return Situations(self.left, self.right, self.since, -self.sign)

    def where(self, keep: Bools) -> Situations:
        """Those for which `keep` [S] holds."""
        return Situations(self.left[keep], self.right[keep], self.since[keep], self.sign[keep])

    @property
    def few(self) -> Bools:
        """[S] which of them have no more than `MAX_ITEMS` items on each side."""
        sizes = np.maximum(np.diff(self.left.indptr), np.diff(self.right.indptr))
        return np.asarray(sizes <= MAX_ITEMS)

    def sums(self, side: sparse.csr_array, num_cuts: int) -> Int64s:
        """[C, I] situations of each item on one side that count from each cut on.

        Args:
            side: `left` or `right`.
            num_cuts: C.
        """
        num_items = side.shape[1]
        owner = np.repeat(np.arange(len(self.since)), np.diff(side.indptr))
        places = self.since[owner] * num_items + side.indices
        found = np.bincount(places, self.sign[owner], minlength=num_cuts * num_items)
        return found.astype(np.int64).reshape(num_cuts, num_items)


def first_cuts(moments: Moments, cuts: Sequence[int]) -> Int64s:
    """[M] number of the first cut that lies after the moment; C - 1 from the last time on.

    Args:
        moments: of the log.
        cuts: [C - 1] rising, microseconds; the last cut is the end of the log.
    """
    return np.searchsorted(np.asarray(cuts), moments.timestamps, side="right")


def transitions_in(moments: Moments, since: Int64s) -> Situations:
    """A moment and the user's next: its items, and the target items that followed.

    Args:
        moments: of the log.
        since: [M] of `first_cuts`.
    """
    followed = np.flatnonzero(moments.user[1:] == moments.user[:-1])
    return Situations(
        moments.items[followed],
        moments.target_items[followed + 1],
        since[followed + 1],
        np.ones(len(followed), dtype=np.float32),
    )


def windows_in(moments: Moments, since: Int64s, *, window: int, num_cuts: int) -> Situations:
    """Windows of a user's consecutive moments: their items, and their target items.

    Args:
        moments: of the log.
        since: [M] of `first_cuts`.
        window: moments in a window.
        num_cuts: C.
    """
    group = np.cumsum(moments.nth_of_user % window == 0) - 1
    last = np.zeros(int(group[-1]) + 1 if len(group) else 0, dtype=np.int64)
    np.maximum.at(last, group, since)
    found = _merged(moments, group, last)
    for cut in range(num_cuts - 1):
        early = (since <= cut) & (last[group] > cut)
        if early.any():
            _, numbers = np.unique(group[early], return_inverse=True)
            at = np.full(int(numbers[-1]) + 1, cut)
            part = _merged(moments.where(early), numbers, at)
            later = Situations(part.left, part.right, part.since + 1, part.sign)
            found = found.joined(part).joined(later.reversed())
    return found


def _merged(moments: Moments, group: Int64s, since: Int64s) -> Situations:
    left, right = moments.merged(group)
    for side in (left, right):
        side.data[:] = 1
    return Situations(left, right, since, np.ones(len(since), dtype=np.float32))
