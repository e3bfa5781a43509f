"""Your own Parquet in canonical columns.

Files or folders, hive-partitioned or not, local or in an object store.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from recsys.adapters.base import EVENTS_NEEDED, ITEMS_NEEDED, Part, split_into_parts
from recsys.adapters.conform import conform
from recsys.adapters.foreign import open_foreign
from recsys.config import Data
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col


class CanonicalAdapter:
    """Reads `<source>/events` and `<source>/items`, or `events.parquet` and `items.parquet` there.

    The first two are folders of Parquet files, nested or not. A hive folder `key=value` gives its
    files the column `key`, unless the file holds it itself.
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

    def parts(self) -> list[Part]:
        """One part for each file, more for a large one."""
        found = []
        for path in self._files("events"):
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

    def read_events(self, part: Part) -> pl.DataFrame:
        """See `Adapter`."""
        file = self._open(part.path)
        table = self._read(file, part.path, EVENTS, list(range(part.first_group, part.last_group)))
        return pl.DataFrame(conform(table, EVENTS, where=part.path, required=EVENTS_NEEDED))

    def read_items(self) -> pl.DataFrame:
        """See `Adapter`."""
        tables = []
        for path in self._files("items"):
            table = self._read(self._open(path), path, ITEMS, None)
            tables.append(conform(table, ITEMS, where=path, required=ITEMS_NEEDED))
        return pl.DataFrame(pa.concat_tables(tables, promote_options="default"))

    def _files(self, name: str) -> list[str]:
        single = f"{self._root}/{name}.parquet"
        if self._fs.get_file_info(single).type == fs.FileType.File:
            return [single]
        selector = fs.FileSelector(f"{self._root}/{name}", recursive=True, allow_not_found=True)
        files = sorted(
            info.path
            for info in self._fs.get_file_info(selector)
            if info.type == fs.FileType.File and info.path.endswith(".parquet")
            and not Path(info.path).name.startswith(("_", "."))
        )  # fmt: skip
        if not files:
            raise DataError(
                f"no Parquet file found: neither {name}.parquet nor {name}/**/*.parquet",
                where=self._source, field="data.source",
                mend=f"put the {name} there, or correct data.source",
            )  # fmt: skip
        return files

    def _open(self, path: str) -> pq.ParquetFile:
        try:
            return open_foreign(self._fs.open_input_file(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"not a readable Parquet file: {error}",
                where=path,
                mend="write the file again or remove it",
            ) from None

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
        for segment in path[len(self._root) :].split("/")[:-1]:
            key, equals, value = segment.partition("=")
            if equals and key in schema.names and key not in wanted:
                column = pa.array([unquote(value)] * table.num_rows, pa.string())
                table = table.append_column(key, _from_folder(column, key, schema, path))
        return table


def _from_folder(column: pa.Array, key: str, schema: pa.Schema, path: str) -> pa.Array:
    try:
        return column.cast(schema.field(key).type)
    except pa.ArrowException:
        raise DataError(
            f"a folder's value is no {schema.field(key).type}", where=path, field=key,
            value=column[0].as_py() if len(column) else None, mend="rename the folder",
        ) from None  # fmt: skip


__all__ = ["CanonicalAdapter", "Col"]
