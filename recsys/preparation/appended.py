"""Users of whom nothing but later rows came: their histories go on where they ended.

Nothing of what they had is read again but the histories themselves, and little of it counts anew.

Legend: U users, E events of all users together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.arrays import Bools, Int64s
from recsys.data.histories import UserEvents
from recsys.data.moments import first_of_moments
from recsys.features.item_to_item import WINDOW
from recsys.schema import Col


def going_on(rows: pl.DataFrame, histories: pa.Table, crowded: Path, most: int) -> pl.Series:
    """Users whose new rows are later than all that they had, so that none repeats another.

    Args:
        rows: new rows of bucket files.
        histories: of the bucket as it was.
        crowded: its quarantine, of users who have no history; need not be there.
        most: rows that each of them may have in the history and the new rows together.
    """
    times = pl.col(Col.timestamps).list
    before = pl.DataFrame(histories).select(
        Col.user, times.last().alias("last"), times.len().alias("events")
    )
    both = rows.group_by(Col.user).agg(
        pl.col(Col.timestamp).dt.epoch("us").min().alias("first"), pl.len().alias("rows")
    ).join(before, on=Col.user, how="left")  # fmt: skip
    later = (pl.col("first") > pl.col("last")).fill_null(True)
    few = pl.col("rows") + pl.col("events").fill_null(0) <= most
    found = both.filter(later & few)[Col.user]
    if crowded.is_file():
        left_out = pl.read_parquet(crowded, columns=[Col.user], glob=False)[Col.user]
        found = found.filter(~found.is_in(left_out.implode()))
    return found


def appended(then: UserEvents, more: UserEvents) -> UserEvents:
    """The histories of the users of `more`, behind those that they have in `then`, if any."""
    number = {user: at for at, user in enumerate(then.user_ids)}
    at = np.array([number.get(user, -1) for user in more.user_ids], dtype=np.int64)
    known, ends = at >= 0, then.offsets[1:][at] if len(then) else np.zeros_like(at)
    begins = then.offsets[:-1][at] if len(then) else ends
    starts = np.stack([np.where(known, begins, 0), len(then.item_rows) + more.offsets[:-1]], 1)
    lengths = np.stack([np.where(known, ends - begins, 0), np.diff(more.offsets)], 1)
    flat = lengths.ravel()
    index = np.arange(flat.sum()) + np.repeat(starts.ravel() - (np.cumsum(flat) - flat), flat)
    num_baskets = np.zeros(len(more), dtype=np.int32)
    num_baskets[known] = then.baskets[ends[known] - 1] + 1
    baskets = more.baskets + np.repeat(num_baskets, np.diff(more.offsets))

    def joined(before: np.ndarray, behind: np.ndarray) -> np.ndarray:
        return np.concatenate([before, behind])[index]

    return UserEvents(
        more.user_ids,
        joined(then.item_rows, more.item_rows),
        joined(then.event_codes, more.event_codes),
        joined(then.timestamps, more.timestamps),
        joined(then.baskets, baskets),
        np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]),
    )


@dataclass(frozen=True)
class Changed:
    """How a bucket differs from what it was.

    Attributes:
        before: the result of it.
        folder: of it.
        since_us: nothing before this moment differs.
        users: those with new rows, as they were and, behind these, as they are.
        num_then: how many of them are as they were.
        is_recent: [E] whether an event may differ, or share a situation with one that does.
    """

    before: dict[str, Any]
    folder: Path
    since_us: int
    users: UserEvents
    num_then: int
    is_recent: Bools

    @staticmethod
    def of(
        before: dict[str, Any], folder: Path, since_us: int, then: UserEvents, now: pa.Table,
        on: pl.Series,
    ) -> Changed:  # fmt: skip
        """See above; `on` are the users of `going_on`."""
        users = UserEvents.from_arrow(pa.concat_tables([then.to_arrow(), now]))
        is_on = pl.Series(then.user_ids, dtype=pl.String).is_in(on.implode()).to_numpy()
        settled = dict(zip(then.user_ids, num_settled(then) * is_on, strict=True))
        begins = users.offsets[:-1] + [settled.get(user, 0) for user in users.user_ids]
        nth = np.arange(len(users.item_rows))
        is_recent = nth >= np.repeat(begins, np.diff(users.offsets))
        return Changed(before, folder, since_us, users, len(then), is_recent)

    def parts(self, keep: Bools) -> tuple[UserEvents, UserEvents]:
        """Some events [E] of the users as they were, and as they are."""
        is_then = self.users.user_of_event < self.num_then
        return self.users.where(keep & is_then), self.users.where(keep & ~is_then)


def num_settled(users: UserEvents) -> Int64s:
    """[U] events at the begin of each history that no situation shares with a later event.

    They fill whole windows, and a moment comes after them; see `features.situations`.
    """
    moments = np.flatnonzero(first_of_moments(users))
    bounds = np.searchsorted(moments, users.offsets)
    settled = WINDOW * ((np.diff(bounds) - 1) // WINDOW)
    return moments[bounds[:-1] + settled] - users.offsets[:-1]
