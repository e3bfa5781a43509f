"""Who trains on whom: the order of an epoch's users, dealt to the workers.

The order depends on the seed and the epoch alone. A worker's share is a list of *stretches* of it,
so that a training that was interrupted knows who is left: nobody is skipped, nobody is met twice.

Legend: S shards, W workers, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.arrays import Int64s

#: Part of the order: from a position, and before another.
Stretch = tuple[int, int]
#: What one worker has before it, in turn.
Share = list[Stretch]


@dataclass(frozen=True)
class Piece:
    """Part of a shard.

    Attributes:
        shard: its number.
        low, high: places in the shard's order of the epoch, see `EpochOrder.within`.
    """

    shard: int
    low: int
    high: int


@dataclass(frozen=True)
class EpochOrder:
    """The order of all users in one epoch: the shards shuffled, and the users of each.

    Args:
        sizes: [S] users of each shard.
        seed: of the recipe.
        epoch: counted from 0.
    """

    sizes: Sequence[int]
    seed: int
    epoch: int

    @property
    def num_users(self) -> int:
        """U."""
        return int(sum(self.sizes))

    @cached_property
    def _shards(self) -> Int64s:
        """[S] the shards in turn."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.sizes))

    @cached_property
    def _starts(self) -> Int64s:
        """[S + 1] position of the first user of each shard in turn, and U."""
        return np.concatenate(
            [[0], np.cumsum(np.asarray(self.sizes, dtype=np.int64)[self._shards])]
        )

    def within(self, shard: int) -> Int64s:
        """[users of the shard] its rows in turn."""
        # One more than the number: a seed that ends with 0 is that of the shards' own order.
        rng = np.random.default_rng([self.seed, self.epoch, shard + 1])
        return rng.permutation(self.sizes[shard])

    def pieces(self, share: Share) -> list[Piece]:
        """Where the users of a share lie."""
        found = []
        for first, stop in share:
            place = int(np.searchsorted(self._starts, first, side="right")) - 1
            while first < stop:
                start, end = int(self._starts[place]), int(self._starts[place + 1])
                high = min(stop, end)
                if first < high:
                    found.append(Piece(int(self._shards[place]), first - start, high - start))
                first, place = high, place + 1
        return found


def dealt(shares: Sequence[Share], num_workers: int) -> list[Share]:
    """[W] shares of what some workers have before them; as it is if they are as many.

    Args:
        shares: of each of the workers that there were; `[[(0, U)]]` at an epoch's begin.
        num_workers: W, that there are now. Shares that are made anew differ by one user at most.
    """
    if len(shares) == num_workers:
        return [list(share) for share in shares]
    left = [stretch for share in shares for stretch in share]
    total = sum(stop - first for first, stop in left)
    bounds = [total * worker // num_workers for worker in range(num_workers + 1)]
    return [after(left, low, high - low) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]


def after(share: Share, num_seen: int, most: int | None = None) -> Share:
    """What is left of a share once its first users are seen; of it the first `most`, if given."""
    left = []
    for first, stop in share:
        begin = first + min(num_seen, stop - first)
        num_seen -= begin - first
        end = stop if most is None else min(stop, begin + most)
        if begin < end:
            left.append((begin, end))
            most = None if most is None else most - (end - begin)
    return left
