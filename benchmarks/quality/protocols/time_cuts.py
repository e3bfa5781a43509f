"""The protocol `time`: global cuts of a log with timestamps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from recsys.errors import DataError
from recsys.schema import Col

#: Shares of the target events that the time protocol trains on and validates on, by default.
VALID_FROM, TEST_FROM = 0.8, 0.9


def time_cuts(
    events: pl.DataFrame,
    targets: Sequence[str],
    valid: dt.datetime | None,
    test: dt.datetime | None,
) -> dict[str, dt.datetime]:
    """The cuts; the head's window has about as many target events as the validation window."""
    times = events.filter(pl.col(Col.event_type).is_in(targets))[Col.timestamp].sort()

    def at(place: int) -> dt.datetime:
        return times[max(0, min(place, len(times) - 1))]

    test = test or at(int(len(times) * TEST_FROM))
    valid = valid or at(int(len(times) * VALID_FROM))
    first, last = (int((times < cut).sum()) for cut in (valid, test))
    head = at(first - (last - first))
    if not head < valid < test:
        raise DataError(
            f"no cut is possible: head {head}, valid {valid}, test {test}", where="events",
            field=Col.timestamp, fix="give --valid and --test, or use --protocol leave_one_out",
        )  # fmt: skip
    return {"head": head, "valid": valid, "test": test}
