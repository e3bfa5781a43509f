"""Histories that go on where they ended."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.histories import UserEvents
from recsys.preparation.appended import Changed


def test_the_time_of_many_users_does_not_grow_by_their_square() -> None:
    few, many = (min(_seconds(number) for _ in range(3)) for number in (2_500, 20_000))
    assert many < 30 * few, "8 times as many users; by their square it is 64 times the time"


def _seconds(num_users: int) -> float:
    """CPU that it takes to compare the users of a bucket, each with one event."""
    ids = [f"{user:064x}" for user in range(num_users)]
    rows = np.arange(num_users)
    users = UserEvents(
        ids, np.zeros_like(rows, np.int32), np.zeros_like(rows, np.int8), rows,
        np.zeros_like(rows, np.int32), np.append(rows, num_users),
    )  # fmt: skip
    none = UserEvents.from_arrow(users.to_arrow()[:0]).to_arrow()
    started = time.process_time()
    changed = Changed.of({}, Path(), 0, users, none, pl.Series(ids))
    seconds = time.process_time() - started
    assert changed.num_then == num_users and changed.is_recent.all()
    return seconds
