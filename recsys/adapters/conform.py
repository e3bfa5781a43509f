"""A raw table -> a canonical schema: types, order, nulls, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.adapters.times import as_utc, is_time
from recsys.errors import DataError
from recsys.schema import Col


def conform(
    table: pa.Table, schema: pa.Schema, *, where: str, required: tuple[str, ...]
) -> pa.Table:
    """Bring a raw table to a canonical schema: order, types, nulls for absent optional columns.

    Integer ids become strings, times become UTC, a list of tags is joined by commas; any other type
    than the contract's is an error.

    Returns:
        The schema's columns, and `unreadable` where there are values that their column cannot hold:
        those are null, and the text says which column it was and what stood there.

    Raises:
        DataError: a required column is missing or a column's type cannot be taken.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    unreadable: dict[str, pa.ChunkedArray] = {}
    for field in schema:
        if field.name not in table.column_names:
            if field.name in required:
                raise DataError(
                    "missing column", where=where, field=field.name,
                    value=", ".join(table.column_names),
                    mend=f"add a column `{field.name}` of type {field.type}",
                )  # fmt: skip
            columns[field.name] = pa.nulls(table.num_rows, field.type)
            continue
        try:
            column, texts = _cast(table[field.name], field, where)
            column.validate(full=True)
        except pa.ArrowException as error:
            raise DataError(
                f"a value cannot be read as {field.type}: {error}", where=where, field=field.name,
                mend="correct the values, or write the column as null where they are unknown",
            ) from None  # fmt: skip
        columns[field.name] = column
        if texts is not None:
            unreadable[field.name] = pc.binary_join_element_wise(
                f"{field.name}: ", texts, f" cannot be read as {field.type}", ""
            )
    return pa.table(columns | _first(unreadable))


def _first(unreadable: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """Of each row the first column's text: a row is quarantined for one reason."""
    return {Col.unreadable: pc.coalesce(*unreadable.values())} if unreadable else {}


def _cast(
    column: pa.ChunkedArray, field: pa.Field, where: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The column as the field's type, and texts of the values that it cannot hold, if any."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind) or kind == field.type:
        return column.cast(field.type), None
    wanted = field.type
    if pa.types.is_string(wanted):
        if _is_text(kind) or (pa.types.is_integer(kind) and field.name.endswith("_id")):
            return column.cast(pa.string()), None
        if field.name == Col.tags and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            joined = pl.Series(column).cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
            return pa.chunked_array([joined.to_arrow().cast(pa.string())]), None
    elif pa.types.is_timestamp(wanted) and is_time(kind):
        return as_utc(column)
    elif (pa.types.is_integer(wanted) and pa.types.is_integer(kind)) or (
        pa.types.is_floating(wanted) and _is_number(kind)
    ):
        # Large numbers may be rounded; nothing may overflow.
        return column.cast(options=pc.CastOptions(wanted, allow_float_truncate=True)), None
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
