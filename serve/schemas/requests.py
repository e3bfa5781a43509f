"""What the service takes: one model a request, every field described and limited."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from recsys.config import ObjectiveName
from serve.schemas.fields import (
    EVENT_TYPE,
    Count,
    K,
    Placement,
    Price,
    StrictModel,
    Text,
    Timestamp,
    Title,
    whole_number,
)
from serve.schemas.ids import Id

#: Bounds on what one request may hold; those that depend on the shop stand in the recipe (`serve`).
MAX_HISTORY, MAX_EXCLUDED, MAX_NEW_ITEMS, MAX_CHOICES = 2000, 10_000, 256, 1000
#: Seconds that a user token lives at most: it cannot be called back but with the key behind it.
MAX_TOKEN_S = 86_400
#: More ids do not fit into a body of the size allowed; checked before each of them is looked at.
MAX_LISTED = 100_000


class SessionEvent(StrictModel):
    """One event of a visitor's session."""

    item_id: Id = Field(description="Catalogue id.")
    event_type: Id = Field(
        "view",
        description=EVENT_TYPE,
    )
    timestamp: Timestamp | None = Field(
        None,
        description="When it happened, ISO 8601 with a time zone, not before 1970 nor in the "
        "future; for all events or for none.",
    )


class _UserRequest(StrictModel):
    # What `_one_of_both` checks, as JSON schema.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": [given],
                    "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}},
                }
                for given, other in (("user_id", "history"), ("history", "user_id"))
            ]
        }
    )

    explain: StrictBool = Field(
        False,
        description="Say of each item of the answer why it is there; takes longer. Of a named user "
        "that tells what the user did: it takes the right `explain`.",
    )
    shown: Count | None = Field(
        None,
        description="How many of the answered items, from the first, are shown to somebody: these "
        "are logged as impressions. By default `k`, and where that is not given the recipe's "
        "`serve.default_k`.",
    )
    placement: Placement | None = Field(
        None,
        description="Where on your pages the list is shown, e.g. `home/top`: it is logged with the "
        "impressions, the outcome heads read it, and `serve.objectives` may name it.",
    )
    objective: ObjectiveName | None = Field(
        None,
        description="What the list is ordered by: `relevance`, or, of a bundle with outcome heads, "
        "the expected `click`, `purchase`, `revenue` or `dwell`. By default as the recipe says.",
    )
    user_id: Id | None = Field(
        None, description="A user whose events the service keeps. Give this or `history`."
    )
    history: Annotated[list[SessionEvent], Field(max_length=MAX_HISTORY)] | None = Field(
        None,
        description="The events of a session, oldest first; nothing is stored. Without timestamps "
        "they count as successive, ending now.",
    )

    @field_validator("history")
    @classmethod
    def _all_or_none(cls, value: list[SessionEvent] | None) -> list[SessionEvent] | None:
        if value and len({event.timestamp is None for event in value}) > 1:
            raise PydanticCustomError("history", "give a timestamp for every event or for none")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> _UserRequest:
        if (self.user_id is None) == (self.history is None):
            raise PydanticCustomError("asker", "give exactly one of `user_id` and `history`")
        return self


class Filters(StrictModel):
    """What an item must be like to be recommended; all that is given must hold."""

    category: Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICES)] | None = Field(
        None, description="One of these categories."
    )
    brand: Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICES)] | None = Field(
        None, description="One of these brands."
    )
    min_price: Price | None = Field(None, description="At least this price.")
    max_price: Price | None = Field(None, description="At most this price.")

    @model_validator(mode="after")
    def _ordered(self) -> Filters:
        low, high = self.min_price, self.max_price
        if low is not None and high is not None and high < low:
            raise PydanticCustomError("price_range", "`max_price` lies below `min_price`")
        return self


