"""What the service answers: one model an answer, every field described."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Basis = Literal["personal", "session", "popularity"]
_REQUEST_ID = "The request's `X-Request-Id`, or one made for it; in the answer's header as well."


class Reason(BaseModel):
    """A past item without which the recommended one would have scored lower."""

    item_id: str = Field(description="Catalogue id of the past item.")
    title: str = Field(description="What it is called.")
    event_type: str = Field(description="The strongest thing that the user did with it.")
    count: int = Field(description="How many times.")
    last: str = Field(description="When last, ISO 8601, UTC.")
    gain: float = Field(description="What the score would lose without it.")


class Parts(BaseModel):
    """What the score is the sum of."""

    taste: float = Field(description="Likeness of the user's interest and the item.")
    price: float = Field(description="Its price, against what the user usually pays.")
    popularity: float = Field(description="What is independent of the user.")
    history: float = Field(description="What the user did with it, and what is related to it.")


class Expected(BaseModel):
    """What is expected to come of showing an item; what the heads' log does not tell is absent."""

    click: float = Field(description="Probability of a click.")
    cart: float | None = Field(None, description="Probability that it is put into the cart.")
    purchase: float | None = Field(None, description="Probability of a purchase.")
    dwell_ms: float | None = Field(None, description="Dwell time of a click, milliseconds.")
    value: float | None = Field(None, description="What a purchase comes to.")


class Explanation(BaseModel):
    """Why an item is in the answer."""

    sentence: str = Field(description="In one sentence.")
    reasons: list[Reason] = Field(description="The past items that carry it, strongest first.")
    parts: Parts
    expected: Expected | None = Field(
        default=None, description="Only of a bundle with outcome heads."
    )


class ScoredItem(BaseModel):
    """An item and its score."""

    item_id: str | None = Field(description="Catalogue id, or the id given with a new item.")
    title: str = Field(description="What it is called.")
    score: float = Field(
        description="Higher is better; comparable within one answer only. Where lists are ordered "
        "by another objective than `relevance`, what that expects of the item."
    )
    explanation: Explanation | None = Field(
        default=None, description="Why it is here; only where the request says `explain`."
    )


class RankedCandidate(ScoredItem):
    """A candidate and its score."""

    candidate: int = Field(description="Its position in the request's `candidates`, from 0.")


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(description="The bundle that answered.")
    arm: str = Field(description="The arm of the recipe that answered; `default` if it has none.")
    fallback: bool = Field(description="True: the user's own arm failed, and this one stood in.")
    basis: Basis = Field(
        description="personal: the user's stored events; session: the given history; popularity: "
        "nothing is known of the user."
    )
    degraded: bool = Field(
        description="True: the store of users does not answer, and so nothing is known of the user."
    )
    unknown_items: list[str] = Field(
        description="Ids of the request that the catalogue does not hold; they were ignored."
    )
    request_id: str = Field(description=_REQUEST_ID)


class RecommendAnswer(_Answer):
    """The best items, in the order to show; where the arm explores, that is drawn."""

    items: list[ScoredItem]


class RankAnswer(_Answer):
    """The candidates, best first."""

    items: list[RankedCandidate]


class Conflict(BaseModel):
    """An event that was not stored: another one is held under its id."""

    event: int = Field(description="Its position in the request's `events`, from 0.")
    event_id: str = Field(description="The id. Give each event one of its own.")
    status: Literal[409] = Field(409, description="What the event alone is answered with.")


class Repeated(BaseModel):
    """An event that was not stored: it is held already."""

    event: int = Field(description="Its position in the request's `events`, from 0.")
    event_id: str | None = Field(description="The id that it was sent under, if it was.")


class EventResult(BaseModel):
    """What became of one event."""

    status: Literal["stored", "duplicate", "ignored", "refused"] = Field(
        description="stored: it is new; duplicate: it is held already; ignored: the recipe leaves "
        "its type out; refused: it is wrong, or older than its user's erasure."
    )
    field: str | None = Field(None, description="Of a refused one: where, e.g. `timestamp`.")
    message: str | None = Field(None, description="Of a refused one: what, and what to do.")


