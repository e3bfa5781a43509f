"""Literal logs: a user is a list of (timestamp, item row, event code)."""

from __future__ import annotations

import numpy as np

from recsys.data.histories import Histories, UserEvents
from recsys.schema import EVENT_CODE

VIEW, BUY = EVENT_CODE["view"], EVENT_CODE["purchase"]

Event = tuple[int, int, int]


def bought(*moments: list[int]) -> list[Event]:
    """Purchases at the times 0, 1, 2, ..."""
    return [(time, item, BUY) for time, items in enumerate(moments) for item in items]


def user_events(*users: list[Event]) -> UserEvents:
    times, items, codes = columns(users)
    return UserEvents(
        [f"user{number}" for number in range(len(users))],
        items.astype(np.int32),
        codes.astype(np.int8),
        times,
        np.zeros(len(items), dtype=np.int32),
        offsets(users),
    )


def queries(*users: list[Event]) -> Histories:
    times, items, codes = columns(users)
    now = np.full(len(users), 1_000, dtype=np.int64)
    return Histories(items.astype(np.int32), codes.astype(np.int8), times, offsets(users), now)


def columns(users: tuple[list[Event], ...]) -> np.ndarray:
    events = [event for user in users for event in user]
    return np.array(events, dtype=np.int64).reshape(-1, 3).T


def offsets(users: tuple[list[Event], ...]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
