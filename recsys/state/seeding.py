"""Seeding: histories of a bundle as events of the store, under ids that every bundle gives alike.

A seeded event is named by what it is: `seed:{timestamp}:{item}:{code}:{n}`, where n counts the
events of a user that are alike in all of these. So two bundles that share a part of the log seed
that part once. A position in the history would not do: the history's begin moves when it is cut to
its latest events.

The log of the next bundle also holds what this service took in by itself, under the senders' ids;
`unheld` leaves those out. The other way round, an event that arrives late and was seeded already is
known by `seed_id`. Both need the log and the sender to give an event the same time.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from recsys.arrays import Strings
from recsys.schema import Col
from recsys.state.base import StateEvent
from recsys.state.tombstones import Tombstone

#: Begin of a seeded event's id; a sender's event ids must not begin so.
SEED_PREFIX = "seed:"

_LIKE = ["user", "us", "item", "code"]


def seed_id(event: StateEvent) -> str:
    """The id under which an event like this one is seeded first."""
    return f"{SEED_PREFIX}{event.timestamp}:{event.item_id}:{event.event_code}:0"


_LIVE_SCHEMA = {"user": pl.String, "us": pl.Int64, "item": pl.String, "code": pl.Int64}

#: A `StateEvent` as a row of columns, in the order of its fields.
EVENT_COLUMNS = ["user", "id", "item", "code", "us"]


def seed_events(table: pa.Table, item_ids: Strings, max_events_per_user: int) -> pl.DataFrame:
    """The latest events of each history, one a row, sorted by user and event id.

    Args:
        table: rows of `schema.HISTORIES`.
        item_ids: [I] catalogue ids by item row; events of rows outside are left out.
        max_events_per_user: the latest events of each user to keep.

    Returns:
        `EVENT_COLUMNS`, and `nth`: how many events of the user, alike in all but this, come before.
    """
    lists = [Col.item_rows, Col.event_codes, Col.timestamps]
    names = {Col.user: "user", Col.item_rows: "row", Col.event_codes: "code", Col.timestamps: "us"}
    flat = pl.DataFrame(table.select([Col.user, *lists])).explode(lists).rename(names)
    items = pl.Series("item", item_ids.tolist(), dtype=pl.String)
    known = flat.filter(pl.col("row").is_between(0, len(items) - 1))
    events = known.select(
        "user", "us", items.gather(known["row"]), pl.col("code").cast(pl.Int64)
    ).sort(_LIKE)
    place = pl.int_range(pl.len())
    is_first = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in _LIKE)
    numbered = events.with_columns(
        (place - pl.when(is_first).then(place).forward_fill()).alias("nth")
    )
    event_id = pl.concat_str(
        pl.lit(SEED_PREFIX[:-1]), *_LIKE[1:], "nth", separator=":", ignore_nulls=False
    )
    # Ties at the cap are decided by the event id's text, as everywhere in the store.
    return (
        numbered.with_columns(event_id.alias("id"))
        .sort("user", "us", "item", "id")
        .filter(pl.len().over("user") - place.over("user") <= max_events_per_user)
        .select(*EVENT_COLUMNS, "nth")
        .sort("user", "id")
    )


def unheld(seeds: pl.DataFrame, live: list[tuple[str, int, str, int]]) -> pl.DataFrame:
    """The seeds without those that the store holds already, counted per kind of event.

    Args:
        seeds: of `seed_events`.
        live: (user, timestamp, item, code) of the held events that were not seeded.
    """
    if not live:
        return seeds
    counts = pl.DataFrame(live, schema=_LIVE_SCHEMA, orient="row").group_by(_LIKE).len("num_live")
    joined = seeds.join(counts, on=_LIKE, how="left", maintain_order="left")
    return joined.filter(pl.col("nth") >= pl.col("num_live").fill_null(0)).drop("num_live")


def lasting(
    seeds: pl.DataFrame, erased: Mapping[str, Tombstone], oldest_us: int | None
) -> pl.DataFrame:
    """The seeds without expired events and without events of erased users.

    Args:
        seeds: of `seed_events`.
        erased: of `UserState.erased`.
        oldest_us: of the earliest event that has not expired; None: none expires.
    """
    if oldest_us is not None:
        seeds = seeds.filter(pl.col("us") >= oldest_us)
    if not erased:
        return seeds
    schema = {"user": pl.String, "erased": pl.Int64}
    until = [(user, tombstone.until_us) for user, tombstone in erased.items()]
    tombstones = pl.DataFrame(until, schema=schema, orient="row")
    joined = seeds.join(tombstones, on="user", how="left", maintain_order="left")
    stays = pl.col("erased").is_null() | (pl.col("us") > pl.col("erased"))
    return joined.filter(stays).drop("erased")
