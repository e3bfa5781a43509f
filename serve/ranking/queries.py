"""Queries of the model, made from stored events or from a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.arrays import Int32s
from recsys.data.histories import Histories
from recsys.data.standing import Hidden, standing
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE
from recsys.state import StateEvent
from serve.schemas.fields import microseconds
from serve.schemas.problems import Refused
from serve.schemas.requests import SessionEvent
from serve.schemas.responses import Basis

#: Between two events of a session without timestamps, microseconds.
STEP_US = 1_000_000


@dataclass(frozen=True)
class Query:
    """One query of the model.

    Attributes:
        history: of the user, without events of unknown items.
        basis: what it rests on, see `serve.schemas.responses`.
        unknown_items: ids of the request's history that the catalogue does not hold.
        degraded: the user's events could not be read: the answer is not personalised.
        hidden: what the user does not want to see.
    """

    history: Histories
    basis: Basis
    unknown_items: list[str]
    degraded: bool = False
    hidden: Hidden = field(default_factory=Hidden)


class EventTypes:
    """Event names of the shop -> codes.

    Args:
        names: the recipe's `data.event_types`; a canonical name that it does not mention stands for
            itself.
    """

    def __init__(self, names: Mapping[str, str | None]) -> None:
        self._codes: dict[str, int | None] = dict(EVENT_CODE)
        self._codes |= {
            name: None if target is None else EVENT_CODE[target] for name, target in names.items()
        }

    def code(self, name: str, loc: Sequence[str | int]) -> int | None:
        """The event's code; None if the recipe leaves such events out.

        Raises:
            Refused: the name is unknown.
        """
        try:
            return self._codes[name]
        except KeyError:
            known = ", ".join(name for name, code in self._codes.items() if code is not None)
            raise Refused(
                loc, f"unknown event type; use one of: {known}", kind="event_type"
            ) from None


def from_session(
    model: Recommender,
    session: Sequence[SessionEvent],
    types: EventTypes,
    *,
    clock_us: int,
    latest_us: int,
) -> Query:
    """The query of a session.

    Args:
        model: knows the catalogue.
        session: timestamps for all or for none.
        types: event names.
        clock_us: the server's time.
        latest_us: a later timestamp is refused.

    Raises:
        Refused: an event type is unknown, or a timestamp lies in the future.
    """
    codes = [types.code(e.event_type, ("history", i, "event_type")) for i, e in enumerate(session)]
    times = []
    for place, event in enumerate(session):
        if event.timestamp is None:
            times.append(clock_us - (len(session) - place) * STEP_US)
            continue
        times.append(microseconds(event.timestamp))
        if times[-1] > latest_us:
            raise in_the_future(("history", place, "timestamp"))
    rows = model.rows_of([event.item_id for event in session])
    unknown = [event.item_id for event, row in zip(session, rows, strict=True) if row < 0]
    kept = [
        (times[place], place, code)
        for place, code in enumerate(codes)
        if code is not None and rows[place] >= 0
    ]
    kept.sort()
    query = _query(
        rows[[place for _, place, _ in kept]],
        [code for _, _, code in kept],
        [time for time, _, _ in kept],
        "session",
        clock_us,
    )
    return replace(query, unknown_items=list(dict.fromkeys(unknown)))


def from_user(model: Recommender, events: Sequence[StateEvent], *, clock_us: int) -> Query:
    """The query of a user's stored events, oldest first, without those of unknown items."""
    rows = model.rows_of([event.item_id for event in events])
    kept = np.flatnonzero(rows >= 0).tolist()
    return _query(
        rows[kept],
        [events[i].event_code for i in kept],
        [events[i].timestamp for i in kept],
        "personal",
        clock_us,
    )


def in_the_future(loc: Sequence[str | int]) -> Refused:
    """The refusal of a timestamp that no clock skew explains."""
    return Refused(
        loc, "lies in the future: correct the sender's clock or time zone", kind="future"
    )


def _query(
    rows: Int32s, codes: Sequence[int], times: Sequence[int], basis: Basis, clock_us: int
) -> Query:
    """The query of events of known items, oldest first; `basis` holds if one of them stands."""
    places, hidden = standing(rows, codes, times)
    if len(places) < len(codes):
        rows = rows[places]
        codes, times = [codes[i] for i in places], [times[i] for i in places]
    # A sender's clock may run ahead of ours; every event still lies strictly before the question.
    now = max(clock_us, times[-1] + 1) if times else clock_us
    history = Histories.of(rows, codes, times, now)
    return Query(history, basis if len(codes) else "popularity", [], hidden=hidden)
