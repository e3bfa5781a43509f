"""Hive partitions: values of the folders `key=value` for the files below."""

from __future__ import annotations

from urllib.parse import unquote

import pyarrow as pa

from recsys.errors import DataError

#: What Hive and Spark call the folder of the rows whose key is null.
_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_keys(path: str, root: str) -> dict[str, str | None]:
    """The keys of the folders between a root and a file, outermost first; null for Hive's default.

    Args:
        path: of the file.
        root: a folder that it lies below.
    """
    keys: dict[str, str | None] = {}
    for segment in path[len(root) :].split("/")[:-1]:
        key, equals, value = segment.partition("=")
        if equals:
            keys[unquote(key)] = None if value == _NULL else unquote(value)
    return keys


def folder_column(value: str | None, field: pa.Field, num_rows: int, *, where: str) -> pa.Array:
    """A folder's value for each row of a file, as the field's type.

    Raises:
        DataError: it cannot be taken for that type.
    """
    try:
        scalar = _as(pa.scalar(value, pa.string()), field.type)
    except pa.ArrowException:
        raise folder_misfit(value, field, where=where) from None
    return pa.repeat(scalar, num_rows)


def fits(value: str | None, field: pa.Field) -> bool:
    """Whether a folder's value can be taken for the field's type."""
    try:
        _as(pa.scalar(value, pa.string()), field.type)
    except pa.ArrowException:
        return False
    return True


def folder_misfit(value: str | None, field: pa.Field, *, where: str) -> DataError:
    """That a folder's value cannot be taken for the field's type, and what to do."""
    return DataError(
        f"a folder's value is no {field.type}", where=where, field=field.name, value=value,
        fix="rename the folder",
    )  # fmt: skip


def _as(value: pa.Scalar, kind: pa.DataType) -> pa.Scalar:
    try:
        return value.cast(kind)
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(kind):
            raise
        return value.cast(pa.timestamp(kind.unit)).cast(kind)  # without a zone: UTC
