"""The store of user histories behind the pseudonym key: raw ids come in, pseudonyms are stored."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_key
from recsys.data.pseudonyms import load_key, pseudonym
from recsys.outcome_heads.served import ServedHeads
from recsys.schema import EVENTS_OPTIONAL, Col
from recsys.state import STATE_FILE, Erasure, Outcome, StateEvent, clock_us, open_state
from serve.access.key_file import own_key
from serve.access.key_ring import KeyRing
from serve.ranking.queries import EventTypes, in_the_future
from serve.schemas.callers import token_key
from serve.schemas.events import Event, Events
from serve.schemas.fields import canonical_json, microseconds
from serve.schemas.problems import CONFLICT, Refused, sent_name
from serve.settings import Settings
from serve.stores import outcome_users, seeding
from serve.stores.clocks import by_our_clock

#: Optional fields of an event that are stored beside user, item, type and time.
_DETAILS = {field.name for field in EVENTS_OPTIONAL} & Event.model_fields.keys()


@dataclass(frozen=True)
class StoredEvents:
    """What became of a request's events; see `serve.schemas.responses.EventsAnswer`."""

    stored: int
    ignored: int
    refused: int
    repeated: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    older_than_erasure: list[int]
    results: list[dict[str, str]]


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
        self._erased = set[str]()

    def pseudonym(self, user_id: str) -> str:
        """What a user is called in all that is written."""
        return pseudonym(user_id, self._key)

    def counted(self, user_id: str) -> str | None:
        """The pseudonym under which the outcome heads may look a user up; None: one was erased."""
        user = self.pseudonym(user_id)
        return None if user in self._erased else user

    def read_erased(self) -> None:
        """Take up who was erased, by any replica.

        Raises:
            DataError: the store cannot be read.
        """
        self._erased.update(self._state.erased())  # in place: other threads add to it too

    def outcomes(self, bundle: Bundle) -> tuple[ServedHeads | None, str | None]:
        """A bundle's outcome heads with the rates of its users, see `outcome_users.with_users`."""
        if bundle.outcomes is None:
            return None, None
        self._erased.update(self._settings.read_erased(), self._state.erased())
        return outcome_users.with_users(bundle.outcomes, self._settings)

    def history(self, user_id: str) -> list[StateEvent]:
        """All events that are kept of a user, oldest first.

        Raises:
            DataError: the store cannot be read.
        """
        return self._state.history(self.pseudonym(user_id), self._limit)

    def store(self, request: Event | Events, types: EventTypes) -> StoredEvents:
        """Store events; of several, those that are not wrong, or with `atomic` all or none.

        Args:
            request: as it came.
            types: event names.

        Raises:
            Refused: an event type is unknown, or a timestamp lies in the future; of an event that
                came alone, or with `atomic`.
            DataError: the store cannot be written.
        """
        now, is_single = self._clock_us(), isinstance(request, Event)
        all_or_none = isinstance(request, Event) or request.atomic
        each = request.each
        results: list[dict[str, str]] = []
        places, ids, rows = [], [], []
        for place, event in enumerate(each):
            try:
                if isinstance(event, Refused):
                    raise event
                row = self._row(event, types, event.sent_at or request.sent_at, now)
            except Refused as error:
                if all_or_none:
                    at: tuple[str | int, ...] = () if is_single else ("events", place)
                    raise Refused((*at, *error.loc), error.msg, kind=error.kind) from None
                results.append(_refused(error))
                continue
            results.append({"status": "stored" if row else "ignored"})
            if row is not None:
                places.append(place)
                ids.append(event.event_id)
                rows.append(row)
        became = list(zip(places, ids, self._state.append(rows), strict=True))
        for place, _, outcome in became:
            results[place] = _RESULTS[outcome]
        statuses = [result["status"] for result in results]
        return StoredEvents(
            stored=statuses.count("stored"),
            ignored=statuses.count("ignored"),
            refused=statuses.count("refused"),
            repeated=[
                {"event": place, "event_id": event_id}
                for place, event_id, outcome in became
                if outcome == "repeated"
            ],
            conflicts=[
                {"event": place, "event_id": event_id, "status": 409}
                for place, event_id, outcome in became
                if outcome == "conflict"
            ],
            older_than_erasure=[place for place, _, outcome in became if outcome == "erased"],
            results=results,
        )

    def erase(self, user_id: str) -> Erasure:
        """Erase a user, see `UserState.delete`."""
        user = self.pseudonym(user_id)
        self._erased.add(user)
        return self._state.delete(user, self._clock_us())

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

    def _row(
        self, event: Event, types: EventTypes, sent_at: dt.datetime | None, now: int
    ) -> StateEvent | None:
        """An event as it is stored; None if the recipe leaves its type out.

        Args:
            event: as it came.
            types: event names.
            sent_at: the sender's clock as it sent, if told.
            now: ours.

        Raises:
            Refused: the event type is unknown, or no timestamp is like this.
        """
        code = types.code(event.event_type, ("event_type",))
        moment = now
        if event.timestamp is not None:
            moment = by_our_clock(microseconds(event.timestamp), sent_at, now)
        if moment > now + self._settings.max_skew_us:
            raise in_the_future(("timestamp",))
        if moment < 0:
            raise Refused(("timestamp",), "lies before 1970", kind="timestamp")
        if code is None:
            return None
        # Shops put customer or order numbers into event and session ids: they are not kept either.
        sent, details = event.event_id, event.model_dump(include=_DETAILS, exclude_none=True)
        if event.session_id is not None:
            details[Col.session] = pseudonym(event.session_id, self._key)
        if event.context is not None:
            details[Col.context] = canonical_json(event.context)
        return StateEvent(
            pseudonym(event.user_id, self._key),
            uuid.uuid4().hex if sent is None else pseudonym(sent, self._key),
            event.item_id,
            code,
            moment,
            details=json.dumps(details) if details else None,
            # Sent again, it may be corrected by a little more or less, and is the same event.
            is_timed=event.timestamp is not None and sent_at is None,
        )


#: By what became of an event in the store.
_RESULTS: dict[Outcome, dict[str, str]] = {
    "new": {"status": "stored"},
    "repeated": {"status": "duplicate"},
    "conflict": {"status": "refused", "field": "event_id", "message": CONFLICT},
    "erased": {
        "status": "refused", "field": "timestamp", "message": "lies before the user was erased",
    },
}  # fmt: skip


def _refused(error: Refused) -> dict[str, str]:
    named = {"field": sent_name(error.loc)} if error.loc else {}
    return {"status": "refused", **named, "message": error.msg}
