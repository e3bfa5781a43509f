"""Reading of history shards, checked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.schema import ALL_EVENT_TYPES, HISTORIES
from recsys.storage.reading import reading

_FIX = "run `recsys prepare` again"


def read_shard(path: Path, num_items: int) -> pa.Table:
    """The rows of one history shard: of the schema, its lists in parallel, its numbers in range.

    Raises:
        DataError: it is missing or broken.
    """
    with reading(path, _FIX):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)
        if not table.schema.equals(HISTORIES) or any(c.null_count for c in table.columns):
            raise ValueError("no table of histories")
        lists = [column.combine_chunks() for column in table.columns[1:]]
        if any(not each.offsets.equals(lists[0].offsets) for each in lists):
            lengths = [pc.list_value_length(each) for each in lists]
            if any(not each.equals(lengths[0]) for each in lengths):
                raise ValueError("lists of unequal lengths")
        rows, codes, _, _ = (pc.list_flatten(each) for each in lists)
        num_types = len(ALL_EVENT_TYPES)
        for name, values, high in (("item", rows, num_items), ("event", codes, num_types)):
            low_high = pc.min_max(values).as_py()
            if values.null_count or (
                len(values) and not 0 <= low_high["min"] <= low_high["max"] < high
            ):
                raise ValueError(f"an {name} outside 0..{high - 1}")
        return table
