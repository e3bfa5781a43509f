"""Negatives sampled by popularity, with the numbers of their logQ correction.

Legend: I items, C draws.
"""

from __future__ import annotations

import numpy as np

from recsys.arrays import Float32s, Float64s, Int64s

#: Negatives are drawn in proportion to popularity (plus one event each) to this power, word2vec's.
SAMPLE_POWER = 0.75


class NegativeSampler:
    """Samples items with replacement, in proportion to smoothed popularity to a power.

    Args:
        counts: [I] target events of each item before the training cut.
        power: see `SAMPLE_POWER`.
    """

    def __init__(self, counts: Int64s, power: float = SAMPLE_POWER) -> None:
        self._share = popularity_share(counts, power)
        self._cumulative = np.cumsum(self._share)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Int64s, Float32s]:
        """Item rows [C], and the log of each one's expected number of draws [C].

        The whole catalogue, once each, if `size` is no less than it.
        """
        share = self._share
        if size >= len(share):
            return np.arange(len(share)), np.zeros(len(share), dtype=np.float32)
        drawn = rng.random(size) * self._cumulative[-1]
        rows = np.searchsorted(self._cumulative, drawn, side="right")
        rows = np.minimum(rows, len(share) - 1)
        return rows, np.log(size * share[rows]).astype(np.float32)


def popularity_share(counts: Int64s, power: float = 1.0) -> Float64s:
    """[I] each item's share of all events, every item credited with one event more, to a power."""
    smoothed = (counts.astype(np.float64) + 1) ** power
    return smoothed / smoothed.sum()
