"""Open Bandit (arXiv 2008.07146): fashion items, shown by two policies that log propensities."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.outcomes.adapters.labelled import exposures_of, first_at, read_table
from recsys.schema import Col

POLICIES = ("random", "bts")
_COLUMNS = ["timestamp", "item_id", "position", "click", "propensity_score"]


def read_open_bandit(folder: Path) -> pl.DataFrame:
    """The exposures of `random.parquet` and `bts.parquet`; the policy is the arm.

    The log tells of no user and no request: an exposure's id is its policy and row.

    Args:
        folder: of the two files, in the columns `timestamp`, `item_id`, `position`, `click`,
            `propensity_score`.

    Returns:
        Columns of `schema.EXPOSURES`; counts of items are over both policies.

    Raises:
        DataError: a file is missing, broken, or lacks a column.
    """
    return exposures_of(pl.concat(_read(folder / f"{name}.parquet", name) for name in POLICIES))


def _read(path: Path, policy: str) -> pl.DataFrame:
    rows = read_table(path, _COLUMNS).with_row_index("row")
    return rows.select(
        pl.format(f"{policy}:{{}}", "row").alias(Col.exposure),
        pl.col("item_id").cast(pl.String).alias(Col.item),
        pl.col("timestamp").alias(Col.timestamp),
        pl.col("position").cast(pl.Int32).alias(Col.position),
        pl.col("propensity_score").cast(pl.Float32).alias(Col.propensity),
        pl.lit(policy).alias(Col.arm),
        first_at("click").alias(Col.clicked_ts),
    )
