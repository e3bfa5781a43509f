"""Times as foreign files hold them -> microseconds UTC; what lies too far off becomes text."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.schema import TIMESTAMP

_US = {"s": 1_000_000, "ms": 1_000}
_INT64_MAX = 2**63 - 1


def is_time(kind: pa.DataType) -> bool:
    """Whether a column of this type holds times: timestamps of any unit and zone, and dates.

    A date is the midnight, UTC, that it begins with: what SQL and Arrow cast it to. Its events
    share one moment, and events of one moment never see each other (`recsys.data.histories`), so no
    order is made up for them.
    """
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def as_utc(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Times of any unit and zone as microseconds UTC; one without a zone counts as UTC.

    Nanoseconds are cut. Microseconds reach 292,000 years either way, seconds and milliseconds
    further: such a time is null in the result.

    Args:
        column: [N] of a type that `is_time`.

    Returns:
        [N] `timestamp[us, UTC]`, and [N] texts of those that lie too far off, null elsewhere; None
        where there are none.
    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    options = pc.CastOptions(TIMESTAMP, allow_time_truncate=True)
    try:
        return column.cast(options=options), None
    except pa.ArrowInvalid:
        most = _INT64_MAX // _US[column.type.unit]
    values = column.cast(pa.int64())
    far = pc.fill_null(pc.or_(pc.greater(values, most), pc.less(values, -most)), False)
    near = pc.if_else(far, pa.scalar(None, pa.int64()), values).cast(column.type)
    found = values.filter(far).unique().to_pylist()
    texts = [f"{np.datetime64(value, column.type.unit)}Z" for value in found]
    told = pl.Series(values).replace_strict(found, texts, default=None, return_dtype=pl.String)
    return near.cast(options=options), pa.chunked_array([told.to_arrow().cast(pa.string())])
