"""What `POST /events` takes: one event, or several that are judged one by one."""

from __future__ import annotations

from typing import Annotated, Any, Self, cast

from pydantic import (
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictBool,
    StrictFloat,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from recsys.state.seeding import SEED_PREFIX
from serve.schemas.fields import (
    EVENT_TYPE,
    Context,
    Count,
    Placement,
    Position,
    Price,
    RequestId,
    StrictModel,
    Timestamp,
    Value,
)
from serve.schemas.ids import EventId, Id
from serve.schemas.problems import Refused

#: Events of one request.
MAX_EVENTS = 1000
_SENT_AT = (
    "The sender's clock as it sends, ISO 8601 with a time zone. Where it is more than a minute off "
    "the service's, timestamps are corrected by the difference."
)


class Event(StrictModel):
    """One event of a user."""

    event_id: EventId | None = Field(
        None,
        description="Your name for the event: sent again under it, it counts once. Without it "
        "every sending is a new event. It must not begin with `seed:`.",
    )
    user_id: Id = Field(description="Raw user id; stored as a keyed pseudonym.")
    item_id: Id = Field(description="Catalogue id.")
    event_type: Id = Field(description=EVENT_TYPE)
    timestamp: Timestamp | None = Field(
        None,
        description="When it happened, ISO 8601 with a time zone, not before 1970 nor in the "
        "future; by default now.",
    )
    session_id: Id | None = Field(
        None, description="Of the visit; stored as a keyed pseudonym. Events of one session and "
        "time are one basket.",
    )  # fmt: skip
    request_id: RequestId | None = Field(
        None, description="The `request_id` of the list that the item was shown in."
    )
    position: Position | None = Field(None, description="Its place in that list, from 1.")
    dwell_ms: Count | None = Field(None, description="How long it was looked at, milliseconds.")
    price: Price | None = Field(None, description="What a unit cost then.")
    quantity: Annotated[StrictFloat, Field(ge=-1e9, le=1e9, allow_inf_nan=False)] | None = Field(
        None, description="How many; negative: taken back."
    )
    value: Value | None = Field(
        None, description="The money that the event brought, in your currency."
    )
    placement: Placement | None = Field(
        None, description="Where on your pages the item was shown, a short name such as `home/top`."
    )
    context: Context | None = Field(
        None,
        description="What else was so, at most 16 names with a text, a number, true or false. It "
        "is stored as it is: put nothing personal there.",
    )
    sent_at: Timestamp | None = Field(None, description=_SENT_AT)

    @field_validator("event_id")
    @classmethod
    def _not_reserved(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(SEED_PREFIX):
            raise PydanticCustomError(
                "event_id", "ids that begin with {prefix} are reserved", {"prefix": SEED_PREFIX}
            )
        return value

    @property
    def each(self) -> list[Event | Refused]:
        """The event alone; as that of `Events`."""
        return [self]


class Events(StrictModel):
    """Several events, of one or more users, each judged by itself; `atomic` takes all or none."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)] = Field(
        description="The events, in any order. One that is wrong is refused by itself: the answer "
        "is 200 and `results` says why; with `atomic` it is 422."
    )
    atomic: StrictBool = Field(False, description="Where one event is wrong, store none.")
    sent_at: Timestamp | None = Field(
        None, description=f"{_SENT_AT} An event's own `sent_at` goes before it."
    )
    _refused: dict[int, Refused] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _one_by_one(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Where nothing but events is wrong, and each counts by itself, leave those out."""
        given: Any = value.get("events") if isinstance(value, dict) else None
        too_many = isinstance(given, list) and len(given) > MAX_EVENTS
        if too_many:  # not all of them are looked at
            value = {**value, "events": given[: MAX_EVENTS + 1]}
        try:
            return handler(value)
        except ValidationError as error:
            if given is None or too_many or value.get("atomic"):
                raise
            refused: dict[int, Refused] = {}
            for each in error.errors(include_url=False, include_input=False):
                if each["loc"][:1] != ("events",) or len(each["loc"]) == 1:
                    raise
                place, *loc = each["loc"][1:]
                assert isinstance(place, int)
                is_none = each["type"] in ("model_type", "model_attributes_type")
                msg = "an event is an object with fields" if is_none else each["msg"]
                refused.setdefault(place, Refused(loc, msg, kind=each["type"]))
            good = [each for at, each in enumerate(given) if at not in refused]
            nothing = cast("Self", cls.model_construct(events=[]))
            left = handler({**value, "events": good}) if good else nothing
            left._refused = refused
            return left

    @property
    def each(self) -> list[Event | Refused]:
        """The events of the request in its order, or why one was refused."""
        good = iter(self.events)
        number = len(self.events) + len(self._refused)
        return [self._refused.get(place) or next(good) for place in range(number)]


EventsRequest = Annotated[
    Annotated[Event, Tag("<one>")] | Annotated[Events, Tag("<many>")],
    Discriminator(
        lambda value: "<many>" if isinstance(value, dict) and "events" in value else "<one>"
    ),
]
