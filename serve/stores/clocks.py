"""Clocks of senders: by how much one is off, and what its timestamps are by ours."""

from __future__ import annotations

import datetime as dt

from serve.schemas.fields import microseconds

#: A difference up to this one is taken for the way of the request, microseconds.
MIN_SKEW_US = 60_000_000


def by_our_clock(moment_us: int, sent_at: dt.datetime | None, now_us: int) -> int:
    """A sender's time by the service's clock; it may come to lie before 1970.

    Args:
        moment_us: by the sender's clock, microseconds since 1970, UTC.
        sent_at: that clock as the request was sent; None: it is taken for right.
        now_us: ours as it came.
    """
    skew = 0 if sent_at is None else now_us - microseconds(sent_at)
    return moment_us + skew if abs(skew) > MIN_SKEW_US else moment_us
