"""Logs as lists of events, and histories read back as lists."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import numpy as np
import polars as pl
from hypothesis import strategies as st

from recsys.data.histories import Histories, UserEvents, build_histories
from recsys.data.time_split import Questions
from recsys.schema import EVENT_CODE, EVENT_TYPES, HISTORIES, Col

BUY, VIEW = EVENT_CODE["purchase"], EVENT_CODE["view"]


class Event(NamedTuple):
    user: str
    us: int
    session: str | None
    item: int
    code: int


def build(log: list[Event]) -> UserEvents:
    zero = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    times = [zero + dt.timedelta(microseconds=event.us) for event in log]
    table = build_histories(
        pl.DataFrame(
            {
                Col.user: pl.Series([event.user for event in log], dtype=pl.String),
                Col.item_row: pl.Series([event.item for event in log], dtype=pl.Int64),
                Col.event_type: pl.Series([EVENT_TYPES[e.code] for e in log], dtype=pl.String),
                Col.timestamp: pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                Col.session: pl.Series([event.session for event in log], dtype=pl.String),
            }
        )
    )
    assert table.schema == HISTORIES
    return UserEvents.from_arrow(table)


def rows(users: UserEvents) -> dict[str, list[tuple[int, int, int, int]]]:
    """User -> (time, basket, item, code) of each event."""
    columns = (users.timestamps, users.baskets, users.item_rows, users.event_codes)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    bounds = users.offsets.tolist()
    return {
        user: flat[bounds[n] : bounds[n + 1]] for n, user in enumerate(users.user_ids)
    }  # fmt: skip


def lists(histories: Histories) -> list[list[tuple[int, int, int]]]:
    """Each query's (time, item, code)."""
    columns = (histories.timestamps, histories.item_rows, histories.event_codes)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    bounds = histories.offsets.tolist()
    return [flat[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]


def relevant(questions: Questions) -> list[list[int]]:
    parts = np.split(questions.relevant, questions.relevant_offsets[1:-1])
    return [part.tolist() for part in parts] if len(questions) else []


EVENTS = st.builds(
    Event,
    st.sampled_from("abc"),
    st.integers(0, 6),
    st.sampled_from([None, "s", "t"]),
    st.integers(0, 4),
    st.sampled_from([VIEW, BUY]),
)
LOGS = st.lists(EVENTS, max_size=40, unique=True)
