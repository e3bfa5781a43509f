"""User histories in a dictionary: for tests, and for one replica whose users may be forgotten."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap, takewhile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.state.base import Batch, StateEvent, clock_us, new_batch_id, oldest_us, order
from recsys.state.seeding import (
    EVENT_COLUMNS,
    SEED_PREFIX,
    lasting,
    seed_events,
    seed_id,
    unheld,
)

#: Events that the outbox holds at most: no other process can reach it, so nobody may empty it.
MAX_WAITING = 100_000
#: Appending sweeps all users after so much of the maximal age.
SWEEP_FRACTION = 0.1


class MemoryState:
    """A `UserState` that ends with its process; its outbox keeps the latest `MAX_WAITING` events.

    Args:
        max_events_per_user: the cap; see `UserState.append`.
        max_age_us: an older event has expired; None: none does.
    """

    def __init__(self, max_events_per_user: int, max_age_us: int | None = None) -> None:
        self._cap, self._max_age_us = max_events_per_user, max_age_us
        self._lock = threading.Lock()
        self._users: dict[str, dict[str, StateEvent]] = {}
        self._sources: set[str] = set()
        self._erased: dict[str, int] = {}
        self._outbox: deque[tuple[int, StateEvent]] = deque(maxlen=MAX_WAITING)
        self._seq = 0
        self._claimed: tuple[str, int] | None = None
        self._swept_us = clock_us()

    def append(self, events: Sequence[StateEvent]) -> int:
        """See `UserState.append`."""
        with self._lock:
            new = self._add(event for event in events if not self._is_erased(event))
            for event in new:
                if not event.event_id.startswith(SEED_PREFIX):
                    self._seq += 1
                    self._outbox.append((self._seq, event))
            if self._max_age_us is not None:
                self._expire({event.user_id for event in new})
                if clock_us() - self._swept_us > SWEEP_FRACTION * self._max_age_us:
                    self._sweep()
        return len(new)

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """See `UserState.history`."""
        with self._lock:
            events = sorted(self._users.get(user_id, {}).values(), key=order)
        if (oldest := oldest_us(self._max_age_us)) is not None:
            events = [event for event in events if event.timestamp >= oldest]
        return events[max(len(events) - limit, 0) :]

    def delete(self, user_id: str, now_us: int) -> int:
        """See `UserState.delete`."""
        with self._lock:
            held = self._users.pop(user_id, {})
            waiting = [entry for entry in self._outbox if entry[1].user_id == user_id]
            for entry in waiting:
                self._outbox.remove(entry)
            times = [event.timestamp for event in (*held.values(), *(e for _, e in waiting))]
            self._erased[user_id] = max(now_us, self._erased.get(user_id, now_us), *times)
        return len(held)

    def erased(self) -> dict[str, int]:
        """See `UserState.erased`."""
        with self._lock:
            return dict(self._erased)

    def claim(self, limit: int) -> Batch | None:
        """See `UserState.claim`."""
        with self._lock:
            if self._claimed is None:
                if not self._outbox:
                    return None
                last, _ = self._outbox[min(limit, len(self._outbox)) - 1]
                self._claimed = (new_batch_id(), last)
            batch_id, last = self._claimed
            return Batch(
                batch_id, [e for _, e in takewhile(lambda at: at[0] <= last, self._outbox)]
            )

    def settle(self, batch_id: str) -> None:
        """See `UserState.settle`."""
        with self._lock:
            if self._claimed is not None and self._claimed[0] == batch_id:
                while self._outbox and self._outbox[0][0] <= self._claimed[1]:
                    self._outbox.popleft()
                self._claimed = None

    def num_waiting(self) -> int:
        """See `UserState.num_waiting`."""
        with self._lock:
            return len(self._outbox)

    def sweep(self) -> None:
        """See `UserState.sweep`; here, everybody waits."""
        with self._lock:
            self._sweep()

    def seed(
        self,
        table: pa.Table,
        item_ids: NDArray[np.str_],
        max_events_per_user: int,
        *,
        source: str,
        erased: Mapping[str, int] | None = None,
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
            own = lasting(unheld(seeds, live), self._erased, oldest_us(self._max_age_us))
            new = lasting(own, erased or {}, None)
            rows = new.select(EVENT_COLUMNS).iter_rows()
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

    def _add(self, events: Iterable[StateEvent], *, seeded: bool = False) -> list[StateEvent]:
        """Add what is new and hold the cap; gives what was new."""
        new = []
        for event in events:
            held = self._users.setdefault(event.user_id, {})
            if event.event_id not in held and (seeded or seed_id(event) not in held):
                held[event.event_id] = event
                new.append(event)
        for user_id in {event.user_id for event in new}:
            held = self._users[user_id]
            if len(held) > self._cap:
                latest = sorted(held.values(), key=order)[-self._cap :]
                self._users[user_id] = {event.event_id: event for event in latest}
        return new

    def _is_erased(self, event: StateEvent) -> bool:
        at = self._erased.get(event.user_id)
        return at is not None and event.timestamp <= at

    def _sweep(self) -> None:
        self._swept_us = clock_us()
        self._expire(list(self._users))

    def _expire(self, user_ids: Iterable[str]) -> None:
        if (oldest := oldest_us(self._max_age_us)) is None:
            return
        for user_id in user_ids:
            held = self._users[user_id]
            for event in [event for event in held.values() if event.timestamp < oldest]:
                del held[event.event_id]
            if not held:
                del self._users[user_id]
