"""Types of request fields, each with its limits; and the base of all requests.

Limits that depend on the shop stand in the recipe (`serve`).
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serve.schemas.request_id import SANE_ID

#: Fields of one object. Very many unknown ones are refused together: to refuse each by itself took
#: a second of the event loop.
MAX_NAMES = 100

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ISO_BEGIN = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")


def _iso_text(value: Any) -> Any:
    # A bare number could be seconds or milliseconds; a guess would be wrong by a factor of 1000.
    if not isinstance(value, str) or not _ISO_BEGIN.match(value):
        raise PydanticCustomError(
            "timestamp", "write ISO 8601 with a time zone, e.g. 2026-01-31T12:00:00Z"
        )
    return value


def whole_number(value: Any) -> Any:
    """An integer of a number without a fraction: to JSON's schemas 2.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _after_epoch(value: dt.datetime) -> dt.datetime:
    if value < EPOCH:
        raise PydanticCustomError("timestamp", "lies before 1970")
    return value


def microseconds(moment: dt.datetime) -> int:
    """Microseconds since 1970, UTC."""
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
# Engines differ in which of the last ones `\s` holds; a client's should say what ours does.
_BLANK = r"\x00\s\x1c-\x1f\x85\ufeff"
Title = Annotated[
    str, StringConstraints(max_length=1000, pattern=rf"^[^\x00]*[^{_BLANK}][^\x00]*$")
]
Price = Annotated[StrictFloat, Field(ge=0, le=1e12, allow_inf_nan=False)]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_iso_text), AfterValidator(_after_epoch)]
K = Annotated[StrictInt, Field(ge=1), BeforeValidator(whole_number)]
#: A place in a list, from 1, as a log can hold it.
Position = Annotated[StrictInt, Field(ge=1, le=2**31 - 1), BeforeValidator(whole_number)]
Count = Annotated[StrictInt, Field(ge=0, le=2**31 - 1), BeforeValidator(whole_number)]
RequestId = Annotated[str, StringConstraints(pattern=f"^{SANE_ID}$")]


class StrictModel(BaseModel):
    """A model that takes no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_NAMES:
            raise PydanticCustomError("too_many_fields", "far more fields than are known here")
        return value
