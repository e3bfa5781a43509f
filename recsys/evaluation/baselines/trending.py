"""The most wanted items of the last week, counted as often as the ranker's own popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import US_PER_DAY, Histories, UserEvents
from recsys.evaluation.baselines.popularity import Popularity
from recsys.features.popularity import WEEK_DAYS, DailyCounts, last_count

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Trending:
    """Target events of each item in a week, as a fraction; equals in the order of popularity.

    Attributes:
        popularity: of the training events.
        last_week: [I] of the training events.
        counts: of every day; None if nothing is counted after training.
        every_days: days from one count to the next.
    """

    popularity: Popularity
    last_week: Float32s
    counts: DailyCounts | None
    every_days: int
    name: ClassVar[str] = "trending"

    @classmethod
    def fit(
        cls,
        train: UserEvents,
        num_items: int,
        target_codes: Sequence[int],
        counts: DailyCounts | None = None,
        every_days: int = 1,
    ) -> Trending:
        """Count the last week of the training events, and later each question's own.

        Args:
            train: the events to learn from.
            num_items: I; events of items outside rows 0..I-1 are left out.
            target_codes: event codes that make an item wanted.
            counts: of every day, later ones included: a question is told what lies before its day.
            every_days: days from one count to the next.
        """
        since = train.timestamps.max(initial=0) - WEEK_DAYS * US_PER_DAY
        counted = np.isin(train.event_codes, np.asarray(target_codes)) & (train.timestamps > since)
        counted &= (train.item_rows >= 0) & (train.item_rows < num_items)
        week = np.bincount(train.item_rows[counted], minlength=num_items)
        popularity = Popularity.fit(train, num_items, target_codes)
        return cls(popularity, _fraction(week), counts, every_days)

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.last_week)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] the same row for every query of a day."""
        if self.counts is None:
            return self.popularity.behind(np.tile(self.last_week, (len(histories), 1)))
        days, place = np.unique(last_count(histories.now, self.every_days), return_inverse=True)
        weeks = [_fraction(self.counts.as_of(day).num_week) for day in days.tolist()]
        table = np.reshape(weeks, (len(days), self.num_items)).astype(np.float32)
        return self.popularity.behind(table)[place]


def _fraction(counts: NDArray[np.int64]) -> Float32s:
    return (counts / (counts.max(initial=0) + 1)).astype(np.float32)
