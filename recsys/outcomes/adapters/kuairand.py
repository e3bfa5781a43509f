"""KuaiRand (arXiv 2208.10696): short videos, each row a shown one with all that came of it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.outcomes.adapters.labelled import exposures_of, first_at, read_table
from recsys.schema import Col
from recsys.storage.reading import reading

_COLUMNS = [
    "request_id", "user_id", "item_id", "timestamp", "is_click", "long_view", "dwell_ms", "tab",
]  # fmt: skip


def read_kuairand(folder: Path) -> pl.DataFrame:
    """The exposures of `exposures.parquet`.

    The tab that a video was shown on is the placement, and its watch time the dwell time, of a
    video that was not clicked too. The platform tells no position and no propensity.

    Args:
        folder: of the tables, in the columns `request_id` (one a row), `user_id`, `item_id`,
            `timestamp`, `is_click`, `long_view`, `dwell_ms`, `tab`.

    Returns:
        Columns of `schema.EXPOSURES`.

    Raises:
        DataError: the file is missing, broken, or lacks a column.
    """
    path = folder / "exposures.parquet"
    rows = read_table(path, _COLUMNS)
    with reading(path, "give each exposure a `request_id` of its own"):
        if rows["request_id"].n_unique() != rows.height:
            raise ValueError("a `request_id` stands twice")
    return exposures_of(
        rows.select(
            pl.col("request_id").alias(Col.exposure),
            pl.col("request_id").alias(Col.request),
            pl.col("user_id").alias(Col.user),
            pl.col("item_id").alias(Col.item),
            pl.col("timestamp").alias(Col.timestamp),
            pl.col("tab").cast(pl.String).alias(Col.placement),
            first_at("is_click").alias(Col.clicked_ts),
            pl.col("dwell_ms").alias(Col.dwell_ms),
            pl.col("long_view").cast(pl.Boolean).alias(Col.long_view),
        )
    )
