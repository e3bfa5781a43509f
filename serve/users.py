"""The users the service knows: raw ids come in, pseudonyms are stored."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.bundle import Bundle
from recsys.errors import DataError
from recsys.prepared import Prepared
from recsys.privacy import load_key, pseudonym
from recsys.schema import Col
from recsys.state import StateEvent, open_state
from serve.api import Event, microseconds
from serve.queries import EventTypes, in_the_future
from serve.settings import Settings

logger = logging.getLogger("ray.serve")

STATE_FILE = "state.sqlite"


def clock_us() -> int:
    """The server's time, microseconds since 1970, UTC."""
    return time.time_ns() // 1000


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
                name = event.event_id or uuid.uuid4().hex
                user = pseudonym(event.user_id, self._key)
                rows.append(StateEvent(user, name, event.item_id, code, moment))
        return self._state.append(rows), len(events) - len(rows)

    def seed(self, bundle: Bundle) -> None:
        """Take over the prepared histories that the bundle was made from, if they lie here."""
        try:
            prepared = Prepared.open(self._settings.root)
        except DataError:
            return
        fingerprint = prepared.summary["data_fingerprint"]
        if fingerprint != bundle.meta.get("data_fingerprint"):
            logger.warning("%s is not what %s was made from", prepared.folder, bundle.version)
            return
        started = time.monotonic()
        table = pa.concat_tables([pq.read_table(path) for path in prepared.shards])
        item_ids = prepared.catalogue.items[Col.item].to_numpy()
        if self._state.seed(table, item_ids, self._limit, source=fingerprint):
            logger.info("took over %d users in %.1f s", len(table), time.monotonic() - started)

    def ping(self) -> None:
        """Raise `DataError` if the store cannot be read."""
        self._state.ping()
