"""Parquet files that others wrote, opened and read in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from recsys.errors import DataError
from recsys.storage.faults import Fault, arrow_fault
from recsys.storage.location import CREDENTIALS, see_that_it_runs
from recsys.storage.patience import patiently

#: First bytes of a file that was packed as a whole -> of what kind, and what unpacks it.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
_FIX = "write the file again or remove it"


def open_foreign(source: Path | Any) -> pq.ParquetFile:
    """A Parquet file that is not ours: a path, or a file of `pyarrow.fs`.

    INT96, for years Spark's type of timestamps, is read in microseconds: in nanoseconds, Arrow's
    default, a year beyond 2262 turns into another one without a word.

    Raises:
        pyarrow.ArrowException, OSError: it is no readable Parquet file.
    """
    return pq.ParquetFile(source, coerce_int96_timestamp_unit="us")


class ForeignFile:
    """One Parquet file of a log, opened: its columns' types, and their values on demand."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        """Read the footer.

        Raises:
            DataError: it is no readable Parquet file.
        """
        self.path = path
        try:
            self._file = patiently(lambda: open_foreign(filesystem.open_input_file(path)), may_pass)
        except (pa.ArrowException, OSError) as error:
            tell_of_the_store(error, path)
            problem, fix = _why_unreadable(_head(filesystem, path), error)
            raise DataError(problem, where=path, fix=fix) from None
        # Arrow before 21 leaves UUIDs that no Arrow schema tells of as bytes.
        columns = (self._file.schema.column(n) for n in range(len(self._file.schema.names)))
        self._uuids = {each.path for each in columns if each.logical_type.type == "UUID"}
        #: Column -> Arrow type. Of two columns of one name it tells the last.
        self.types: dict[str, pa.DataType] = {
            each.name: pa.uuid() if each.name in self._uuids else each.type
            for each in self._file.schema_arrow
        }
        names = self._file.schema_arrow.names
        #: Names that more than one column has.
        self.twice = tuple(name for name in self.types if names.count(name) > 1)

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        metadata = self._file.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def read(self, columns: list[str], groups: list[int] | None = None) -> pa.Table:
        """Columns of some row groups (all by default).

        Raises:
            DataError: the data are corrupt.
        """
        try:
            table = patiently(
                lambda: (
                    self._file.read(columns)
                    if groups is None
                    else self._file.read_row_groups(groups, columns)
                ),
                may_pass,
            )
        except (pa.ArrowException, OSError) as error:
            tell_of_the_store(error, self.path)
            raise DataError(f"corrupt Parquet data: {error}", where=self.path, fix=_FIX) from None
        for name in self._uuids & set(table.column_names):
            if table[name].type != pa.uuid():
                at = table.column_names.index(name)
                table = table.set_column(at, name, _as_uuids(table[name]))
        return table


def may_pass(error: Exception) -> bool:
    """Whether an error is of a store that does not answer now."""
    return arrow_fault(error) is Fault.PASSING


def tell_of_the_store(error: Exception, where: str) -> None:
    """Raise an error of the store as what it is: the file may be whole.

    Raises:
        DataError: it is one of the store's.
    """
    fault = arrow_fault(error)
    if fault is Fault.PASSING:
        raise DataError(
            f"the store does not answer: {error}", where=where, field="data.source",
            fix=see_that_it_runs(),
        ) from None  # fmt: skip
    if fault is not Fault.OTHER:
        raise DataError(
            f"the store lets us not read: {error}", where=where, field="data.source",
            fix="correct it, or give credentials that may read there: "
            + CREDENTIALS["s3"],
        ) from None  # fmt: skip


def _as_uuids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = pa.uuid()
    plain = column.cast(kind.storage_type)
    return pa.chunked_array([pa.ExtensionArray.from_storage(kind, c) for c in plain.chunks], kind)


def _head(filesystem: fs.FileSystem, path: str) -> bytes:
    try:
        with filesystem.open_input_file(path) as file:
            return bytes(file.read(4))
    except OSError:
        return b"?"  # it cannot be opened at all


def _why_unreadable(head: bytes, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that is no Parquet, by its first bytes, and the fix."""
    problem = "not a readable Parquet file: "
    if not head:
        return problem + "it is empty (0 bytes)", _FIX
    for magic, (kind, command) in _PACKED.items():
        if head.startswith(magic):
            fix = f"unpack it ({command}): Parquet packs its columns itself, not the whole file"
            return f"{problem}it is a {kind} file", fix
    return f"{problem}{error}", _FIX
