"""User histories: a ragged container, and how events become one.

Events that share a timestamp are one *moment*: nothing inside it has an order, and nothing inside
it may see another part of it. A *basket* is the unit that is evaluated: the events of one user that
share timestamp and session (an event without a session is a basket of its own).

Legend: U users, E events of all users together, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.arrays import Bools, Float32s, Int8s, Int32s, Int64s
from recsys.data.distinct_items import DistinctItems, distinct_items
from recsys.schema import EVENT_CODE, EVENT_TYPES, HISTORIES, Col

US_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Histories:
    """Event lists of Q queries, flat: q owns events `offsets[q]:offsets[q + 1]`, oldest first.

    Attributes:
        item_rows: [E] int32, row of the item in the catalogue.
        event_codes: [E] int8, position in `EVENT_TYPES`.
        timestamps: [E] int64, microseconds since 1970, UTC; rising within a query.
        offsets: [Q + 1] int64.
        now: [Q] int64, the moment of the query; all its events lie before it.
    """

    item_rows: Int32s
    event_codes: Int8s
    timestamps: Int64s
    offsets: Int64s
    now: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64s:
        """[Q] number of events of each query."""
        return np.diff(self.offsets)

    @property
    def query_of_event(self) -> Int64s:
        """[E] the query that each event belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def age_days(self) -> Float32s:
        """[E] days from each event to its query's `now`."""
        age_us = np.repeat(self.now, self.lengths) - self.timestamps
        return (age_us / US_PER_DAY).astype(np.float32)

    @cached_property
    def distinct(self) -> DistinctItems:
        """The items of each query and their moments; found once."""
        return distinct_items(self.item_rows, self.event_codes, self.timestamps, self.offsets)

    def last(self, num_events: int) -> Histories:
        """The same queries with at most their latest `num_events` events."""
        keep = np.arange(len(self.item_rows)) >= np.repeat(
            np.maximum(self.offsets[1:] - num_events, self.offsets[:-1]), self.lengths
        )
        return self.where(keep)

    @property
    def last_moment_sizes(self) -> Int64s:
        """[Q] events of each query's last moment; 0 without events."""
        ends, times = self.offsets[1:], self.timestamps
        last = np.repeat(times[np.maximum(ends - 1, 0)] if len(times) else ends, self.lengths)
        return np.bincount(self.query_of_event[times == last], minlength=len(self))

    def take(self, queries: Int64s) -> Histories:
        """Some queries, in the order given."""
        starts = self.offsets[:-1][queries]
        return Histories.gather(
            self.item_rows, self.event_codes, self.timestamps,
            starts, starts + self.lengths[queries], self.now[queries],
        )  # fmt: skip

    def known(self, num_items: int) -> Histories:
        """The same queries without events of items outside rows 0..num_items-1."""
        return self.where((self.item_rows >= 0) & (self.item_rows < num_items))

    def where(self, keep: Bools) -> Histories:
        """The same queries with only the events for which `keep` [E] holds."""
        if keep.all():
            return self
        counts = np.bincount(self.query_of_event[keep], minlength=len(self))
        return Histories(
            self.item_rows[keep],
            self.event_codes[keep],
            self.timestamps[keep],
            np.concatenate([[0], np.cumsum(counts)]),
            self.now,
        )

    def __getitem__(self, queries: slice) -> Histories:
        """A contiguous slice of the queries (views, no copies)."""
        start, stop, _ = queries.indices(len(self))
        low, high = self.offsets[start], self.offsets[max(start, stop)]
        return Histories(
            self.item_rows[low:high],
            self.event_codes[low:high],
            self.timestamps[low:high],
            self.offsets[start : max(start, stop) + 1] - low,
            self.now[start : max(start, stop)],
        )

    @staticmethod
    def of(
        item_rows: Sequence[int] | Int32s,
        event_codes: Sequence[int] | Int8s,
        timestamps: Sequence[int] | Int64s,
        now: int,
    ) -> Histories:
        """One query."""
        rows = np.asarray(item_rows, dtype=np.int32)
        return Histories(
            rows,
            np.asarray(event_codes, dtype=np.int8),
            np.asarray(timestamps, dtype=np.int64),
            np.array([0, len(rows)], dtype=np.int64),
            np.array([now], dtype=np.int64),
        )

    @staticmethod
    def joined(parts: Sequence[Histories]) -> Histories:
        """The queries of all parts, one or more, in their order."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        return Histories(
            np.concatenate([part.item_rows for part in parts]),
            np.concatenate([part.event_codes for part in parts]),
            np.concatenate([part.timestamps for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([part.now for part in parts]),
        )

    @staticmethod
    def gather(
        item_rows: Int32s,
        event_codes: Int8s,
        timestamps: Int64s,
        starts: Int64s,
        stops: Int64s,
        now: Int64s,
    ) -> Histories:
        """Queries over shared event arrays: query q reads events `starts[q]:stops[q]`."""
        lengths = stops - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths)
        return Histories(item_rows[index], event_codes[index], timestamps[index], offsets, now)


@dataclass(frozen=True)
class UserEvents:
    """The whole event lists of U users, flat, with their baskets; what `prepare` stores.

    Attributes:
        user_ids: [U] pseudonyms.
        item_rows, event_codes, timestamps: [E], see `Histories`.
        baskets: [E] int32, number of the event's basket within its user, rising.
        offsets: [U + 1] int64.
    """

    user_ids: list[str]
    item_rows: Int32s
    event_codes: Int8s
    timestamps: Int64s
    baskets: Int32s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.user_ids)

    @staticmethod
    def from_arrow(table: pa.Table | pa.RecordBatch) -> UserEvents:
        """Read rows of the `HISTORIES` schema, without the retractions: the store alone reads them.

        Every user has another event, see `build_histories`.
        """
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        lengths = pc.list_value_length(table[Col.timestamps]).to_numpy()

        def flat(name: str, dtype: type) -> NDArray[Any]:
            return pc.list_flatten(table[name]).to_numpy().astype(dtype, copy=False)

        codes = flat(Col.event_codes, np.int8)
        users = UserEvents(
            table[Col.user].to_pylist(),
            flat(Col.item_rows, np.int32),
            codes,
            flat(Col.timestamps, np.int64),
            flat(Col.baskets, np.int32),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )
        is_interest = codes < len(EVENT_TYPES)
        return users if is_interest.all() else users.where(is_interest)

    def before(self, cut: int) -> UserEvents:
        """The events before `cut` (microseconds); users left without one are dropped."""
        return self.where(self.timestamps < cut)

    def where(self, keep: Bools) -> UserEvents:
        """The events for which `keep` [E] holds; users left without one are dropped."""
        counts = np.bincount(self.user_of_event[keep], minlength=len(self))
        stay = counts > 0
        return UserEvents(
            [user for user, ok in zip(self.user_ids, stay, strict=True) if ok],
            self.item_rows[keep],
            self.event_codes[keep],
            self.timestamps[keep],
            self.baskets[keep],
            np.concatenate([[0], np.cumsum(counts[stay])]).astype(np.int64),
        )

    @property
    def user_of_event(self) -> Int64s:
        """[E] number of each event's user."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def to_arrow(self) -> pa.Table:
        """Rows of the `HISTORIES` schema."""
        columns = (self.item_rows, self.event_codes, self.timestamps, self.baskets)
        bounds = pa.array(self.offsets, pa.int32())
        lists = [pa.ListArray.from_arrays(bounds, pa.array(each)) for each in columns]
        return pa.table([pa.array(self.user_ids, pa.string()), *lists], schema=HISTORIES)

    def as_queries(self, now: int) -> Histories:
        """One query a user, asked at `now`."""
        return Histories(
            self.item_rows, self.event_codes, self.timestamps, self.offsets,
            np.full(len(self), now, dtype=np.int64),
        )  # fmt: skip


