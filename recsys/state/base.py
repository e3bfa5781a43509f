"""The user store: events, outcomes, and the interface of every backend."""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import pyarrow as pa

from recsys.arrays import Strings
from recsys.state.tombstones import Tombstone, digest

#: Environment variable for a replay of other days: a file whose modification time is the time.
CLOCK_FILE: Final = "RAYCOMMEND_CLOCK_FILE"


@dataclass(frozen=True, slots=True)
class StateEvent:
    """One event of one user.

    Attributes:
        user_id: the pseudonym, never the raw id.
        event_id: the sender's name for the event: the same id means the same event, sent again.
        item_id: catalogue id.
        event_code: position in `schema.ALL_EVENT_TYPES`.
        timestamp: microseconds since 1970, UTC.
        details: further fields of the sender, as JSON text, for the outbox only.
        is_timed: the sender gave the time, and by a right clock; else it follows from ours.
    """

    user_id: str
    event_id: str
    item_id: str
    event_code: int
    timestamp: int
    details: str | None = None
    is_timed: bool = True


#: Outcome of an appended event: stored; held already; another event is held under its id; older
#: than its user's erasure.
Outcome = Literal["new", "repeated", "conflict", "erased"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """Result of an erasure.

    Attributes:
        num_events: that the history had.
        held: whether history or outbox had any.
    """

    num_events: int
    held: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Accepted events on their way out of the store, see `UserState.claim`.

    Attributes:
        id: `{date of the claim, UTC}-{32 random hex digits}`; no two batches of any store share it.
        events: in the order in which they were accepted; erased users' left out, so maybe none.
    """

    id: str
    events: list[StateEvent]


def new_batch_id() -> str:
    """An id for a `Batch`."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-{uuid.uuid4().hex}"


def clock_us() -> int:
    """The time of this machine, or of the file that `CLOCK_FILE` names; microseconds, UTC."""
    file = os.environ.get(CLOCK_FILE)
    return (time.time_ns() if file is None else os.stat(file).st_mtime_ns) // 1000


def oldest_us(max_age_us: int | None) -> int | None:
    """The earliest time of an event that has not expired; None where none expires."""
    return None if max_age_us is None else clock_us() - max_age_us


def is_same(one: StateEvent, other: StateEvent) -> bool:
    """Whether two events under one id are one, sent twice: same item, type, and time if told."""
    times = one.timestamp == other.timestamp or not other.is_timed
    return (one.item_id, one.event_code) == (other.item_id, other.event_code) and times


def digest_of(event: StateEvent) -> str:
    """See `tombstones.digest`."""
    return digest(event.user_id, event.timestamp, event.event_code, event.item_id)


def tombstone_of(events: Sequence[StateEvent], now_us: int) -> Tombstone:
    """What is left of all events of a user who is erased now."""
    return Tombstone(
        now_us,
        max([now_us, *(event.timestamp for event in events)]),
        frozenset(digest_of(event) for event in events if event.timestamp > now_us),
    )


def order(event: StateEvent) -> tuple[int, str, str]:
    """The key that a history is sorted by: time, then item, then event id."""
    return event.timestamp, event.item_id, event.event_id


class UserState(Protocol):
    """A store of user histories, each capped at the user's latest events, and their outbox.

    With a maximal age, an event that is older is not answered from, and is deleted when the user
    is written next or by `sweep`.

    Every method may be called from several threads at once. Where the store cannot be read or
    written, each raises `DataError`.
    """

    def append(self, events: Sequence[StateEvent]) -> list[Outcome]:
        """Add events; they are durable when this returns (`MemoryState`: while its process lives).

        An event whose (user_id, event_id) is held already changes nothing: the first one stays;
        nor does one that was seeded with the same time, item and type (see `seeding`), nor one of
        an erased user, see `delete`. A user over the cap loses the earliest events, in the order of
        `order`, be they old or just come.

        In the same step each new event goes to the outbox, whatever the cap and the age then take
        from the history, and waits there for `claim`. (Not one under a seeded event's id: that one
        came from a log.)

        Returns:
            Of each event what became of it; of those repeated within `events` the first is new.
        """

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """The user's latest `limit` events, in the order of `order`; empty for an unknown user."""

    def delete(self, user_id: str, now_us: int) -> Erasure:
        """Erase a user from histories and outbox, and keep a tombstone.

        Nothing that happened up to now comes back, by `append` or by `seed`; what happens later
        starts a new history. A sender's clock may have been ahead: what had come from it is not
        taken again either, though its time lies after the erasure; and no log is seeded up to it.

        Args:
            user_id: the pseudonym.
            now_us: the time of the erasure, microseconds.
        """

    def erased(self) -> dict[str, Tombstone]:
        """The tombstones, by pseudonym."""

    def claim(self, limit: int) -> Batch | None:
        """The first events of the outbox, as a batch that stays the same until it is settled.

        Whoever takes the events elsewhere does so under the batch's id, durably, and settles then.
        If that breaks off, the same batch is claimed again, and its id tells whether it had been
        taken: exactly once, without trust in sequence numbers, which a store that is restored from
        a backup gives a second time.

        Args:
            limit: the most events of a new batch.

        Returns:
            The batch that is claimed and not settled, else a new one; None if nothing waits.
        """

    def settle(self, batch_id: str) -> None:
        """Drop a claimed batch from the outbox; does nothing if it is not the one claimed."""

    def num_waiting(self) -> int:
        """How many events the outbox holds."""

    def sweep(self) -> None:
        """Delete the expired events of all users, some users at a time; others are let in between.

        `compact` calls it: it looks at every user.
        """

    def seed(
        self,
        table: pa.Table,
        item_ids: Strings,
        max_events_per_user: int,
        *,
        source: str,
        erased: Mapping[str, Tombstone] | None = None,
    ) -> bool:
        """Take over the histories that a bundle was built with; all of them or none.

        (`RedisState` alone may leave a part there when it fails, which the next call completes.)

        Events that are held already, from another source or from `append`, are not doubled: see
        `seeding`. Expired events are left out, and those of erased users, up to the last time that
        their tombstone names.

        Args:
            table: rows of `schema.HISTORIES`.
            item_ids: [I] catalogue ids by item row; events of rows outside are left out.
            max_events_per_user: the latest events of each user to take (the store's cap holds
                besides).
            source: names the bundle. A source is seeded once; after that this returns False at
                once.
            erased: tombstones beside the store's own, which may have been lost with it.

        Returns:
            Whether this call seeded.
        """

    def is_seeded(self, source: str) -> bool:
        """Whether `seed` has taken this source over."""

    def count_users(self) -> int:
        """How many users have an event; may look at every user."""

    def ping(self) -> None:
        """Raise `DataError` if the store cannot be read."""

    def close(self) -> None:
        """Close the store; it cannot be used after."""
