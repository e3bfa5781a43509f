"""Ids and texts as foreign files hold them -> text as a request over HTTP would write it.

A UUID is lower case with dashes, a whole number its digits, bytes are UTF-8. A float is no id:
above 2^53 it is rounded, and `7` and `7.0` are two spellings of one.
"""

from __future__ import annotations

from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

IdKind = Literal["integer", "text", "UUID"]
_TEXTS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
    pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
)  # fmt: skip
_SHOWN_BYTES = 64


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, out of a dictionary or an extension type; UUIDs stay."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid():
        return plain(kind.storage_type)
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this plain type holds text: strings, or bytes that should be UTF-8."""
    return any(holds(kind) for holds in _TEXTS)


def id_kind(kind: pa.DataType) -> IdKind | None:
    """What ids of this plain type are; None: it cannot hold ids."""
    if kind == pa.uuid():
        return "UUID"
    if is_text(kind):
        return "text"
    whole = pa.types.is_decimal(kind) and kind.scale == 0
    return "integer" if pa.types.is_integer(kind) or whole else None


def why_no_id(kind: pa.DataType) -> str:
    """Why a plain type cannot hold ids, as the end of a sentence; empty if that needs no words."""
    if pa.types.is_floating(kind):
        return ": floats above 2^53 are rounded, and `7` and `7.0` are two spellings of one id"
    if pa.types.is_decimal(kind):
        return ": with digits behind the point `7` and `7.00` are two spellings of one id"
    return ""


def as_text(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Ids or texts of any type that `id_kind` knows, as strings.

    Returns:
        [N] `string`, checked, null where bytes are no UTF-8; and [N] those bytes as text, null
        elsewhere; None where there are none.

    Raises:
        pyarrow.ArrowException: the data are corrupt.
    """
    kind = plain(column.type)
    if kind != column.type:
        column = column.cast(kind)
    if kind == pa.uuid():
        return _dashed(column), None
    if not is_text(kind):
        return column.cast(pa.string()), None
    try:
        text = column.cast(pa.string())  # of bytes this checks, of strings the next line does
        text.validate(full=True)
        return text, None
    except pa.ArrowInvalid:
        return _utf8(column)


def _dashed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    digits = pl.Series(column.cast(pa.binary(16)).cast(pa.large_binary())).bin.encode("hex")
    pieces, at = [], 0
    for length in (8, 4, 4, 4, 12):
        pieces.append(pl.col("id").str.slice(at, length))
        at += length
    ids = pl.DataFrame({"id": digits}).select(pl.concat_str(pieces, separator="-"))
    return pa.chunked_array([ids.to_series().to_arrow().cast(pa.string())])


def _utf8(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Bytes or strings of which some are no UTF-8; each distinct one of those is looked at once."""
    raw = column.cast(pa.large_binary())
    raw.validate(full=True)
    bad = pa.array(
        [each for each in raw.unique().to_pylist() if each is not None and not _is_utf8(each)],
        raw.type,
    )
    at = pc.index_in(raw, value_set=bad)
    text = pc.if_else(pc.is_valid(at), pa.scalar(None, raw.type), raw).cast(pa.string())
    shown = pa.array([repr(each.as_py()[:_SHOWN_BYTES]) for each in bad], pa.string())
    return text, pa.chunked_array([shown.take(chunk) for chunk in at.chunks], pa.string())


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
