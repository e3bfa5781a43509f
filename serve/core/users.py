"""The users the service knows: raw ids come in, pseudonyms are stored."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_key
from recsys.data.feedback import Feedback
from recsys.data.pseudonyms import load_key, pseudonym
from recsys.errors import DataError
from recsys.preparation.prepared import Prepared
from recsys.schema import Col
from recsys.state import STATE_FILE, Erasure, StateEvent, clock_us, open_state
from serve.access.keys import Keys, own_key
from serve.core.queries import EventTypes, in_the_future
from serve.schemas.callers import token_key
from serve.schemas.requests import Event, microseconds
from serve.settings import Settings

logger = logging.getLogger("ray.serve")

#: What an event may tell beside who did what, and when.
_TOLD = {Col.session, Col.request, Col.position, Col.dwell_ms, Col.price, Col.quantity}


@dataclass(frozen=True)
class Kept:
    """What became of a request's events; see `answers.EventsAnswer`."""

    stored: int
    ignored: int
    repeated: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    older_than_erasure: list[int]


class Users:
    """The store of user histories behind the key of the pseudonyms.

    Args:
        settings: name the store and the key.

    Raises:
        DataError: there is no key, or the store cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = load_key(settings.privacy, settings.root, create=False)
        self._limit = settings.serve.state.max_events_per_user
        self._state = open_state(settings.serve.state, settings.root / STATE_FILE)

    def history(self, user_id: str) -> list[StateEvent]:
        """All events that are kept of a user, oldest first."""
        return self._state.history(pseudonym(user_id, self._key), self._limit)

    def store(self, events: Sequence[Event], types: EventTypes, *, single: bool) -> Kept:
        """Store events; where one of them is wrong, none.

        Args:
            events: as they came.
            types: event names.
            single: the request is one event, not a list (for the names in refusals).
        """
        now = clock_us()
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
        return Kept(
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
        return self._state.delete(pseudonym(user_id, self._key), clock_us())

    def _row(self, event: Event, code: int, moment: int) -> StateEvent:
        """An event as it is kept."""
        # Shops put customer or order numbers into event and session ids: they are not kept either.
        sent, told = event.event_id, event.model_dump(include=_TOLD, exclude_none=True)
        if event.session_id is not None:
            told[Col.session] = pseudonym(event.session_id, self._key)
        return StateEvent(
            pseudonym(event.user_id, self._key),
            uuid.uuid4().hex if sent is None else pseudonym(sent, self._key),
            event.item_id,
            code,
            moment,
            details=json.dumps(told) if told else None,
            is_timed=event.timestamp is not None,
        )

    def pseudonym(self, user_id: str) -> str:
        """What a user is called in all that is written."""
        return pseudonym(user_id, self._key)

    def close(self) -> None:
        """Let go of the store."""
        self._state.close()

    def api_keys(self) -> Keys | None:
        """The keys of the recipe's file, and the one that whoever has our key can make.

        Raises:
            DataError: the file cannot be read.
        """
        access = self._settings.serve.access
        if access.keys is None:
            return None
        return Keys(
            Path(access.keys), own_key(self._key), access.requests_per_s, token_key(self._key)
        )

    def check_key(self, bundle: Bundle) -> None:
        """Refuse a bundle of another key than ours; see `recsys.artifacts.lineage.check_key`."""
        check_key(bundle, self._key, self._settings.privacy)

    def seed(self, bundle: Bundle) -> str:
        """Take over the prepared histories that the bundle was made from, if they lie here.

        One history shard at a time, so that memory and the time that writers wait are a shard's,
        however large the log is.

        Returns:
            What became of it, for `GET /model`.
        """
        fingerprint = bundle.meta.get("data_fingerprint")
        try:
            prepared = Prepared.open(self._settings.root)
            if prepared.summary["data_fingerprint"] != fingerprint:
                logger.warning("%s is not what %s was made from", prepared.folder, bundle.version)
                return f"not taken over: {prepared.folder.name} holds another log than the bundle's"
            started, num_users, item_ids = time.monotonic(), 0, None
            erased = Feedback.of(self._settings.root).erased()
            for path in prepared.shards:
                source = f"{fingerprint}/{path.stem}"
                if self._state.is_seeded(source):
                    continue
                if item_ids is None:
                    item_ids = prepared.item_ids()
                table = prepared.shard(path)
                if self._state.seed(table, item_ids, self._limit, source=source, erased=erased):
                    num_users += len(table)
        except DataError as error:
            return f"not taken over: {error.problem}"
        except Exception as error:  # the log moved away under us; without it we still can answer
            logger.exception("%s: its log cannot be taken over", bundle.version)
            return f"not taken over: {type(error).__name__}"
        if num_users:
            logger.info("took over %d users in %.1f s", num_users, time.monotonic() - started)
        return "taken over"

    def ping(self) -> None:
        """Raise `DataError` if the store cannot be read."""
        self._state.ping()
