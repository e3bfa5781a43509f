"""Your own Parquet in canonical columns.

Files or folders, hive-partitioned or not, local or in an object store.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import fs

from recsys.adapters.base import EVENTS_NEEDED, ITEMS_NEEDED, Part, Scan, split_into_parts
from recsys.adapters.conform import conform
from recsys.adapters.foreign import ForeignFile
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
            found += split_into_parts(path, self._open(path).group_rows)
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
        groups = list(range(part.first_group, part.last_group))
        table = self._read(self._open(part.path), EVENTS, groups)
        return pl.DataFrame(conform(table, EVENTS, where=part.path, required=EVENTS_NEEDED))

    def read_items(self) -> pl.DataFrame:
        """See `Adapter`."""
        tables = []
        for path in self._listing("items").files:
            table = self._read(self._open(path), ITEMS, None)
            tables.append(conform(table, ITEMS, where=path, required=ITEMS_NEEDED))
        return pl.DataFrame(pa.concat_tables(tables, promote_options="default"))

    def _listing(self, table: str) -> Listing:
        if table not in self._listings:
            self._listings[table] = list_table(self._fs, self._root, table, source=self._source)
        return self._listings[table]

    def _open(self, path: str) -> ForeignFile:
        return ForeignFile(self._fs, path)

    def _read(self, file: ForeignFile, schema: pa.Schema, groups: list[int] | None) -> pa.Table:
        for name in schema.names:
            if file.is_twice(name):
                raise DataError(
                    "two columns of this name", where=file.path, field=name,
                    mend="write the file with one of them",
                )  # fmt: skip
        wanted = [name for name in schema.names if name in file.types]
        table = file.read(wanted, groups)
        for key, value in folder_keys(file.path, self._root).items():
            if key in schema.names and key not in wanted:
                field = schema.field(key)
                column = folder_column(value, field, table.num_rows, where=file.path)
                table = table.append_column(key, column)
        return table


__all__ = ["CanonicalAdapter", "Col"]
