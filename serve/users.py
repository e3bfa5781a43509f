"""The users the service knows: raw ids come in, pseudonyms are stored."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from recsys.bundle import Bundle
from recsys.errors import DataError
from recsys.feedback import Feedback
from recsys.line import check_key
from recsys.prepared import Prepared
from recsys.privacy import load_key, pseudonym
from recsys.state import STATE_FILE, StateEvent, clock_us, open_state
from serve.access import Keys, own_key
from serve.api import Event, microseconds
from serve.queries import EventTypes, in_the_future
from serve.settings import Settings

logger = logging.getLogger("ray.serve")


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

    def store(self, events: Sequence[Event], types: EventTypes, *, single: bool) -> tuple[int, int]:
        """Store events, all or none.

        Args:
            events: as they came.
            types: event names.
            single: the request is one event, not a list (for the names in refusals).

        Returns:
            How many were new, and how many are of a type that the recipe leaves out.
        """
        now = clock_us()
        latest = now + self._settings.max_skew_us
        rows = []
        for place, event in enumerate(events):
            loc: tuple[str | int, ...] = () if single else ("events", place)
            code = types.code(event.event_type, (*loc, "event_type"))
            moment = now if event.timestamp is None else microseconds(event.timestamp)
            if moment > latest:
                raise in_the_future((*loc, "timestamp"))
            if code is not None:
                # Shops put customer or order numbers into event ids: they are not kept either.
                sent = event.event_id and pseudonym(event.event_id, self._key)
                name = sent or uuid.uuid4().hex
                user = pseudonym(event.user_id, self._key)
                rows.append(StateEvent(user, name, event.item_id, code, moment))
        return self._state.append(rows), len(events) - len(rows)

    def erase(self, user_id: str) -> int:
        """Erase a user, see `UserState.delete`; how many events were held."""
        return self._state.delete(pseudonym(user_id, self._key), clock_us())

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
        return Keys(Path(access.keys), own_key(self._key), access.requests_per_s)

    def check_key(self, bundle: Bundle) -> None:
        """Refuse a bundle of another key than ours; see `recsys.line.check_key`."""
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
