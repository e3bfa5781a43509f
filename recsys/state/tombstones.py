"""Tombstones: what is kept of an erased user, so that erased events do not come back.

All events up to the erasure are gone. A sender's clock may have been ahead: events received before
the erasure with a later timestamp are recognised by their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys.schema import EVENT_CODE, Col


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Tombstone of one user, over one or more erasures.

    Attributes:
        at_us: when the user was erased, microseconds since 1970, UTC.
        until_us: latest timestamp of an erased event; at least `at_us`.
        ahead: `digest` of each erased event with a timestamp after the erasure.
    """

    at_us: int
    until_us: int
    ahead: frozenset[str] = frozenset()

    def joined(self, other: Tombstone) -> Tombstone:
        """The tombstone of both erasures."""
        return Tombstone(
            max(self.at_us, other.at_us),
            max(self.until_us, other.until_us),
            self.ahead | other.ahead,
        )

    def covers(self, user_id: str, timestamp: int, event_code: int, item_id: str) -> bool:
        """Whether an event of the user was erased; for the arguments see `digest`."""
        if timestamp <= self.at_us:
            return True
        if timestamp > self.until_us:
            return False
        return digest(user_id, timestamp, event_code, item_id) in self.ahead


def digest(user_id: str, timestamp: int, event_code: int, item_id: str) -> str:
    """Digest by which an erased event is recognised, 32 hex digits.

    Args:
        user_id: the pseudonym.
        timestamp: microseconds since 1970, UTC.
        event_code: position in `schema.ALL_EVENT_TYPES`.
        item_id: the shop's id.
    """
    text = f"{user_id}\0{timestamp}\0{event_code}\0{item_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def joined(one: Mapping[str, Tombstone], other: Mapping[str, Tombstone]) -> dict[str, Tombstone]:
    """The tombstones of both, by pseudonym."""
    both = {**one, **other}
    return {user: each.joined(one.get(user, each)) for user, each in both.items()}


def is_erased(rows: pl.DataFrame, tombstones: Mapping[str, Tombstone]) -> pl.Series:
    """Which rows are older than their user's erasure; a row without a time counts as older.

    Args:
        rows: columns `user_id` (pseudonyms) and `timestamp`, and if they are events `item_id` and
            `event_type` (ours). Of other rows the time alone decides: it is our own clock's.
        tombstones: by pseudonym.

    Returns:
        [len(rows)] booleans.
    """
    at, until = (
        pl.col(Col.user).replace_strict(
            list(tombstones), [getattr(each, name) for each in tombstones.values()],
            default=None, return_dtype=pl.Int64,
        )
        for name in ("at_us", "until_us")
    )  # fmt: skip
    us = pl.col(Col.timestamp).dt.epoch("us")
    found = rows.select(
        gone=at.is_not_null() & (us <= at).fill_null(True),
        doubtful=((us > at) & (us <= until)).fill_null(False),
    )
    gone = found["gone"].to_numpy().copy()
    if Col.event_type in rows.columns:
        doubtful = rows.with_row_index("row").filter(found["doubtful"]).with_columns(us.alias("us"))
        names = ("row", Col.user, "us", Col.event_type, Col.item)
        for row, user, time, event_type, item in doubtful.select(names).iter_rows():
            gone[row] = tombstones[user].covers(user, time, EVENT_CODE.get(event_type, -1), item)
    return pl.Series(gone, dtype=pl.Boolean)
