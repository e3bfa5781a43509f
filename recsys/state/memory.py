"""User histories in a dictionary: for tests, and for one replica whose users may be forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import starmap

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.state.base import StateEvent, order
from recsys.state.seeding import EVENT_COLUMNS, SEED_PREFIX, seed_events, seed_id, unheld


class MemoryState:
    """A `UserState` that ends with its process.

    Args:
        max_events_per_user: the cap; see `UserState.append`.
    """

    def __init__(self, max_events_per_user: int) -> None:
        self._cap = max_events_per_user
        self._lock = threading.Lock()
        self._users: dict[str, dict[str, StateEvent]] = {}
        self._sources: set[str] = set()

    def append(self, events: Sequence[StateEvent]) -> int:
        """See `UserState.append`."""
        with self._lock:
            return self._add(events)

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """See `UserState.history`."""
        with self._lock:
            events = sorted(self._users.get(user_id, {}).values(), key=order)
        return events[max(len(events) - limit, 0) :]

    def delete(self, user_id: str) -> int:
        """See `UserState.delete`."""
        with self._lock:
            return len(self._users.pop(user_id, {}))

    def seed(
        self,
        table: pa.Table,
        item_ids: NDArray[np.str_],
        max_events_per_user: int,
        *,
        source: str,
    ) -> bool:
        """See `UserState.seed`."""
        with self._lock:
            if source in self._sources:
                return False
            seeds = seed_events(table, item_ids, max_events_per_user)
            live = [
                (event.user_id, event.timestamp, event.item_id, event.event_code)
                for held in self._users.values()
                for event in held.values()
                if not event.event_id.startswith(SEED_PREFIX)
            ]
            rows = unheld(seeds, live).select(EVENT_COLUMNS).iter_rows()
            self._add(starmap(StateEvent, rows), seeded=True)
            self._sources.add(source)
            return True

    def is_seeded(self, source: str) -> bool:
        """See `UserState.is_seeded`."""
        with self._lock:
            return source in self._sources

    def count_users(self) -> int:
        """See `UserState.count_users`."""
        with self._lock:
            return len(self._users)

    def ping(self) -> None:
        """See `UserState.ping`."""

    def close(self) -> None:
        """See `UserState.close`."""

    def _add(self, events: Iterable[StateEvent], *, seeded: bool = False) -> int:
        num_new = 0
        touched = set()
        for event in events:
            held = self._users.setdefault(event.user_id, {})
            if event.event_id not in held and (seeded or seed_id(event) not in held):
                held[event.event_id] = event
                touched.add(event.user_id)
                num_new += 1
        for user_id in touched:
            held = self._users[user_id]
            if len(held) > self._cap:
                latest = sorted(held.values(), key=order)[-self._cap :]
                self._users[user_id] = {event.event_id: event for event in latest}
        return num_new
