"""Small logs in the canonical form, and what the adapter reads of them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import Data
from recsys.data.adapters import open_adapter
from recsys.data.adapters.canonical import CanonicalAdapter
from recsys.schema import Col

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


def event_columns(**changes: object) -> dict[str, object]:
    """Two events, as columns."""
    return {
        Col.user: ["u1", "u2"],
        Col.item: ["i1", "i2"],
        Col.event_type: ["view", "purchase"],
        Col.timestamp: pa.array([NOON, NOON], pa.timestamp("us", "UTC")),
        **changes,
    }


def write(path: Path, columns: dict[str, object], row_group_size: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def adapter(folder: Path | str, **data: object) -> CanonicalAdapter:
    cuts = {"valid": "2024-02-01", "test": "2024-03-01"}
    opened = open_adapter(Data.model_validate({"source": str(folder), "cuts": cuts, **data}))
    assert isinstance(opened, CanonicalAdapter)
    return opened


def events(folder: Path, **data: object) -> pl.DataFrame:
    opened = adapter(folder, **data)
    return pl.concat([opened.read_events(part) for part in opened.parts()])
