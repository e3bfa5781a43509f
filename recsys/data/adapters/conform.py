"""A raw table -> a canonical schema: types, order, nulls, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.adapters.text import as_text, id_kind, is_text, plain, why_no_id
from recsys.data.adapters.times import as_utc, is_time
from recsys.errors import DataError
from recsys.schema import Col

#: What these hold must not stand in a quarantine, readable or not.
_PRIVATE = (Col.user, Col.session, Col.request, Col.context)


def conform(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Bring a raw table to a canonical schema: order, types, nulls for columns that are not there.

    Ids become text (see `text`), times become UTC (see `times`), a list of tags is joined by
    commas; any other type than the contract's is an error.

    Returns:
        The schema's columns, and `unreadable` where there are values that their column cannot hold:
        those are null, and the text says which column it was and what stood there.

    Raises:
        DataError: a column's type, or a value that is no id, text or time, cannot be taken.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    unreadable: dict[str, pa.ChunkedArray] = {}
    for field in schema:
        name = field.name
        if name not in table.column_names:
            columns[name] = pa.nulls(table.num_rows, field.type)
            continue
        if problem := wrong_type(field, table.schema.field(name).type, where=where):
            raise problem
        try:
            columns[name], texts = _cast(table[name], field)
        except (pa.ArrowException, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"a value cannot be read as {field.type}: {error}", where=where, field=name,
                fix="correct the values, or write the column as null where they are unknown",
            ) from None  # fmt: skip
        if texts is not None:
            unreadable[name] = _told(texts, field)
    return pa.table(columns | _first(unreadable))


def wrong_type(field: pa.Field, kind: pa.DataType, *, where: str) -> DataError | None:
    """Why a column of a foreign type cannot become a canonical field, if it cannot."""
    kind, wanted, is_id = plain(kind), field.type, field.name.endswith("_id")
    takes = pa.types.is_null(kind) or kind == wanted
    if pa.types.is_string(wanted):
        takes |= is_text(kind) or (is_id and id_kind(kind) is not None)
        takes |= field.name == Col.tags and _is_list(kind)
    elif pa.types.is_timestamp(wanted):
        takes |= is_time(kind)
    elif pa.types.is_integer(wanted):
        takes |= pa.types.is_integer(kind)
    elif pa.types.is_floating(wanted):
        takes |= _is_number(kind)
    if takes:
        return None
    why = why_no_id(kind) if is_id else ""
    fix = f"write the column as {wanted}"
    if is_id:
        fix += ", integer or UUID: as what the ids were made, and not from the rounded values"
    return DataError(
        f"wrong type: {kind} where {wanted} is needed{why}", where=where, field=field.name,
        fix=fix,
    )  # fmt: skip


def _cast(
    column: pa.ChunkedArray, field: pa.Field
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """A column of a type that fits as the field's, and texts of the values that it cannot hold."""
    kind, wanted = plain(column.type), field.type
    if pa.types.is_string(wanted) and not pa.types.is_null(kind):
        if _is_list(kind):
            joined = pl.Series(column).cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
            return pa.chunked_array([joined.to_arrow().cast(pa.string())]), None
        return as_text(column)
    if kind != column.type:
        column = column.cast(kind)
    column.validate(full=True)
    if pa.types.is_timestamp(wanted) and is_time(kind):
        return as_utc(column)
    # Large numbers may be rounded; nothing may overflow.
    return column.cast(options=pc.CastOptions(wanted, allow_float_truncate=True)), None


def _told(texts: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """What stood where a value could not be read: the column, the value, the type it should be."""
    if field.name in _PRIVATE:
        texts = pc.if_else(pc.is_valid(texts), "a value", texts)
    return pc.binary_join_element_wise(
        f"{field.name}: ", texts, f" cannot be read as {_spoken(field.type)}", ""
    )


def _spoken(kind: pa.DataType) -> str:
    return f"{kind} (UTF-8)" if pa.types.is_string(kind) else str(kind)


def _first(unreadable: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """Of each row the first column's text: a row is quarantined for one reason."""
    return {Col.unreadable: pc.coalesce(*unreadable.values())} if unreadable else {}


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
