"""User histories in memory: for tests, and for one replica that may lose its users."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import starmap, takewhile

import pyarrow as pa

from recsys.arrays import Strings
from recsys.state.base import (
    Batch,
    Erasure,
    Outcome,
    StateEvent,
    clock_us,
    is_same,
    new_batch_id,
    oldest_us,
    order,
    tombstone_of,
)
from recsys.state.seeding import (
    EVENT_COLUMNS,
    SEED_PREFIX,
    lasting,
    seed_events,
    seed_id,
    unheld,
)
from recsys.state.tombstones import Tombstone

#: Most events of the outbox: no other process can reach it, so it may never be emptied.
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
        self._erased: dict[str, Tombstone] = {}
        self._outbox: deque[tuple[int, StateEvent]] = deque(maxlen=MAX_WAITING)
        self._seq = 0
        self._claimed: tuple[str, int] | None = None
        self._swept_us = clock_us()

    def append(self, events: Sequence[StateEvent]) -> list[Outcome]:
        """See `UserState.append`."""
        with self._lock:
            outcomes = self._add(events)
            new = [e for e, outcome in zip(events, outcomes, strict=True) if outcome == "new"]
            for event in new:
                if not event.event_id.startswith(SEED_PREFIX):
                    self._seq += 1
                    self._outbox.append((self._seq, event))
            if self._max_age_us is not None:
                self._expire({event.user_id for event in new})
                if clock_us() - self._swept_us > SWEEP_FRACTION * self._max_age_us:
                    self._sweep()
        return outcomes

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """See `UserState.history`."""
        with self._lock:
            events = sorted(self._users.get(user_id, {}).values(), key=order)
        if (oldest := oldest_us(self._max_age_us)) is not None:
            events = [event for event in events if event.timestamp >= oldest]
        return events[max(len(events) - limit, 0) :]

    def delete(self, user_id: str, now_us: int) -> Erasure:
        """See `UserState.delete`."""
        with self._lock:
            history = self._users.pop(user_id, {})
            waiting = [entry for entry in self._outbox if entry[1].user_id == user_id]
            for entry in waiting:
                self._outbox.remove(entry)
            events = [*history.values(), *(event for _, event in waiting)]
            left = tombstone_of(events, now_us)
            self._erased[user_id] = left.joined(self._erased.get(user_id, left))
        return Erasure(len(history), bool(events))

    def erased(self) -> dict[str, Tombstone]:
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
        item_ids: Strings,
        max_events_per_user: int,
        *,
        source: str,
        erased: Mapping[str, Tombstone] | None = None,
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
            self._add(list(starmap(StateEvent, rows)), seeded=True)
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

    def _add(self, events: Sequence[StateEvent], *, seeded: bool = False) -> list[Outcome]:
        """Add what is new and hold the cap."""
        outcomes: list[Outcome] = []
        for event in events:
            held = self._users.setdefault(event.user_id, {})
            outcomes.append(self._outcome(event, held, seeded=seeded))
            if outcomes[-1] == "new":
                held[event.event_id] = replace(event, details=None)
        for user_id in {event.user_id for event in events}:
            held = self._users[user_id]
            if len(held) > self._cap:
                latest = sorted(held.values(), key=order)[-self._cap :]
                self._users[user_id] = {event.event_id: event for event in latest}
            elif not held:
                del self._users[user_id]
        return outcomes

    def _outcome(
        self, event: StateEvent, held: Mapping[str, StateEvent], *, seeded: bool
    ) -> Outcome:
        erased = self._erased.get(event.user_id)
        told = (event.user_id, event.timestamp, event.event_code, event.item_id)
        if erased is not None and not seeded and erased.covers(*told):
            return "erased"
        if event.event_id in held:
            return "repeated" if is_same(held[event.event_id], event) else "conflict"
        return "repeated" if not seeded and seed_id(event) in held else "new"

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
