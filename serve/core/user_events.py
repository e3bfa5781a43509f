"""The events and erasure routes: what users did, and to forget it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from serve.core.request_checks import check_events
from serve.core.serialization import Serialize, to_json
from serve.core.worker_pool import WorkerPool
from serve.models.arms import Arms
from serve.observability.trace import current
from serve.ranking.queries import EventTypes
from serve.schemas.events import Event, Events
from serve.schemas.problems import CONFLICT, Conflict
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

    async def store(self, request: Event | Events, arms: Arms, serialize: Serialize) -> Any:
        """The answer to `POST /events`.

        Args:
            request: one event, or several.
            arms: what is served; an item that no arm knows is named in the answer.
            serialize: makes what is sent.

        Raises:
            Forbidden: the caller may not write for a user.
            Refused: the event is wrong; or one of those that are taken all or none.
            Conflict: a single event whose id another one bears.
            DataError: the store cannot be written.
        """
        each = request.each
        check_events(request, self._users.pseudonym)
        models = [served.model for served in arms.bundles]

        def answer() -> Any:
            outcome = self._users.store(request, self._types)
            taken = zip(each, outcome.results, strict=True)
            ids = list(dict.fromkeys(
                event.item_id for event, result in taken
                if isinstance(event, Event) and result["status"] != "refused"
            ))  # fmt: skip
            rows = np.maximum.reduce([model.rows_of(ids) for model in models])
            if outcome.stored:
                self.last_write = time.time()
            current().record_stage("store")
            if isinstance(request, Event) and outcome.conflicts:
                raise Conflict(("event_id",), CONFLICT)
            unknown = [i for i, row in zip(ids, rows, strict=True) if row < 0]
            fields = {"received": len(each), **vars(outcome), "unknown_items": unknown}
            return serialize(fields | {"results": fields.pop("results")})

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
