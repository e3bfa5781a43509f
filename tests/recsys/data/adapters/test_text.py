from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from recsys.data.adapters.text import as_text, id_kind, plain, why_no_id

ONE = UUID("0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9")


def chunked(values: list[object], kind: pa.DataType) -> pa.ChunkedArray:
    """Two chunks, as row groups make them."""
    return pa.chunked_array([pa.array(values[:1], kind), pa.array(values[1:], kind)])


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([7, None, -1], pa.int8(), ["7", None, "-1"]),
        ([2**64 - 1], pa.uint64(), ["18446744073709551615"]),
        ([Decimal(7), None], pa.decimal128(38, 0), ["7", None]),
        ([Decimal(10**37)], pa.decimal128(38, 0), ["1" + 37 * "0"]),
        ([Decimal(7)], pa.decimal256(50, 0), ["7"]),
        ([Decimal(-7)], pa.decimal32(5, 0), ["-7"]),
        ([ONE.bytes, None], pa.uuid(), ["0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", None]),
        (["ü", None], pa.string(), ["ü", None]),
        (["ü", None], pa.large_string(), ["ü", None]),
        (["ü", None], pa.string_view(), ["ü", None]),
        (["ü".encode(), None], pa.binary(), ["ü", None]),
        (["ü".encode(), None], pa.large_binary(), ["ü", None]),
        (["ü".encode(), None], pa.binary_view(), ["ü", None]),
        ([b"ab", None], pa.binary(2), ["ab", None]),
    ],
)
def test_ids_become_what_http_would_send(
    values: list[object], kind: pa.DataType, expected: list[str | None]
) -> None:
    text, unreadable = as_text(chunked(values, kind))
    assert text.type == pa.string() and text.to_pylist() == expected
    assert unreadable is None
    assert id_kind(kind) is not None


@pytest.mark.parametrize(
    ("kind", "values"), [(pa.string(), ["a", None]), (pa.binary(), [b"a", None]), (pa.int64(), [7])]
)
def test_dictionaries_hold_the_same(kind: pa.DataType, values: list[object]) -> None:
    packed = chunked(values, kind).dictionary_encode()
    assert as_text(packed)[0].to_pylist() == as_text(chunked(values, kind))[0].to_pylist()
    assert plain(packed.type) == kind


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_that_are_no_utf8_are_null_and_told(kind: pa.DataType) -> None:
    text, unreadable = as_text(chunked([b"\xff\xfe", b"ok", None, b"\xff\xfe"], kind))
    assert text.to_pylist() == [None, "ok", None, None]
    assert unreadable is not None
    assert unreadable.to_pylist() == [r"b'\xff\xfe'", None, None, r"b'\xff\xfe'"]


def test_a_string_that_is_no_utf8_is_bytes() -> None:
    """Writers that trust their input leave such columns behind."""
    spoilt = pa.chunked_array([pa.array([b"\xff", b"ok"]).view(pa.string())])
    text, unreadable = as_text(spoilt)
    assert text.to_pylist() == [None, "ok"]
    assert unreadable is not None and unreadable.to_pylist() == [r"b'\xff'", None]


def test_an_extension_type_is_what_it_is_stored_as() -> None:
    assert plain(pa.json_(pa.string())) == pa.string()
    stored = pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{}", None]))
    assert as_text(pa.chunked_array([stored]))[0].to_pylist() == ["{}", None]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (pa.float64(), "two spellings"),
        (pa.float32(), "rounded"),
        (pa.decimal128(10, 2), "two spellings"),
        (pa.bool_(), ""),
        (pa.timestamp("us"), ""),
        (pa.list_(pa.string()), ""),
        (pa.struct([("id", pa.string())]), ""),
    ],
)
def test_what_cannot_be_an_id(kind: pa.DataType, why: str) -> None:
    assert id_kind(kind) is None
    assert why in why_no_id(kind)
