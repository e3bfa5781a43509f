"""Item statistics of a log: the buckets' counts added up, as of each cut and day by day.

What is in memory are the counts of a range of days, or those of one cut: one row an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from recsys.arrays import Int64s
from recsys.features.popularity import ItemStats
from recsys.preparation import build
from recsys.preparation.prepared import DAYS_FILE, STATS_FILE
from recsys.preparation.relate import CUTS
from recsys.schema import Col

#: Rows of the buckets' daily counts that are added up at a time.
ROWS_AT_ONCE: Final = 8_000_000
_STATS: Final = [field.name for field in fields(ItemStats)]


def write_statistics(out: Path, buckets: Sequence[Path], num_items: int) -> None:
    """Add up the item counts of the buckets.

    Args:
        out: folder of the prepared data.
        buckets: folders of the buckets that hold users.
        num_items: of the catalogue.
    """
    stats = pl.concat([_added(buckets, cut, num_items) for cut in sorted(CUTS)], rechunk=True)
    stats.write_parquet(out / STATS_FILE)
    _write_days(out / DAYS_FILE, [folder / build.DAYS_FILE for folder in buckets])


def _added(buckets: Sequence[Path], cut: str, num_items: int) -> pl.DataFrame:
    """The counts as of one cut, bucket by bucket: never more than those of all items."""
    total = {name: np.zeros(num_items, dtype=np.int64) for name in _STATS}
    counted = np.zeros(num_items, dtype=np.bool_)
    for folder in buckets:
        counts = pl.read_parquet(folder / build.counts_file(cut), glob=False)
        rows = counts[Col.item_row].to_numpy()
        counted[rows] = True
        for name, so_far in total.items():
            so_far[rows] += counts[name].to_numpy()
    there = np.flatnonzero(counted)
    return pl.DataFrame(
        {
            Col.item_row: there.astype(np.int32),
            **{name: each[there] for name, each in total.items()},
        }
    ).select(pl.lit(cut).alias("as_of"), Col.item_row, *_STATS)


def _write_days(target: Path, files: Sequence[Path]) -> None:
    """The daily counts, some days at a time; each file is sorted by day."""
    bounds = _days_at_once(files)
    frames = (
        _summed(
            pl.DataFrame(pq.read_table(path, filters=[("day", ">=", low), ("day", "<", high)]))
            for path in files
        )
        for low, high in zip(bounds[:-1], bounds[1:], strict=True)
    )
    if len(bounds) == 2:
        next(frames).write_parquet(target)
        return
    first = next(frames).to_arrow()
    with pq.ParquetWriter(target, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(frame.to_arrow())


def _summed(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The sums by day and item, sorted by both; each of the tables is sorted likewise."""
    rows = pl.concat(counts)
    key = rows["day"].to_numpy().astype(np.int64) << 32 | rows[Col.item_row].to_numpy()
    order = np.argsort(key, kind="stable")  # merges what is sorted
    first = np.flatnonzero(np.diff(key[order], prepend=key.min() - 1))
    names = [name for name in rows.columns if name not in ("day", Col.item_row)]
    sums = {name: np.add.reduceat(rows[name].to_numpy()[order], first) for name in names}
    return rows.select("day", Col.item_row)[order[first]].with_columns(**sums)


def _days_at_once(files: Sequence[Path]) -> list[int]:
    """Bounds of ranges of days that hold about `ROWS_AT_ONCE` rows of all files together."""
    sizes: dict[int, int] = {}
    for path in files:
        days: Int64s = pq.read_table(path, columns=["day"])["day"].to_numpy()
        for day, count in zip(*np.unique(days, return_counts=True), strict=True):
            sizes[int(day)] = sizes.get(int(day), 0) + int(count)
    ordered = sorted(sizes)
    blocks = np.cumsum([sizes[day] for day in ordered]) // ROWS_AT_ONCE
    inner = np.flatnonzero(np.diff(blocks)) + 1
    return [ordered[0], *(ordered[place] for place in inner), ordered[-1] + 1]
