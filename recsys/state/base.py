"""What the service remembers of its users, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StateEvent:
    """One event of one user.

    Attributes:
        user_id: the pseudonym, never the raw id.
        event_id: the sender's name for the event: the same id means the same event, sent again.
        item_id: catalogue id.
        event_code: position in `schema.EVENT_TYPES`.
        timestamp: microseconds since 1970, UTC.
    """

    user_id: str
    event_id: str
    item_id: str
    event_code: int
    timestamp: int


def order(event: StateEvent) -> tuple[int, str, str]:
    """The key that a history is sorted by: time, then item, then event id."""
    return event.timestamp, event.item_id, event.event_id


class UserState(Protocol):
    """A store of user histories, each capped at the user's latest events.

    Every method may be called from several threads at once. Where the store cannot be read or
    written, each raises `DataError`.
    """

    def append(self, events: Sequence[StateEvent]) -> int:
        """Add events; they are durable when this returns (`MemoryState`: while its process lives).

        An event whose (user_id, event_id) is held already changes nothing: the first one stays;
        nor does one that was seeded with the same time, item and type (see `seeding`). A
        user over the cap loses the earliest events, in the order of `order`, be they old or just
        come.

        Returns:
            How many of the events were new, that is, not held and not repeated within `events`.
        """

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """The user's latest `limit` events, in the order of `order`; empty for an unknown user."""

    def delete(self, user_id: str) -> int:
        """Erase a user; returns how many events were erased.

        A later `seed` from a source that still holds the user brings the events back.
        """

    def seed(
        self,
        table: pa.Table,
        item_ids: NDArray[np.str_],
        max_events_per_user: int,
        *,
        source: str,
    ) -> bool:
        """Take over the histories that a bundle was built with; all of them or none.

        (`RedisState` alone may leave a part there when it fails, which the next call completes.)

        Events that are held already, from another source or from `append`, are not doubled: see
        `seeding`.

        Args:
            table: rows of `schema.HISTORIES`.
            item_ids: [I] catalogue ids by item row; events of rows outside are left out.
            max_events_per_user: the latest events of each user to take (the store's cap holds
                besides).
            source: names the bundle. A source is seeded once; after that this returns False at
                once.

        Returns:
            Whether this call seeded.
        """

    def is_seeded(self, source: str) -> bool:
        """Whether `seed` has taken this source over."""

    def count_users(self) -> int:
        """How many users have an event."""

    def ping(self) -> None:
        """Raise `DataError` if the store cannot be read."""

    def close(self) -> None:
        """Let go of the store; it cannot be used after."""