class RecommendRequest(_UserRequest):
    """Ask for the best items of the whole catalogue."""

    k: K | None = Field(
        None,
        description="How many items; at most the recipe's `serve.max_k`, by default its "
        "`serve.default_k`.",
    )
    exclude: Annotated[list[Id], Field(max_length=MAX_EXCLUDED)] = Field(
        default=[], description="Catalogue ids that must not be in the answer."
    )
    filters: Filters | None = Field(None, description="Keep to items of this kind.")
    diversity: Annotated[StrictFloat, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="0 shows the best scores; towards 1 the items of the list differ more. By "
        "default the recipe's `serve.diversity`. Not where an arm explores.",
    )
    max_per_category: K | None = Field(
        None,
        description="Items of one category, at most. By default the recipe's "
        "`serve.max_per_category`. Not where an arm explores.",
    )
    exclude_owned: StrictBool | None = Field(
        None,
        description="Leave out what the user has. By default the recipe's `serve.exclude_owned`.",
    )


class NewItem(StrictModel):
    """An item that the catalogue does not know: it is scored by its text alone."""

    title: Title = Field(description="What it is called.")
    description: Text | None = Field(None, description="Longer text.")
    brand: Text | None = Field(None, description="Brand.")
    category: Text | None = Field(None, description="Category.")
    tags: Text | None = Field(None, description="Further words.")
    price: Price | None = Field(None, description="Price, in the catalogue's currency.")
    item_id: Id | None = Field(None, description="Your name for it; it comes back in the answer.")


class ItemUpdate(StrictModel):
    """What is to be known of an item from now on; what is not given stays as it is.

    An id that neither the catalogue nor an earlier update holds is a new item, and needs a text.
    """

    item_id: Id = Field(description="The id in your log and your catalogue.")
    title: Title | None = Field(None, description="What it is called.")
    description: Text | None = Field(None, description="Longer text.")
    brand: Text | None = Field(None, description="Brand.")
    category: Text | None = Field(None, description="Category.")
    tags: Text | None = Field(None, description="Further words.")
    price: Price | None = Field(None, description="Price, in the catalogue's currency.")
    available: StrictBool | None = Field(
        None, description="False keeps it out of `/recommend`; null: as the bundle has it."
    )

    def given(self) -> dict[str, Any]:
        """The fields that the request names, null for one that is to be taken away."""
        return self.model_dump(include=self.model_fields_set - {"item_id"})


class ItemUpdates(StrictModel):
    """Several items: stored all or none."""

    items: Annotated[list[ItemUpdate], Field(min_length=1, max_length=MAX_NEW_ITEMS)] = Field(
        description="The items, each id once."
    )


ItemsRequest = Annotated[
    Annotated[ItemUpdate, Tag("<one>")] | Annotated[ItemUpdates, Tag("<many>")],
    Discriminator(
        lambda value: "<many>" if isinstance(value, dict) and "items" in value else "<one>"
    ),
]

Candidate = Annotated[
    Annotated[Id, Tag("<id>")] | Annotated[NewItem, Tag("<item>")],
    Discriminator(lambda value: "<item>" if isinstance(value, dict | NewItem) else "<id>"),
]


class RankRequest(_UserRequest):
    """Ask for an order of given items."""

    candidates: Annotated[
        list[Candidate], Field(min_length=1, max_length=MAX_LISTED, fail_fast=True)
    ] = Field(
        description="Catalogue ids and new items; at most the recipe's `serve.max_candidates`, of "
        f"them at most {MAX_NEW_ITEMS} new."
    )
    k: K | None = Field(None, description="How many of the best to return; by default all.")


class KnownRankRequest(RankRequest):
    """One of catalogue ids alone, as most are: read without a choice for every candidate."""

    candidates: Annotated[  # type: ignore[assignment]
        list[Id], Field(min_length=1, max_length=MAX_LISTED, fail_fast=True)
    ]


class EraseRequest(StrictModel):
    """Whom to erase."""

    user_id: Id = Field(description="Raw user id.")


_Lifetime = Annotated[StrictInt, Field(ge=1, le=MAX_TOKEN_S), BeforeValidator(whole_number)]


class UserTokenRequest(StrictModel):
    """For whom a browser is to ask."""

    user_id: Id = Field(description="Raw user id.")
    lives_s: Annotated[StrictInt, Field(ge=1, le=MAX_TOKEN_S), BeforeValidator(whole_number)] = (
        Field(3600, description="Seconds until the token expires.")
    )