def build_histories(events: pl.DataFrame) -> pa.Table:
    """Canonical events (with `item_row`) -> one row a user, of the `HISTORIES` schema.

    The result does not depend on the order of the rows given, see `in_order`.
    """
    return histories_of(in_order(events))


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Events in the order of histories: by user, time, session, item and type.

    Returns:
        `user_id`, `item_row`, `code` (position in `ALL_EVENT_TYPES`), `us`, `session_id`.
    """
    codes = pl.col(Col.event_type).replace_strict(
        list(EVENT_CODE), list(EVENT_CODE.values()), return_dtype=pl.Int8
    )
    return events.select(
        Col.user,
        pl.col(Col.item_row).cast(pl.Int32),
        codes.alias("code"),
        pl.col(Col.timestamp).dt.epoch("us").alias("us"),
        Col.session,
    ).sort(Col.user, "us", Col.session, Col.item_row, "code", nulls_last=True)


def histories_of(ordered: pl.DataFrame) -> pa.Table:
    """One row a user, of the `HISTORIES` schema, from events of `in_order`.

    A user who did nothing but take back has no row.
    """
    is_interest = pl.col("code") < len(EVENT_TYPES)
    if not ordered.select(is_interest.all()).item():
        ordered = ordered.filter(is_interest.any().over(Col.user))
    user, session = pl.col(Col.user), pl.col(Col.session)
    new_user = user.ne_missing(user.shift(1)).fill_null(True)
    marks = ordered.select(
        new_user.alias("user"),
        (
            new_user
            | (pl.col("us") != pl.col("us").shift(1))
            | session.is_null()
            | session.ne_missing(session.shift(1))
        ).alias("basket"),
    )
    starts = np.flatnonzero(marks["user"].to_numpy())
    offsets = np.append(starts, ordered.height)
    number = np.cumsum(marks["basket"].to_numpy(), dtype=np.int32)
    return UserEvents(
        ordered[Col.user].gather(starts).to_list(),
        ordered[Col.item_row].to_numpy(),
        ordered["code"].to_numpy(),
        ordered["us"].to_numpy(),
        number - np.repeat(number[starts], np.diff(offsets)),
        offsets,
    ).to_arrow()
