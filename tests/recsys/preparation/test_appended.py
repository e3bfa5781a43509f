"""Histories that go on where they ended."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.histories import UserEvents
from recsys.preparation.appended import Changed


def test_the_time_of_many_users_does_not_grow_by_their_square() -> None:
    ids = [f"{user:064x}" for user in range(20_000)]
    rows = np.arange(len(ids))
    users = UserEvents(
        ids, np.zeros_like(rows, np.int32), np.zeros_like(rows, np.int8), rows,
        np.zeros_like(rows, np.int32), np.append(rows, len(ids)),
    )  # fmt: skip
    none = UserEvents.from_arrow(users.to_arrow()[:0]).to_arrow()
    started = time.process_time()
    changed = Changed.of({}, Path(), 0, users, none, pl.Series(ids))
    assert time.process_time() - started < 5
    assert changed.num_then == len(ids) and changed.is_recent.all()
