"""What the sections of a recipe are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from recsys.schema import EVENT_TYPES, RETRACTIONS

EventName = Literal["impression", "view", "click", "add_to_cart", "purchase"]
Retraction = Literal["remove_from_cart", "return", "dislike", "dislike_category"]
ItemField = Literal["brand", "category", "price"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]

#: Begin of the names by which pydantic tells apart what a field may be: they are no keys.
ALTERNATIVE = "~"


class Section(BaseModel):
    """Base of every section: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


assert set(EVENT_TYPES) == set(EventName.__args__)  # type: ignore[attr-defined]
assert set(RETRACTIONS) == set(Retraction.__args__)  # type: ignore[attr-defined]
