"""The protocol `leave_one_out`: each user's last target moments, laid out a day apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from benchmarks.quality.protocols.benchmark import UTC_US
from recsys.schema import Col

#: Where protocols that keep only the order begin their test window.
TEST_DAY = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def day_cuts() -> dict[str, dt.datetime]:
    """The cuts of a log that is laid out a day apart."""
    return {"head": TEST_DAY - 2 * DAY, "valid": TEST_DAY - DAY, "test": TEST_DAY}


def leave_one_out(events: pl.DataFrame, targets: Sequence[str], has_times: bool) -> pl.DataFrame:
    """Lay moments out by their order: the target moment that is n-th from the end lies at -n days.

    What comes before a target moment lies minutes before it. Events after the last one are left
    out, and a user with a single target moment is only learned from.
    """
    numbered = events.with_row_index("nth")
    if has_times:
        numbered = numbered.sort(Col.user, Col.timestamp, maintain_order=True)
        same = pl.col(Col.timestamp).rle_id().over(Col.user)
    else:
        numbered = numbered.sort(Col.user, "nth")
        same = pl.int_range(pl.len()).over(Col.user)
    numbered = numbered.with_columns(same.cast(pl.Int64).alias("moment"))
    moments = (
        numbered.group_by(Col.user, "moment", maintain_order=True)
        .agg(pl.col(Col.event_type).is_in(targets).any().alias("target"))
        .sort(Col.user, "moment")
    )
    moments = moments.with_columns(
        # Target moments from this one on; 0 after the last.
        pl.col("target").cast(pl.Int64).cum_sum(reverse=True).over(Col.user).alias("left"),
        pl.col("target").sum().over(Col.user).alias("of_user"),
    ).filter(pl.col("left") > 0)
    moments = moments.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64)
        .reverse()
        .over(Col.user, "left")
        .alias("moments_before")
    )
    # A user with one target moment alone is moved out of all windows but the training one.
    day = pl.col("left") - 1 + 3 * (pl.col("of_user") == 1).cast(pl.Int64)
    laid = moments.with_columns(
        (
            pl.lit(TEST_DAY, UTC_US) - pl.duration(days=day)
            + pl.when(pl.col("target")).then(pl.duration(hours=12)).otherwise(
                pl.duration(hours=12) - pl.duration(seconds=pl.col("moments_before"))
            )
        ).alias("laid")
    )  # fmt: skip
    return (
        numbered.join(laid.select(Col.user, "moment", "laid"), on=[Col.user, "moment"])
        .drop(Col.timestamp, strict=False)
        .rename({"laid": Col.timestamp})
        .drop("nth", "moment")
    )
