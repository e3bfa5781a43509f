"""What is known of the requesting user, read once, and made into a query of any arm's model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from recsys.errors import DataError
from recsys.recommender import Recommender
from recsys.state import StateEvent
from serve.core.circuit_breaker import CircuitBreaker
from serve.core.worker_pool import WorkerPool
from serve.observability.trace import current
from serve.ranking.queries import EventTypes, Query, from_session, from_user
from serve.schemas.requests import RankRequest, RecommendRequest, SessionEvent
from serve.stores.users import Users

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class UserSource:
    """The stored events of a user.

    Attributes:
        events: oldest first; None: the store cannot be read.
        now_us: the server's time, microseconds since 1970, UTC.
    """

    events: Sequence[StateEvent] | None
    now_us: int

    def query(self, model: Recommender) -> Query:
        """The query for a model; without events that is the non-personalised fallback."""
        query = from_user(model, self.events or [], clock_us=self.now_us)
        return replace(query, degraded=True) if self.events is None else query


@dataclass(frozen=True)
class SessionSource:
    """The events that came with the request.

    Attributes:
        session: see `from_session`.
        types: event names.
        now_us: the server's time, microseconds since 1970, UTC.
        latest_us: a later timestamp is refused.
    """

    session: Sequence[SessionEvent]
    types: EventTypes
    now_us: int
    latest_us: int

    def query(self, model: Recommender) -> Query:
        """The query for a model.

        Raises:
            Refused: see `from_session`.
        """
        return from_session(
            model, self.session, self.types, clock_us=self.now_us, latest_us=self.latest_us
        )


QuerySource = UserSource | SessionSource


class QuerySources:
    """Reads what is known of the user of a request.

    Args:
        users: the store of user histories.
        types: event names.
        max_skew_us: how far a timestamp may lie in the future, microseconds.
        breaker: of the store.
        workers: threads that wait for the store.
        clock_us: the server's time, microseconds since 1970, UTC.
    """

    def __init__(
        self,
        users: Users,
        types: EventTypes,
        max_skew_us: int,
        breaker: CircuitBreaker,
        workers: WorkerPool,
        clock_us: Callable[[], int],
    ) -> None:
        self._users, self._types, self._max_skew_us = users, types, max_skew_us
        self._breaker, self._workers, self._clock_us = breaker, workers, clock_us

    async def read(self, request: RecommendRequest | RankRequest) -> QuerySource:
        """Read the user's events, or take the session of the request."""
        now, user_id = self._clock_us(), request.user_id
        if user_id is not None:
            events = await self._workers.run(lambda: self._history(user_id))
            current().record_stage("history")
            return UserSource(events, now)
        assert request.history is not None  # the request's own check
        return SessionSource(request.history, self._types, now, now + self._max_skew_us)

    def _history(self, user_id: str) -> list[StateEvent] | None:
        """A user's events; None if the store cannot be read: a worse answer beats none.

        While the circuit breaker is open the store is not asked, or every request would wait.
        """
        if self._breaker.is_open:
            return None
        try:
            return self._users.history(user_id)
        except DataError as error:
            self._breaker.record_failure()
            logger.error(
                "for %g s answers are the non-personalised fallback: %s",
                self._breaker.cooldown_s,
                error,
            )
            return None
