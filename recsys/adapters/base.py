"""What every adapter does: list the raw log's parts, read one part, read the items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col

#: Rows a task reads at most, in whole row groups.
ROWS_PER_PART = 2_000_000


@dataclass(frozen=True)
class Part:
    """A piece of the raw log that one task reads: row groups [first, last) of a file."""

    path: str
    first_group: int
    last_group: int
    num_rows: int


class Adapter(Protocol):
    """Raw files -> canonical columns. Row checks come afterwards and are not its business."""

    def parts(self) -> list[Part]:
        """The log's parts, in a fixed order; raises DataError if there is no usable file."""
        ...

    def read_events(self, part: Part) -> pl.DataFrame:
        """The part's rows in the columns of `schema.EVENTS`, bad rows included."""
        ...

    def read_items(self) -> pl.DataFrame:
        """All items in the columns of `schema.ITEMS`."""
        ...


def split_into_parts(path: str, group_rows: list[int]) -> list[Part]:
    """Consecutive row groups of a file, gathered into parts of about `ROWS_PER_PART` rows."""
    parts, first, rows = [], 0, 0
    for group, num_rows in enumerate(group_rows):
        if rows and rows + num_rows > ROWS_PER_PART:
            parts.append(Part(path, first, group, rows))
            first, rows = group, 0
        rows += num_rows
    if rows:
        parts.append(Part(path, first, len(group_rows), rows))
    return parts


def conform(
    table: pa.Table, schema: pa.Schema, *, where: str, required: tuple[str, ...]
) -> pa.Table:
    """Bring a raw table to a canonical schema: order, types, nulls for absent optional columns.

    Integer ids become strings, naive timestamps count as UTC, a list of tags is joined by commas;
    any other type than the contract's is an error.

    Raises:
        DataError: a required column is missing or a column's type cannot be taken.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            if field.name in required:
                raise DataError(
                    "missing column", where=where, field=field.name,
                    value=", ".join(table.column_names),
                    mend=f"add a column `{field.name}` of type {field.type}",
                )  # fmt: skip
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(_cast(table[field.name], field, where))
            columns[-1].validate(full=True)
        except pa.ArrowException as error:
            raise DataError(
                f"a value cannot be read as {field.type}: {error}", where=where, field=field.name,
                mend="correct the values, or write the column as null where they are unknown",
            ) from None  # fmt: skip
    return pa.table(columns, names=schema.names)


def _cast(column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind) or kind == field.type:
        return column.cast(field.type)
    wanted = field.type
    if pa.types.is_string(wanted):
        if _is_text(kind) or (pa.types.is_integer(kind) and field.name.endswith("_id")):
            return column.cast(pa.string())
        if field.name == Col.tags and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            joined = pl.Series(column).cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
            return pa.chunked_array([joined.to_arrow().cast(pa.string())])
    elif (
        (pa.types.is_timestamp(wanted) and pa.types.is_timestamp(kind))
        or (pa.types.is_integer(wanted) and pa.types.is_integer(kind))
        or (pa.types.is_floating(wanted) and _is_number(kind))
    ):
        # Nanoseconds may be cut to microseconds and large numbers rounded; nothing may overflow.
        options = pc.CastOptions(wanted, allow_time_truncate=True, allow_float_truncate=True)
        return column.cast(options=options)
    raise DataError(
        f"wrong type: {column.type} where {wanted} is needed", where=where, field=field.name,
        mend=f"write the column as {wanted}",
    )  # fmt: skip


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


EVENTS_NEEDED = (Col.user, Col.item, Col.event_type, Col.timestamp)
ITEMS_NEEDED = (Col.item,)

__all__ = [
    "EVENTS", "EVENTS_NEEDED", "ITEMS", "ITEMS_NEEDED", "Adapter", "Part", "conform",
    "split_into_parts",
]  # fmt: skip
