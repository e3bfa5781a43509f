from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from recsys.data.adapters.times import as_utc, is_time
from recsys.schema import TIMESTAMP

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
#: Microseconds end here; seconds and milliseconds go on.
LAST_S = (2**63 - 1) // 1_000_000


def column(values: list[object], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_unit_is_the_same_moment(unit: str) -> None:
    read, unreadable = as_utc(column([NOON, None], pa.timestamp(unit, "Asia/Tokyo")))
    assert read.type == TIMESTAMP and read.to_pylist() == [NOON, None]
    assert unreadable is None


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_the_midnight_that_it_begins_with(kind: pa.DataType) -> None:
    assert is_time(kind)
    read, _ = as_utc(column([NOON.date(), None], kind))
    assert read.to_pylist() == [NOON.replace(hour=0), None]


def test_only_times_and_dates_are_times() -> None:
    assert not any(map(is_time, (pa.time64("us"), pa.duration("s"), pa.int64(), pa.string())))


def test_what_lies_beyond_microseconds_is_told_and_the_rest_is_kept() -> None:
    seconds = [10**13, LAST_S, None, -(10**13), 1_704_110_400, 10**13]
    read, unreadable = as_utc(column(seconds, pa.int64()).cast(pa.timestamp("s", "UTC")))
    assert read.cast(pa.int64()).to_pylist() == [
        None, LAST_S * 1_000_000, None, None, 1_704_110_400_000_000, None,
    ]  # fmt: skip
    assert unreadable is not None
    assert unreadable.to_pylist() == [
        "318857-05-20T17:46:40Z", None, None, "-314918-08-13T06:13:20Z", None,
        "318857-05-20T17:46:40Z",
    ]  # fmt: skip


def test_milliseconds_and_dates_may_lie_beyond_too() -> None:
    for values, kind in (([2**62], pa.timestamp("ms")), ([2**31 - 1], pa.date32())):
        read, unreadable = as_utc(column(values, pa.int32() if kind == pa.date32() else pa.int64())
                                  .cast(kind))  # fmt: skip
        assert read.to_pylist() == [None]
        assert unreadable is not None and unreadable.null_count == 0
