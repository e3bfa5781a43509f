"""A bucket that was built under another catalogue, as if it had been built under this one.

Items have their rows by the order of their ids, so a new item moves those after it. The order
stays: what was sorted by rows is still sorted by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Int32s
from recsys.features.pair_counts import LEFT, RIGHT
from recsys.schema import HISTORIES, Col
from recsys.storage.outputs import place
from recsys.storage.seals import file_hashes, json_sha256

#: Row of an item that is gone.
GONE: Final = -1
_COLUMNS: Final = (Col.item_row, LEFT, RIGHT)


def moved_rows(before: pl.DataFrame, now: pl.DataFrame) -> Int32s:
    """[I before] the row that each item has now; `GONE` where it has none.

    Args:
        before: item ids and their rows, then.
        now: likewise, of this catalogue.
    """
    both = before.join(now, on=Col.item, how="left", suffix="_now").sort(Col.item_row)
    return both[f"{Col.item_row}_now"].fill_null(GONE).cast(pl.Int32).to_numpy()


def renumbered(
    result: dict[str, Any], bucket: Path, moved: Int32s, shard: str, out: Path
) -> dict[str, Any] | None:
    """Write a bucket's files with other rows of items.

    Args:
        result: of the bucket.
        bucket: its folder.
        moved: see `moved_rows`.
        shard: name of the file of histories.
        out: folder that is filled.

    Returns:
        The result, as it would be; None if an item of the bucket is gone.
    """
    table = pq.read_table(bucket / shard).combine_chunks()
    lists = table[Col.item_rows].combine_chunks()
    rows = moved[lists.values.to_numpy()]
    if (rows == GONE).any():
        return None
    place_of = table.schema.get_field_index(Col.item_rows)
    lists = pa.ListArray.from_arrays(lists.offsets, pa.array(rows, pa.int32()))
    table = table.set_column(place_of, HISTORIES.field(Col.item_rows), lists)
    pq.write_table(table, out / shard, compression="zstd")
    for path in sorted(bucket.rglob("*.parquet")):
        name = path.relative_to(bucket)
        (out / name).parent.mkdir(exist_ok=True)
        columns = set(pq.read_schema(path).names).intersection(_COLUMNS)
        if name.name == shard:
            continue
        if columns:
            _write_moved(path, out / name, columns, moved)
        else:
            place(path, out / name)
    parts = [
        {**part, "sha256": json_sha256(file_hashes(out / part["part"]))} for part in result["pairs"]
    ]
    return {**result, "pairs": parts}


def _write_moved(path: Path, target: Path, columns: set[str], moved: Int32s) -> None:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        with pq.ParquetWriter(
            target, schema, compression="lz4", use_dictionary=False, write_page_checksum=True
        ) as writer:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                for name in columns:
                    rows = np.take(moved, table[name].to_numpy())
                    at = schema.get_field_index(name)
                    table = table.set_column(at, schema.field(name), pa.array(rows))
                writer.write_table(table.cast(schema))
