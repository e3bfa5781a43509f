"""The events and erasure routes: what users did, and to forget it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from serve.core.request_checks import check_events
from serve.core.serialization import Serialize, to_json
from serve.core.worker_pool import WorkerPool
from serve.models.arms import Arms
from serve.observability.trace import current
from serve.ranking.queries import EventTypes
from serve.schemas.problems import Conflict
from serve.schemas.requests import Event
from serve.stores.users import Users


class UserEvents:
    """Stores events and erases users, in the thread that writes.

    Args:
        users: the store.
        types: event names.
        writer: the thread that writes.

    Attributes:
        last_write: Unix time when an event that was new was last stored, seconds; until then the
            start.
    """

    def __init__(self, users: Users, types: EventTypes, writer: WorkerPool) -> None:
        self._users, self._types, self._writer = users, types, writer
        self.last_write = time.time()

    async def store(
        self, events: Sequence[Event], arms: Arms, serialize: Serialize, *, single: bool
    ) -> Any:
        """The answer to `POST /events`.

        Args:
            events: of the request.
            arms: what is served; an item that no arm knows is named in the answer.
            serialize: makes what is sent.
            single: the request is one event, not a list.

        Raises:
            Forbidden: the caller may not write for a user.
            Refused: an event is wrong.
            Conflict: a single event whose id another one bears.
            DataError: the store cannot be written.
        """
        check_events(events, self._users.pseudonym, single=single)
        models = [served.model for served in arms.bundles]

        def answer() -> Any:
            outcome = self._users.store(events, self._types, single=single)
            ids = list(dict.fromkeys(event.item_id for event in events))
            rows = np.maximum.reduce([model.rows_of(ids) for model in models])
            if outcome.stored:
                self.last_write = time.time()
            current().record_stage("store")
            if single and outcome.conflicts:
                raise Conflict(
                    ("event_id",), "another event is held under this id: give each one of its own"
                )
            unknown = [i for i, row in zip(ids, rows, strict=True) if row < 0]
            return serialize({"received": len(events), **vars(outcome), "unknown_items": unknown})

        return await self._writer.run(answer)

    async def erase(self, user_id: str) -> bytes:
        """The JSON answer to `DELETE /users/{user_id}` and `POST /users/erase`.

        Raises:
            DataError: the store cannot be written.
        """

        def answer() -> bytes:
            found = self._users.erase(user_id)
            return to_json({"erased": found.num_events, "held": found.held})

        return await self._writer.run(answer)
