"""Parquet files that others wrote, opened in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def open_foreign(source: Path | Any) -> pq.ParquetFile:
    """A Parquet file that is not ours: a path, or a file of `pyarrow.fs`.

    INT96, for years Spark's type of timestamps, is read in microseconds: in nanoseconds, Arrow's
    default, a year beyond 2262 turns into another one without a word.

    Raises:
        pyarrow.ArrowException, OSError: it is no readable Parquet file.
    """
    return pq.ParquetFile(source, coerce_int96_timestamp_unit="us")
