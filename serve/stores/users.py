"""The store of user histories behind the pseudonym key: raw ids come in, pseudonyms are stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_key
from recsys.data.pseudonyms import load_key, pseudonym
from recsys.schema import Col
from recsys.state import STATE_FILE, Erasure, StateEvent, clock_us, open_state
from serve.access.key_file import own_key
from serve.access.key_ring import KeyRing
from serve.ranking.queries import EventTypes, in_the_future
from serve.schemas.callers import token_key
from serve.schemas.fields import microseconds
from serve.schemas.requests import Event
from serve.settings import Settings
from serve.stores import seeding

#: Optional fields of an event that are stored beside user, item, type and time.
_DETAILS = {Col.session, Col.request, Col.position, Col.dwell_ms, Col.price, Col.quantity}


@dataclass(frozen=True)
class StoredEvents:
    """What became of a request's events; see `serve.schemas.responses.EventsAnswer`."""

    stored: int
    ignored: int
    repeated: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    older_than_erasure: list[int]


class Users:
    """The store of user histories.

    Args:
        settings: name the store and the pseudonym key.
        clock: the server's time, microseconds since 1970, UTC.

    Raises:
        DataError: there is no key, or the store cannot be opened.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] = clock_us) -> None:
        self._settings, self._clock_us = settings, clock
        self._key = load_key(settings.privacy, settings.root, create=False)
        self._limit = settings.serve.state.max_events_per_user
        self._state = open_state(settings.serve.state, settings.root / STATE_FILE)

    def pseudonym(self, user_id: str) -> str:
        """What a user is called in all that is written."""
        return pseudonym(user_id, self._key)

    def history(self, user_id: str) -> list[StateEvent]:
        """All events that are kept of a user, oldest first.

        Raises:
            DataError: the store cannot be read.
        """
        return self._state.history(self.pseudonym(user_id), self._limit)

    def store(self, events: Sequence[Event], types: EventTypes, *, single: bool) -> StoredEvents:
        """Store events; where one of them is wrong, none.

        Args:
            events: as they came.
            types: event names.
            single: the request is one event, not a list (for the names in refusals).

        Raises:
            Refused: an event type is unknown, or a timestamp lies in the future.
            DataError: the store cannot be written.
        """
        now = self._clock_us()
        latest = now + self._settings.max_skew_us
        places, rows = [], []
        for place, event in enumerate(events):
            loc: tuple[str | int, ...] = () if single else ("events", place)
            code = types.code(event.event_type, (*loc, "event_type"))
            moment = now if event.timestamp is None else microseconds(event.timestamp)
            if moment > latest:
                raise in_the_future((*loc, "timestamp"))
            if code is not None:
                places.append(place)
                rows.append(self._row(event, code, moment))
        became = dict(zip(places, self._state.append(rows), strict=True))
        return StoredEvents(
            stored=list(became.values()).count("new"),
            ignored=len(events) - len(rows),
            repeated=[
                {"event": place, "event_id": events[place].event_id}
                for place, outcome in became.items()
                if outcome == "repeated"
            ],
            conflicts=[
                {"event": place, "event_id": events[place].event_id, "status": 409}
                for place, outcome in became.items()
                if outcome == "conflict"
            ],
            older_than_erasure=[place for place, what in became.items() if what == "erased"],
        )

    def erase(self, user_id: str) -> Erasure:
        """Erase a user, see `UserState.delete`."""
        return self._state.delete(self.pseudonym(user_id), self._clock_us())

    def seed(self, bundle: Bundle) -> str:
        """Take over the histories of a bundle's log, see `seeding.seed`."""
        return seeding.seed(self._state, bundle, self._settings, self._limit)

    def api_keys(self) -> KeyRing | None:
        """The API keys of the recipe's file and the service's own; None: none are asked for.

        Raises:
            DataError: the file cannot be read.
        """
        access = self._settings.serve.access
        if access.keys is None:
            return None
        return KeyRing(
            Path(access.keys), own_key(self._key), access.requests_per_s, token_key(self._key)
        )

    def check_key(self, bundle: Bundle) -> None:
        """Refuse a bundle of another pseudonym key; see `recsys.artifacts.lineage.check_key`."""
        check_key(bundle, self._key, self._settings.privacy)

    def ping(self) -> None:
        """Check that the store can be read.

        Raises:
            DataError: it cannot.
        """
        self._state.ping()

    def close(self) -> None:
        """Close the store."""
        self._state.close()

    def _row(self, event: Event, code: int, moment: int) -> StateEvent:
        """An event as it is stored."""
        # Shops put customer or order numbers into event and session ids: they are not kept either.
        sent, details = event.event_id, event.model_dump(include=_DETAILS, exclude_none=True)
        if event.session_id is not None:
            details[Col.session] = pseudonym(event.session_id, self._key)
        return StateEvent(
            pseudonym(event.user_id, self._key),
            uuid.uuid4().hex if sent is None else pseudonym(sent, self._key),
            event.item_id,
            code,
            moment,
            details=json.dumps(details) if details else None,
            is_timed=event.timestamp is not None,
        )
