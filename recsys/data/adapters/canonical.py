"""Your own Parquet: in canonical columns, or in yours by the recipe's `data.columns`.

Files or folders, hive-partitioned or not, local or in an object store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import fs

from recsys.config import Data
from recsys.data.adapters.base import (
    EVENTS_NEEDED,
    ITEMS_NEEDED,
    Items,
    Part,
    Scan,
    split_into_parts,
)
from recsys.data.adapters.columns import (
    Layout,
    layout_problems,
    mapping_of,
    overlooked,
    unmapped,
)
from recsys.data.adapters.conform import conform
from recsys.data.adapters.foreign import ForeignFile
from recsys.data.adapters.hive import fits, folder_column, folder_keys, folder_misfit
from recsys.data.adapters.listing import Listing, file_version, list_table
from recsys.data.adapters.snapshots import (
    joined_newness,
    latest_rows,
    merge_snapshots,
    newness_problem,
    snapshot_ranks,
)
from recsys.data.adapters.spellings import IdFiles
from recsys.data.adapters.text import plain
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col

_BESIDE = "beside"
_SCHEMAS = {"events": (EVENTS, EVENTS_NEEDED), "items": (ITEMS, ITEMS_NEEDED)}


class CanonicalAdapter:
    """Reads `<source>/events` and `<source>/items`, or `events.parquet` and `items.parquet` there.

    The first two are folders of Parquet files, nested or not; see `listing`. A hive folder
    `key=value` gives its files the column `key`, unless the file holds it itself.
    """

    def __init__(self, data: Data) -> None:
        assert data.source is not None  # the recipe checks it
        self._source, self._data = data.source, data
        location = (
            data.source if "://" in data.source else str(Path(data.source).expanduser().absolute())
        )
        try:
            self._fs, self._root = fs.FileSystem.from_uri(location)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"cannot open the source: {error}", where="recipe", field="data.source",
                value=data.source, fix="give a folder or a URI such as s3://bucket/log",
            ) from None  # fmt: skip
        self._root = self._root.rstrip("/") or "/"
        self._listings: dict[str, Listing] = {}

    def parts(self) -> list[Part]:
        """One part for each file, more for a large one."""
        found = self._scan("events")
        if found.problems:
            raise found.problems[0]
        return found.parts

    def scan(self) -> Scan:
        """See `Adapter`."""
        events, items = self._scan("events"), self._scan("items")
        return Scan(
            events.parts,
            events.left_out | items.left_out,
            # What is wrong with the source as a whole is found by both.
            [*{str(each): each for each in events.problems + items.problems}.values()],
            events.warnings + items.warnings,
            events.broken | items.broken,
            events.id_files + items.id_files,
        )

    def read_events(self, part: Part) -> pl.DataFrame:
        """See `Adapter`."""
        file = ForeignFile(self._fs, part.path)
        return pl.DataFrame(self._read(file, "events", _groups(part)))

    def version(self, path: str) -> str:
        """See `Adapter`."""
        return file_version(self._fs.get_file_info(path))

    def read_needed(self, part: Part) -> pl.DataFrame:
        """See `Adapter`."""
        file = ForeignFile(self._fs, part.path)
        layout = self._layout(file)
        readable = layout.readable(EVENTS, self._renamed("events"))
        misfits = self._misfits(part.path, layout, "events")
        wanted = {
            name: readable[name]
            for name in EVENTS_NEEDED
            if name in readable and name not in misfits
        }
        table = self._columns(file, wanted, EVENTS, _groups(part))
        schema = pa.schema([EVENTS.field(name) for name in wanted])
        return pl.DataFrame(conform(table, schema, where=part.path))

    def read_items(self) -> Items:
        """See `Adapter`. What is newer, `data.items_by` says, else the folders; see `snapshots`."""
        paths = self._listing("items").files
        if (by := self._data.items_by) is not None:
            read = [
                self._read(ForeignFile(self._fs, path), "items", None, beside=by) for path in paths
            ]
            newness = joined_newness([table[_BESIDE] for table in read])
            tables = [table.drop([_BESIDE]) for table in read]
            rows = pa.concat_tables(tables, promote_options="default")
            return latest_rows(pl.DataFrame(rows), newness)
        snapshots: dict[int, list[str]] = {}
        for path, rank in zip(paths, self._ranks(paths), strict=True):
            snapshots.setdefault(rank, []).append(path)
        return merge_snapshots(self._items_of(snapshots[rank]) for rank in sorted(snapshots)[::-1])

    def _ranks(self, paths: list[str]) -> list[int]:
        """How new the items of each file are, by the folders whose keys are no columns of ours."""
        ours = {*ITEMS.names, *self._data.columns.items.values()}
        keys = [folder_keys(path, self._root) for path in paths]
        return snapshot_ranks(
            [{key: value for key, value in each.items() if key not in ours} for each in keys]
        )

    def _items_of(self, paths: list[str]) -> pl.DataFrame:
        tables = [self._read(ForeignFile(self._fs, path), "items", None) for path in paths]
        return pl.DataFrame(pa.concat_tables(tables, promote_options="default"))

    def _scan(self, table: str) -> Scan:
        """One table's part of `scan`."""
        try:
            listing = self._listing(table)
        except DataError as error:
            return Scan([], problems=[error], broken=frozenset({table}))
        parts: list[Part] = []
        problems: list[DataError] = []
        layouts, first = Counter[Layout](), dict[Layout, str]()
        misfits = dict[tuple[str, str], list[str]]()
        for path in listing.files:
            try:
                file = ForeignFile(self._fs, path)
            except DataError as error:
                problems.append(error)
                continue
            layout = self._layout(file)
            for pair in self._misfits(path, layout, table).items():
                misfits.setdefault(pair, []).append(path)
            layouts[layout] += 1
            first.setdefault(layout, path)
            parts += split_into_parts(path, file.group_rows)
        for layout, count in layouts.items():
            where = f"{first[layout]}{_more(count, 'files of these columns')}"
            problems += self._problems(layout, table, where)
        for (ours, theirs), paths in misfits.items():
            where = f"{paths[0]}{_more(len(paths), 'files')}"
            value = folder_keys(paths[0], self._root)[theirs]
            problems.append(folder_misfit(value, _SCHEMAS[table][0].field(ours), where=where))
        misnamed, warnings = self._names(table, layouts)
        problems += misnamed
        if table == "events":
            warnings += self._dates(layouts, first)
        if table == "events" and not parts and not problems:
            problems.append(
                DataError(
                    "the log holds no rows",
                    where=f"{self._source}/events",
                    fix="point data.source at a log with events",
                )  # fmt: skip
            )
        id_files = [
            IdFiles(column, kind, count, first[layout])
            for layout, count in layouts.items()
            for column, kind in layout.id_kinds(_SCHEMAS[table][0], self._renamed(table)).items()
        ]
        broken = frozenset({table}) if problems else frozenset[str]()
        return Scan(parts, {table: listing.left_out}, problems, warnings, broken, id_files)

    def _names(self, table: str, layouts: Counter[Layout]) -> tuple[list[DataError], list[str]]:
        """What is wrong with the names of all files together, and what may be."""
        schema, renamed = _SCHEMAS[table][0], self._renamed(table)
        there = list(dict.fromkeys(name for layout in layouts for name in layout.names))
        sources = dict[str, str]()
        for layout in layouts:
            sources |= layout.sources(schema, renamed)
        problems = unmapped(renamed, there, table=table) if layouts else []
        fields = self._data.text_fields
        if table == "items" and layouts and not set(fields) & set(sources):
            free = [name for name in there if name not in sources.values()]
            mapping = mapping_of(fields[:1], free, table=table)
            problems.append(
                DataError(
                    f"no text: none of the columns {', '.join(fields)} is there",
                    where=f"{self._source} (items)",
                    field="data.text_fields",
                    value=", ".join(there),
                    fix=f"name yours in the recipe, {mapping}, or add a column `{fields[0]}`",
                )  # fmt: skip
            )
        if table == "items" and layouts and (by := self._data.items_by) is not None:
            kinds = [dict(layout.types).get(by) for layout in layouts if by in layout.names]
            wrong = newness_problem(by, kinds, there, where=f"{self._source} (items)")
            problems += [wrong] if wrong else []
        return problems, overlooked(there, sources, schema, table=table)

    def _dates(self, layouts: Counter[Layout], first: Mapping[Layout, str]) -> list[str]:
        """Which files know of an event's time no more than the day."""
        lines = []
        for layout, count in layouts.items():
            theirs = layout.sources(EVENTS, self._renamed("events")).get(Col.timestamp, "")
            kind = dict(layout.types).get(theirs, pa.null())
            if pa.types.is_date(plain(kind)):
                lines.append(
                    f"`{theirs}` is a date in {count:,} file{'s' if count > 1 else ''} "
                    f"({first[layout]}): a user's events of a day are one moment, without an order"
                )
        return lines

    def _listing(self, table: str) -> Listing:
        if table not in self._listings:
            self._listings[table] = list_table(self._fs, self._root, table, source=self._source)
        return self._listings[table]

    def _renamed(self, table: str) -> dict[str, str]:
        columns = self._data.columns
        return columns.events if table == "events" else columns.items

    def _layout(self, file: ForeignFile) -> Layout:
        keys = folder_keys(file.path, self._root)
        return Layout(tuple(file.types.items()), tuple(keys), file.twice)

    def _problems(self, layout: Layout, table: str, where: str) -> list[DataError]:
        schema, needed = _SCHEMAS[table]
        renamed = self._renamed(table)
        return layout_problems(layout, schema, renamed, needed, table=table, where=where)

    def _misfits(self, path: str, layout: Layout, table: str) -> dict[str, str]:
        """Our columns, and their keys, of which a file's folder has a value of another type."""
        schema, held = _SCHEMAS[table][0], dict(layout.types)
        keys = folder_keys(path, self._root)
        return {
            ours: theirs
            for ours, theirs in layout.sources(schema, self._renamed(table)).items()
            if theirs not in held and not fits(keys[theirs], schema.field(ours))
        }

    def _read(
        self, file: ForeignFile, table: str, groups: list[int] | None, *, beside: str | None = None
    ) -> pa.Table:
        """Row groups of a file (None: all) in the columns of the table's schema.

        Args:
            file: to be read.
            table: `events` or `items`.
            groups: row groups.
            beside: one more column, of theirs, as it stands there, under the name `_BESIDE`; null
                where it is not.
        """
        layout = self._layout(file)
        for problem in self._problems(layout, table, file.path):
            raise problem
        schema = _SCHEMAS[table][0]
        sources = layout.sources(schema, self._renamed(table))
        if beside is None:
            return conform(self._columns(file, sources, schema, groups), schema, where=file.path)
        extended = schema.append(pa.field(_BESIDE, pa.string()))
        raw = self._columns(file, sources | {_BESIDE: beside}, extended, groups)
        canonical = conform(raw.drop([_BESIDE]), schema, where=file.path)
        return canonical.append_column(_BESIDE, raw[_BESIDE])

    def _columns(
        self,
        file: ForeignFile,
        sources: Mapping[str, str],
        schema: pa.Schema,
        groups: list[int] | None,
    ) -> pa.Table:
        """Columns and folder keys of a file under our names, still of their own types."""
        held = [name for name in dict.fromkeys(sources.values()) if name in file.types]
        rows, keys = file.read(held, groups), folder_keys(file.path, self._root)

        def column(ours: str, theirs: str) -> pa.Array | pa.ChunkedArray:
            if theirs in held:
                return rows[theirs]
            field = schema.field(ours)
            return folder_column(keys.get(theirs), field, rows.num_rows, where=file.path)

        return pa.table({ours: column(ours, theirs) for ours, theirs in sources.items()})


def _more(count: int, what: str) -> str:
    return f" (and {count - 1:,} more {what})" if count > 1 else ""


def _groups(part: Part) -> list[int]:
    return list(range(part.first_group, part.last_group))
