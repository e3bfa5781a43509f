"""Item statistics as of a moment: at the cuts, and as of any night.

Legend: U users, I items, N pairs of (day, item) with an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.arrays import Int32s, Int64s
from recsys.data.histories import US_PER_DAY, UserEvents
from recsys.schema import Col
from recsys.storage.reading import read_parquet, reading

#: Days that `num_recent` and `num_week` look back on.
RECENT_DAYS: Final = 28
WEEK_DAYS: Final = 7


@dataclass(frozen=True)
class ItemStats:
    """Popularity of the items as of one moment: only events strictly before it are counted.

    Attributes:
        num_events: [I] events of any type.
        num_targets: [I] target events.
        num_recent: [I] target events of the last `RECENT_DAYS` days.
        num_week: [I] of the last `WEEK_DAYS` days.
        num_day: [I] of the last day.
        num_users: [I] users with a target event.
        num_users_week: [I] users whose first target event lies in the last `WEEK_DAYS` days.
        num_users_day: [I] in the last day.
    """

    num_events: Int64s
    num_targets: Int64s
    num_recent: Int64s
    num_week: Int64s
    num_day: Int64s
    num_users: Int64s
    num_users_week: Int64s
    num_users_day: Int64s


def count_items(users: UserEvents, as_of: int, target_codes: Sequence[int]) -> pl.DataFrame:
    """Counts of each item with events before `as_of`: `item_row` and the fields of `ItemStats`."""
    frame = _frame(users, target_codes).filter(pl.col("us") < as_of)
    targets = frame.filter("target")
    buyers = targets.group_by("user", Col.item_row).agg(pl.col("us").min())

    def since(days: int) -> pl.Expr:
        return (pl.col("us") >= as_of - days * US_PER_DAY).sum().cast(pl.Int64)

    counts = (
        frame.group_by(Col.item_row).agg(_count("num_events")),
        targets.group_by(Col.item_row).agg(
            _count("num_targets"),
            since(RECENT_DAYS).alias("num_recent"),
            since(WEEK_DAYS).alias("num_week"),
            since(1).alias("num_day"),
        ),
        buyers.group_by(Col.item_row).agg(
            _count("num_users"),
            since(WEEK_DAYS).alias("num_users_week"),
            since(1).alias("num_users_day"),
        ),
    )
    every, *some = counts
    for part in some:
        every = every.join(part, on=Col.item_row, how="left")
    return every.select(
        Col.item_row, *(pl.col(field.name).fill_null(0) for field in fields(ItemStats))
    ).sort(Col.item_row)


def _count(name: str) -> pl.Expr:
    return pl.len().cast(pl.Int64).alias(name)


def count_days(users: UserEvents, target_codes: Sequence[int]) -> pl.DataFrame:
    """Counts of each (UTC day, item): events, target events, and users whose first target it is.

    Counts of disjoint groups of users add up.
    """
    day = (pl.col("us") // US_PER_DAY).cast(pl.Int32).alias("day")
    frame = _frame(users, target_codes).with_columns(day)
    counts = frame.group_by("day", Col.item_row).agg(
        pl.len().alias("events"), pl.col("target").sum().alias("targets")
    )
    first = frame.filter("target").group_by("user", Col.item_row).agg(pl.col("day").min())
    buyers = first.group_by("day", Col.item_row).agg(pl.len().alias("buyers"))
    return counts.join(buyers, on=["day", Col.item_row], how="left").select(
        "day", Col.item_row, *(pl.col(name).fill_null(0).cast(pl.Int64) for name in _COUNTS)
    )


_COUNTS: Final = ("events", "targets", "buyers")


def _frame(users: UserEvents, target_codes: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            Col.item_row: users.item_rows,
            "user": np.repeat(np.arange(len(users)), np.diff(users.offsets)),
            "us": users.timestamps,
            "target": np.isin(users.event_codes, np.asarray(target_codes)),
        }
    )


@dataclass(frozen=True)
class DailyCounts:
    """What happened to each item on each day, see `count_days`.

    Attributes:
        num_items: I.
        days: [N] int32, days since 1970, rising.
        item_rows: [N] int32.
        events, targets, buyers: [N].
    """

    num_items: int
    days: Int32s
    item_rows: Int32s
    events: Int64s
    targets: Int64s
    buyers: Int64s

    @staticmethod
    def load(path: Path, num_items: int) -> DailyCounts:
        """Read a table of `count_days`, sorted by day.

        Raises:
            DataError: it is missing or broken.
        """
        kinds = {name: pl.Int64 for name in _COUNTS} | {"day": pl.Int32, Col.item_row: pl.Int32}
        frame = read_parquet(path, "run `recsys prepare` again", kinds)
        with reading(path, "run `recsys prepare` again"):
            if not frame[Col.item_row].is_between(0, num_items - 1).all():
                raise ValueError(f"an item outside rows 0..{num_items - 1}")
            if not frame["day"].is_sorted() or not all((frame[n] >= 0).all() for n in _COUNTS):
                raise ValueError("days that are not in order, or counts below 0")
        return DailyCounts(
            num_items, *(frame[name].to_numpy() for name in ("day", Col.item_row, *_COUNTS))
        )

    def arrays(self) -> dict[str, NDArray[np.integer]]:
        """All but the number of items, by name."""
        names = [field.name for field in fields(self) if field.name != "num_items"]
        return {name: getattr(self, name) for name in names}

    def as_of(self, day: int) -> ItemStats:
        """Statistics as of the first moment of a day: all of it is left out."""
        return CountsByDay(self).as_of(day)


@dataclass
class CountsByDay:
    """`DailyCounts.as_of` for one day after another: each costs the days since the one before.

    Attributes:
        counts: to sum up.
    """

    counts: DailyCounts

    def __post_init__(self) -> None:
        self._windows = {
            name: _Window(self.counts, getattr(self.counts, column), days)
            for name, (column, days) in _OVER_DAYS.items()
        }

    def as_of(self, day: int) -> ItemStats:
        """Statistics as of the first moment of a day; days may come in any order."""
        return ItemStats(*(self.one(field.name, day) for field in fields(ItemStats)))

    def one(self, name: str, day: int) -> Int64s:
        """[I] one field of `as_of`."""
        return self._windows[name].before(day)

    def __reduce__(self) -> tuple[type, tuple[DailyCounts]]:
        return CountsByDay, (self.counts,)


class _Window:
    """The sum of each item's counts over the last days before one, which moves.

    Args:
        counts: days and items of the counts.
        column: [N] the counts.
        days: the window's length; None: everything.
    """

    def __init__(self, counts: DailyCounts, column: Int64s, days: int | None) -> None:
        self._counts, self._column, self._days = counts, column, days
        self._low = self._high = 0
        self._sum = np.zeros(counts.num_items, dtype=np.int64)

    def before(self, day: int) -> Int64s:
        """[I] the sums before a day."""
        days = self._counts.days
        low = 0 if self._days is None else int(np.searchsorted(days, day - self._days))
        high = int(np.searchsorted(days, day))
        if (low, high) == (self._low, self._high):
            return self._sum
        if not self._low <= low <= self._high <= high:
            self._low = self._high = low
            self._sum = np.zeros(self._counts.num_items, dtype=np.int64)
        self._sum = self._sum + self._between(self._high, high) - self._between(self._low, low)
        self._low, self._high = low, high
        return self._sum

    def _between(self, low: int, high: int) -> Int64s:
        rows, counts = self._counts.item_rows[low:high], self._column[low:high]
        return np.bincount(rows, counts, minlength=self._counts.num_items).astype(np.int64)


#: Field of `ItemStats` -> the column of `DailyCounts` it sums, and over how many days; None: all.
_OVER_DAYS: Final = {
    "num_events": ("events", None),
    "num_targets": ("targets", None),
    "num_recent": ("targets", RECENT_DAYS),
    "num_week": ("targets", WEEK_DAYS),
    "num_day": ("targets", 1),
    "num_users": ("buyers", None),
    "num_users_week": ("buyers", WEEK_DAYS),
    "num_users_day": ("buyers", 1),
}


def last_count(now: Int64s, every_days: int) -> Int64s:
    """[Q] the day of the last count before each moment, if there is one every so many days."""
    return now // US_PER_DAY // every_days * every_days
