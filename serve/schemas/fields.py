"""Types of request fields, each with its limits; and the base of all requests.

Limits that depend on the shop stand in the recipe (`serve`).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from recsys.schema import ALL_EVENT_TYPES, PLACEMENT
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
#: Money, negative where it was given back.
Value = Annotated[StrictFloat, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Placement = Annotated[str, StringConstraints(strict=True, pattern=PLACEMENT)]
RequestId = Annotated[str, StringConstraints(pattern=f"^{SANE_ID}$")]


class _Explained:
    """One message in place of those of each branch of a union."""

    def __init__(self, kind: str, message: str) -> None:
        self._kind, self._message = kind, message

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type=self._kind, custom_error_message=self._message
        )


_Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Told = Annotated[
    StrictBool
    | Annotated[StrictInt, Field(ge=-(2**53), le=2**53)]
    | Annotated[StrictFloat, Field(allow_inf_nan=False)]
    | Annotated[str, StringConstraints(strict=True, max_length=256, pattern=r"^[^\x00]*$")],
    _Explained("context", "a value is text of at most 256 characters, a number, true or false"),
]
#: What was around an event; kept as canonical JSON.
Context = Annotated[
    dict[_Name, _Told], Field(max_length=16, json_schema_extra={"additionalProperties": False})
]


def canonical_json(context: dict[str, Any]) -> str:
    """The one text of a context: names in order, 2.0 as 2."""
    plain = {name: whole_number(value) for name, value in context.items()}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


#: What `event_type` may be, for the documentation.
EVENT_TYPE = f"{', '.join(ALL_EVENT_TYPES)}, or a name that the recipe maps to one of them."


class StrictModel(BaseModel):
    """A model that takes no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_NAMES:
            raise PydanticCustomError("too_many_fields", "far more fields than are known here")
        return value
