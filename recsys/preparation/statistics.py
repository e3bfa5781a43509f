"""Item statistics of a log: the buckets' counts added up, as of each cut and day by day.

What is in memory are the counts of a range of days, or those of one cut: one row an item.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def write_statistics(out: Path, buckets: Sequence[Path]) -> None:
    """Add up the item counts of the buckets.

    Args:
        out: folder of the prepared data.
        buckets: folders of the buckets that hold users.
    """
    stats = pl.concat([_added(buckets, cut) for cut in sorted(CUTS)], rechunk=True)
    stats.write_parquet(out / STATS_FILE)
    _write_days(out / DAYS_FILE, [folder / build.DAYS_FILE for folder in buckets])


def _added(buckets: Sequence[Path], cut: str) -> pl.DataFrame:
    """The counts as of one cut, bucket by bucket: never more rows than items and those of one."""
    total: pl.DataFrame | None = None
    for folder in buckets:
        found = pl.read_parquet(folder / build.counts_file(cut), glob=False)
        counts = found.select("as_of", Col.item_row, *_STATS)
        both = counts if total is None else pl.concat([total, counts])
        total = both.group_by("as_of", Col.item_row).agg(pl.col(_STATS).sum())
    assert total is not None, "a log without users is refused before"
    return total.sort("as_of", Col.item_row)


def _write_days(target: Path, files: Sequence[Path]) -> None:
    """The daily counts, some days at a time; each file is sorted by day."""
    bounds = _days_at_once(files)
    frames = (
        pl.concat(
            pl.DataFrame(pq.read_table(path, filters=[("day", ">=", low), ("day", "<", high)]))
            for path in files
        )
        .group_by("day", Col.item_row)
        .sum()
        .sort("day", Col.item_row)
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
