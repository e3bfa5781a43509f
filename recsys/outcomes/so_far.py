"""Counts as they were at an exposure: shows, clicks and purchases so far.

Of the user and of the pair of user and item strictly before the exposure's time: what happened at
the same time does not count. Of the item before the exposure's UTC day, over all users. A click or
purchase counts from its own time on, not from that of its exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from recsys.schema import Col

_MOMENTS: Final = (Col.timestamp, Col.clicked_ts, Col.purchased_ts)
OF_ITEM: Final = (Col.item_shows, Col.item_clicks, Col.item_purchases)
_OF_USER: Final = (Col.user_shows, Col.user_clicks, Col.user_purchases)
_OF_PAIR: Final = (Col.pair_shows, Col.pair_clicks, Col.pair_purchases)
DAY: Final = "day"


def with_user_counts(rows: pl.DataFrame) -> pl.DataFrame:
    """Exposures with the counts of their users and pairs; the users' rows must be all here."""
    for by, names in (([Col.user], _OF_USER), ([Col.user, Col.item], _OF_PAIR)):
        rows = rows.with_columns(
            _before(rows, by, moment).alias(name)
            for moment, name in zip(_MOMENTS, names, strict=True)
        )
    return rows


def day_of(moment: str) -> pl.Expr:
    """The UTC day of a column of times."""
    return pl.col(moment).dt.date().alias(DAY)


def item_days(rows: pl.DataFrame) -> pl.DataFrame:
    """What happened on each day to each item: columns `item_id`, `day` and the three counts."""
    counted = [
        rows.filter(pl.col(moment).is_not_null())
        .group_by(Col.item, day_of(moment))
        .agg(pl.len().cast(pl.Int64).alias(name))
        for moment, name in zip(_MOMENTS, OF_ITEM, strict=True)
    ]
    return added([pl.concat(counted, how="diagonal")])


def added(days: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The sum of tables of `item_days`, sorted by item and day."""
    every = pl.concat(days, how="diagonal")
    return every.group_by(Col.item, DAY).agg(pl.col(OF_ITEM).sum()).sort(Col.item, DAY)


def item_counts(days: pl.DataFrame) -> pl.DataFrame:
    """The counts of each item before each day that it was shown on; see `added`."""
    shown = pl.col(Col.item_shows) > 0
    sums = [(pl.col(name).cum_sum() - pl.col(name)).over(Col.item) for name in OF_ITEM]
    return days.select(Col.item, DAY, *sums, shown.alias("shown")).filter("shown").drop("shown")


def with_item_counts(rows: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """Exposures with the counts of their items; `counts` of `item_counts`, for all their days."""
    dated = rows.with_columns(day_of(Col.timestamp))
    return dated.join(counts, on=[Col.item, DAY], how="left", maintain_order="left").drop(DAY)


def _before(rows: pl.DataFrame, by: list[str], moment: str) -> pl.Series:
    """[rows] how often something of the same group happened strictly before each row's time."""
    happened = (
        rows.filter(pl.col(Col.user).is_not_null() & pl.col(moment).is_not_null())
        .group_by(*by, pl.col(moment).alias("at"))
        .agg(pl.len().cast(pl.Int64).alias("so_far"))
        .sort("at")
        .with_columns(pl.col("so_far").cum_sum().over(by))
    )
    asked = rows.select(*by, Col.timestamp).with_row_index("row").sort(Col.timestamp)
    found = asked.join_asof(
        happened, left_on=Col.timestamp, right_on="at", by=by, allow_exact_matches=False,
        check_sortedness=False,
    )  # fmt: skip
    return found.sort("row")["so_far"].fill_null(0)
