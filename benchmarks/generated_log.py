"""A generated log of any length, for measuring what grows: no shop's, and no model's input.

Items are drawn by Zipf's law, users from a lognormal distribution of activity with heavy ones among
them, events come in sessions of views with some carts and purchases. It is written file by file,
so that a long log costs no more memory than a short one.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recsys.arrays import Float64s
from recsys.schema import Col

#: Events in a file: what is in memory at a time.
ROWS_PER_FILE: Final = 1_000_000
DAYS: Final = 364
FIRST_DAY: Final = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
#: Days of the cuts, counted from the first.
CUTS: Final = {"head": 280, "valid": 308, "test": 336}
_EVENTS_PER_USER: Final = 50
_PER_SESSION: Final = 6


def write_generated(folder: Path, num_events: int, *, num_items: int) -> None:
    """Write `events/`, a file for each stretch of days, and `items.parquet`."""
    (folder / "events").mkdir(parents=True)
    rows = pl.DataFrame({"row": np.arange(num_items)})
    items = rows.select(
        pl.format("item-{}", "row").alias(Col.item),
        pl.format("thing {} of kind {}", pl.col("row") // 7, pl.col("row") % 7).alias(Col.title),
    )
    items.write_parquet(folder / "items.parquet")
    users = _Users.of(num_events)
    num_files = -(-num_events // ROWS_PER_FILE)
    for number in range(num_files):
        size = min(ROWS_PER_FILE, num_events - number * ROWS_PER_FILE)
        days = (DAYS * number / num_files, DAYS * (number + 1) / num_files)
        events = _events(size, days, users, num_items, np.random.default_rng([0, number]))
        events.write_parquet(folder / "events" / f"part-{number:05d}.parquet")


def write_night(folder: Path, num_events: int, *, of: int, num_items: int) -> None:
    """Add a file with the events of the day after, by users of the log of `of` events."""
    rng = np.random.default_rng([1, of])
    night = _events(num_events, (DAYS, DAYS + 1), _Users.of(of), num_items, rng)
    night.write_parquet(folder / "events" / "night.parquet")


@dataclass(frozen=True)
class _Users:
    """Users by how active they are: the chance of each to have a session, added up."""

    up_to: Float64s

    @staticmethod
    def of(num_events: int) -> _Users:
        """The users of a log: the median one has some 30 events, the heaviest 80 times as many."""
        num_users = max(1, num_events // _EVENTS_PER_USER)
        activity = np.minimum(np.random.default_rng(0).lognormal(0, 1, num_users), 80)
        return _Users(np.cumsum(activity) / activity.sum())


def _events(
    size: int, days: tuple[float, float], users: _Users, num_items: int, rng: np.random.Generator
) -> pl.DataFrame:
    num_sessions = -(-size // _PER_SESSION)
    owner = np.searchsorted(users.up_to, rng.random(num_sessions))
    begins = rng.uniform(*days, num_sessions)
    session = np.repeat(np.arange(num_sessions), _PER_SESSION)[:size]
    # Zipf's law by inversion: the chance of rank r falls with 1 / r.
    rank = np.exp(rng.random(size) * np.log(num_items)).astype(np.int64)
    seconds = (begins * 86_400).astype(np.int64)[session] + 40 * (np.arange(size) % _PER_SESSION)
    drawn = {
        "user": owner[session],
        "item": rank * 2_654_435_761 % num_items,
        "kind": rng.random(size),
        "us": seconds * 1_000_000 + int(FIRST_DAY.timestamp() * 1e6),
        "begins": seconds,
    }
    kind = (
        pl.when(pl.col("kind") < 0.9)
        .then(pl.lit("view"))
        .when(pl.col("kind") < 0.95)
        .then(pl.lit("add_to_cart"))
        .otherwise(pl.lit("purchase"))
    )
    return pl.DataFrame(drawn).select(
        pl.format("user-{}", "user").alias(Col.user),
        pl.format("item-{}", "item").alias(Col.item),
        kind.alias(Col.event_type),
        pl.col("us").cast(pl.Datetime("us", "UTC")).alias(Col.timestamp),
        pl.format("{}-{}", "user", pl.col("begins") // 600).alias(Col.session),
    )
