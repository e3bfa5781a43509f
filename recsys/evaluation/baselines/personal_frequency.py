"""The user's own most frequent items: in groceries the baseline to beat.

Source: the personal top-frequency method of next-basket recommendation (Li et al. 2023, "A next
basket recommendation reality check", arXiv 2109.14233).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float32s, Int64s
from recsys.data.histories import Histories
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity


@dataclass(frozen=True)
class PersonalFrequency:
    """Own items by (target events, recency, popularity); all others by popularity, behind them.

    The three criteria are kept as exact ranks: summed as fractions they would run out of float32.
    """

    popularity: Popularity
    target_codes: tuple[int, ...]
    name: ClassVar[str] = "personal_frequency"

    @classmethod
    def fit(cls, log: TrainingLog) -> PersonalFrequency:
        """Only popularity is learned; the counts come from each query's own history."""
        return cls(Popularity.fit(log), tuple(log.target_codes))

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] own items from 1 upwards, equal ones equal; the rest below 0."""
        num_items = self.popularity.num_items
        histories = histories.known(num_items)
        wanted = np.isin(histories.event_codes, self.target_codes)
        pairs = (histories.query_of_event * num_items + histories.item_rows)[wanted]
        # Events rise in time: the first of a pair, looked at from the end, is its latest.
        pair, first, counts = np.unique(pairs[::-1], return_index=True, return_counts=True)
        query, item = np.divmod(pair, num_items)
        criteria = (
            self.popularity.fraction[item],
            histories.timestamps[wanted][::-1][first],
            counts,
        )
        scores = np.zeros((len(histories), num_items), dtype=np.float32)
        scores[query, item] = _dense_ranks(query, criteria)
        return self.popularity.behind(scores)


def _dense_ranks(groups: Int64s, criteria: tuple[NDArray[np.generic], ...]) -> Int64s:
    """[N] rank from 1 within the (rising) group, the last criterion first; equals share a rank."""
    order = np.lexsort((*criteria, groups))
    steps = np.ones(len(order), dtype=np.bool_)
    steps[1:] = False
    for values in (groups, *criteria):
        steps[1:] |= values[order][1:] != values[order][:-1]
    steps_so_far = np.cumsum(steps)
    group_start = np.searchsorted(groups, groups)  # groups rise, so they are their own order
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = steps_so_far - steps_so_far[group_start] + 1
    return ranks