class EventsAnswer(BaseModel):
    """What became of the events; they are on disk when this answer comes."""

    received: int = Field(description="Events in the request.")
    stored: int = Field(description="Events that were new.")
    ignored: int = Field(description="Events of a type that the recipe leaves out.")
    refused: int = Field(description="Events that are wrong, see `results`.")
    repeated: list[Repeated] = Field(
        description="Events that are held already, sent before or read from the shop's log: the "
        "same item, type and time."
    )
    conflicts: list[Conflict] = Field(
        description="Events whose id another event bears: another item, type or time."
    )
    older_than_erasure: list[int] = Field(
        description="Positions of events that happened before their user was erased."
    )
    unknown_items: list[str] = Field(
        description="Ids that the catalogue does not hold; their events are stored all the same "
        "and count once a bundle with these items is served."
    )
    results: list[EventResult] = Field(description="Of each event, in the request's order.")
    request_id: str = Field(description=_REQUEST_ID)


class ItemsAnswer(BaseModel):
    """What became of the items; they are stored, with their vectors, when this answer comes."""

    received: int = Field(description="Items in the request.")
    stored: int = Field(description="Items that differ from what was known of them.")
    known_items: list[str] = Field(
        description="Ids that the bundle's own catalogue holds: their fields are told and filtered "
        "by from now on; how they score the next bundle learns."
    )
    request_id: str = Field(description=_REQUEST_ID)


class ItemAnswer(BaseModel):
    """What is known of an item."""

    item_id: str = Field(description="Its id.")
    title: str | None = Field(description="What it is called.")
    description: str | None = Field(description="Longer text.")
    brand: str | None = Field(description="Brand.")
    category: str | None = Field(description="Category.")
    tags: str | None = Field(description="Further words.")
    price: float | None = Field(description="Price, in the catalogue's currency.")
    available: bool = Field(description="False keeps it out of `/recommend`.")
    in_bundle: bool = Field(description="Whether the bundle's own catalogue holds it.")
    updated: list[str] = Field(
        description="The fields that `POST /items` has set; `DELETE` gives back the bundle's."
    )
    request_id: str = Field(description=_REQUEST_ID)


class RemovedAnswer(BaseModel):
    """What became of what `POST /items` had said of an item."""

    removed: bool = Field(description="False: it had said nothing.")
    request_id: str = Field(description=_REQUEST_ID)


class ErasedAnswer(BaseModel):
    """What became of a user; the tombstone is on disk when this answer comes."""

    erased: int = Field(description="Events that the history held.")
    held: bool = Field(
        description="Whether anything of the user was held: if not, is it the right id? A history "
        "that an earlier request erased is not held."
    )
    request_id: str = Field(description=_REQUEST_ID)


class UserTokenAnswer(BaseModel):
    """A token for a browser."""

    token: str = Field(
        description="Sent as `Authorization: Bearer`, it opens `/recommend`, `/rank` and `/events` "
        "for this user alone, as far as the key that asked for it opens them."
    )
    expires: int = Field(description="Unix time, seconds.")
    request_id: str = Field(description=_REQUEST_ID)


class Alive(BaseModel):
    """The process lives."""

    status: Literal["ok"] = Field(description="Always `ok`.")


class Ready(BaseModel):
    """Requests can be answered: a model is loaded and the store can be read."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ok"] = Field(description="Always `ok`; a service that is not answers 503.")
    model_version: str = Field(description="The bundle that answers.")


class ArmAnswer(BaseModel):
    """One arm."""

    name: str = Field(description="Its name.")
    version: str = Field(description="Its bundle.")
    weight: float = Field(description="Its part of the sum of all that answer.")
    shadow: bool = Field(description="True: it never answers, and is compared with those that do.")
    exploration: str = Field(description="none, epsilon or plackett_luce.")
    epsilon: float | None = Field(description="Of `epsilon`.")
    temperature: float | None = Field(description="Of `plackett_luce`.")
    objective: str | dict[str, float] | None = Field(
        description="What its lists are ordered by; null: as the recipe says for all arms."
    )


class ModelAnswer(BaseModel):
    """What is served; of several arms, `version` to `log` speak of the first that answers."""

    version: str = Field(description="The bundle that answers.")
    num_items: int = Field(description="Items in its catalogue.")
    num_added: int = Field(description="Items that `POST /items` has added to it, as seen here.")
    info: dict[str, Any] = Field(description="What the bundle says of itself.")
    log: str = Field(
        description="Whether the users of the log that the bundle was made from are known here."
    )
    failed_update: str | None = Field(
        description="Why the bundle that was sent last is not the one that answers; null if it is."
    )
    arms: list[ArmAnswer] = Field(description="All arms, in the recipe's order.")


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where, e.g. `candidates[3].price`.")
    loc: list[str | int] = Field(description="The same as a path.")
    msg: str = Field(description="What, and what to do.")
    type: str = Field(description="A short name of the kind of mistake.")


class Problems(BaseModel):
    """Why a request was refused."""

    detail: list[Problem]
