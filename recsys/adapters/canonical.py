"""Your own Parquet in canonical columns.

Files or folders, hive-partitioned or not, local or in an object store.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from recsys.adapters.base import EVENTS_NEEDED, ITEMS_NEEDED, Part, Scan, split_into_parts
from recsys.adapters.conform import conform
from recsys.adapters.foreign import open_foreign, why_unreadable
from recsys.adapters.hive import folder_column, folder_keys
from recsys.adapters.listing import Listing, list_table
from recsys.config import Data
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col


class CanonicalAdapter:
    """Reads `<source>/events` and `<source>/items`, or `events.parquet` and `items.parquet` there.

    The first two are folders of Parquet files, nested or not; see `listing`. A hive folder
    `key=value` gives its files the column `key`, unless the file holds it itself.
    """

    def __init__(self, data: Data) -> None:
        assert data.source is not None  # the recipe checks it
        self._source = data.source
        location = (
            data.source if "://" in data.source else str(Path(data.source).expanduser().absolute())
        )
        try:
            self._fs, self._root = fs.FileSystem.from_uri(location)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"cannot open the source: {error}", where="recipe", field="data.source",
                value=data.source, mend="give a folder or a URI such as s3://bucket/log",
            ) from None  # fmt: skip
        self._root = self._root.rstrip("/") or "/"
        self._listings: dict[str, Listing] = {}

    def parts(self) -> list[Part]:
        """One part for each file, more for a large one."""
        found = []
        for path in self._listing("events").files:
            metadata = self._open(path).metadata
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            found += split_into_parts(path, rows)
        if not found:
            raise DataError(
                "the log holds no rows",
                where=f"{self._source}/events",
                mend="point data.source at a log with events",
            )
        return found

    def scan(self) -> Scan:
        """See `Adapter`."""
        parts: list[Part] = []
        left_out, problems = {}, []
        for table in ("events", "items"):
            try:
                left_out[table] = self._listing(table).left_out
                if table == "events":
                    parts = self.parts()
            except DataError as error:
                problems.append(error)
        return Scan(parts, left_out, problems)

    def read_events(self, part: Part) -> pl.DataFrame:
        """See `Adapter`."""
        file = self._open(part.path)
        table = self._read(file, part.path, EVENTS, list(range(part.first_group, part.last_group)))
        return pl.DataFrame(conform(table, EVENTS, where=part.path, required=EVENTS_NEEDED))

    def read_items(self) -> pl.DataFrame:
        """See `Adapter`."""
        tables = []
        for path in self._listing("items").files:
            table = self._read(self._open(path), path, ITEMS, None)
            tables.append(conform(table, ITEMS, where=path, required=ITEMS_NEEDED))
        return pl.DataFrame(pa.concat_tables(tables, promote_options="default"))

    def _listing(self, table: str) -> Listing:
        if table not in self._listings:
            self._listings[table] = list_table(self._fs, self._root, table, source=self._source)
        return self._listings[table]

    def _open(self, path: str) -> pq.ParquetFile:
        try:
            return open_foreign(self._fs.open_input_file(path))
        except (pa.ArrowException, OSError) as error:
            problem, mend = why_unreadable(self._head(path), error)
            raise DataError(problem, where=path, mend=mend) from None

    def _head(self, path: str) -> bytes:
        try:
            with self._fs.open_input_file(path) as file:
                return bytes(file.read(4))
        except OSError:
            return b"?"  # it cannot be opened at all

    def _read(
        self, file: pq.ParquetFile, path: str, schema: pa.Schema, groups: list[int] | None
    ) -> pa.Table:
        present = file.schema_arrow.names
        for name in schema.names:
            if present.count(name) > 1:
                raise DataError(
                    "two columns of this name", where=path, field=name,
                    mend="write the file with one of them",
                )  # fmt: skip
        wanted = [name for name in schema.names if name in present]
        try:
            table = file.read(wanted) if groups is None else file.read_row_groups(groups, wanted)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"corrupt Parquet data: {error}",
                where=path,
                mend="write the file again or remove it",
            ) from None
        for key, value in folder_keys(path, self._root).items():
            if key in schema.names and key not in wanted:
                column = folder_column(value, schema.field(key), table.num_rows, where=path)
                table = table.append_column(key, column)
        return table


__all__ = ["CanonicalAdapter", "Col"]
