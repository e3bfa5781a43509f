"""Most popular items of the last week, counted as often as the model's own popularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsys.arrays import Float32s, Int64s
from recsys.data.histories import US_PER_DAY, Histories
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity
from recsys.features.popularity import WEEK_DAYS, CountsByDay, last_count


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
    counts: CountsByDay | None
    every_days: int
    name: ClassVar[str] = "trending"

    @classmethod
    def fit(cls, log: TrainingLog) -> Trending:
        """Count the last week of the training events, and later each question's own."""
        times = log.events.timestamps
        counted = log.is_target & (times > times.max(initial=0) - WEEK_DAYS * US_PER_DAY)
        week = np.bincount(log.events.item_rows[counted], minlength=log.num_items)
        counts = None
        if log.count_every_days and log.daily_counts is not None:
            counts = CountsByDay(log.daily_counts)
        return cls(Popularity.fit(log), _fraction(week), counts, log.count_every_days or 1)

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.last_week)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] the same row for every query of a day."""
        if self.counts is None:
            return self.popularity.behind(np.tile(self.last_week, (len(histories), 1)))
        days, place = np.unique(last_count(histories.now, self.every_days), return_inverse=True)
        weeks = [_fraction(self.counts.one("num_week", day)) for day in days.tolist()]
        table = np.reshape(weeks, (len(days), self.num_items)).astype(np.float32)
        return self.popularity.behind(table)[place]


def _fraction(counts: Int64s) -> Float32s:
    return (counts / (counts.max(initial=0) + 1)).astype(np.float32)
