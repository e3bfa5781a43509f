"""Rows whose outcomes their log tells beside them: what they lack of an exposure."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from recsys.outcomes.attribution import FIRST, exposures_table
from recsys.outcomes.so_far import added, item_counts, item_days, with_item_counts, with_user_counts
from recsys.schema import EXPOSURES, Col
from recsys.storage.reading import reading

FIX: Final = "fetch the data set again"


def read_table(path: Path, columns: list[str]) -> pl.DataFrame:
    """Columns of a Parquet file.

    Raises:
        DataError: it is missing, unreadable, or lacks one of them.
    """
    with reading(path, FIX), pq.ParquetFile(path) as file:
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent:
            raise ValueError(f"there is no column `{absent[0]}`")
        return pl.DataFrame(file.read(columns))


def first_at(label: str) -> pl.Expr:
    """The exposure's own time where a label is set: such a log tells no other."""
    return pl.when(pl.col(label).cast(pl.Boolean)).then(pl.col(Col.timestamp))


def exposures_of(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in the columns of `schema.EXPOSURES`, sorted by time and id, counts filled in.

    Args:
        rows: at least id, item and time; times of outcomes, not whether they happened. User ids
            are those of the log, which are pseudonyms of its publisher.
    """
    empty = pl.DataFrame(EXPOSURES.empty_table()).schema
    rows = rows.select(
        (pl.col(name) if name in rows else pl.lit(None)).cast(kind).alias(name)
        for name, kind in empty.items()
    ).sort(Col.timestamp, Col.exposure)
    rows = rows.with_columns(pl.col(ts).is_not_null().alias(name) for name, ts in FIRST.values())
    counted = with_user_counts(rows).drop(Col.item_shows, Col.item_clicks, Col.item_purchases)
    counts = item_counts(added([item_days(rows)]))
    return pl.DataFrame(exposures_table(with_item_counts(counted, counts)))
