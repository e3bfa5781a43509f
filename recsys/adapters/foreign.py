"""Parquet files that others wrote, opened in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

#: First bytes of a file that was packed as a whole -> of what kind, and what unpacks it.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}


def open_foreign(source: Path | Any) -> pq.ParquetFile:
    """A Parquet file that is not ours: a path, or a file of `pyarrow.fs`.

    INT96, for years Spark's type of timestamps, is read in microseconds: in nanoseconds, Arrow's
    default, a year beyond 2262 turns into another one without a word.

    Raises:
        pyarrow.ArrowException, OSError: it is no readable Parquet file.
    """
    return pq.ParquetFile(source, coerce_int96_timestamp_unit="us")


def why_unreadable(head: bytes, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that is no Parquet, and the mend.

    Args:
        head: the file's first bytes; none if it is empty.
        error: what Arrow said.
    """
    problem = "not a readable Parquet file: "
    if not head:
        return problem + "it is empty (0 bytes)", "write the file again or remove it"
    for magic, (kind, command) in _PACKED.items():
        if head.startswith(magic):
            mend = f"unpack it ({command}): Parquet packs its columns itself, not the whole file"
            return f"{problem}it is a {kind} file", mend
    return f"{problem}{error}", "write the file again or remove it"
