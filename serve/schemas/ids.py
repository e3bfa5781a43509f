"""Ids of users, items and events: one rule, wherever a request names one.

An id is text of 1 to 256 characters, none of them a control character, or an integer, which counts
as its decimal digits: so it is in the log too (`recsys.data.adapters`). Other numbers are none.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema

from recsys.schema import CONTROL_CHARS, MAX_ID_CHARS
from serve.schemas.problems import Refused

_NO_CONTROL_CHARS = f"^{CONTROL_CHARS.replace('[', '[^')}+$"
_MAX_EVENT_ID_CHARS = 128


def text_schema(most: int = MAX_ID_CHARS) -> dict[str, Any]:
    """The JSON schema of an id as text."""
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": _NO_CONTROL_CHARS}


class _IdRule:
    """Pydantic's schema of an id; the checks run in its own code, for requests hold thousands."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __get_pydantic_core_schema__(self, *_: Any) -> core_schema.CoreSchema:
        text = core_schema.str_schema(
            strict=True, min_length=1, max_length=self._most, pattern=_NO_CONTROL_CHARS
        )
        whole = core_schema.no_info_plain_validator_function(_whole)
        digits = core_schema.no_info_plain_validator_function(str)
        number = core_schema.chain_schema([whole, digits, text])
        return core_schema.custom_error_schema(
            core_schema.union_schema([text, number], mode="left_to_right"),
            custom_error_type="id",
            custom_error_message=f"an id is text of 1 to {self._most} characters without control "
            "characters, or an integer",
        )

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"anyOf": [text_schema(self._most), {"type": "integer"}]}


def _whole(value: Any) -> int:
    # JSON knows numbers alone: to its schemas 2.0 is an integer. From 2**53 on one float
    # stands for several.
    is_exact = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    if is_exact or (isinstance(value, int) and not isinstance(value, bool)):
        return int(value)
    raise ValueError("no whole number")


Id = Annotated[str, _IdRule(MAX_ID_CHARS)]
EventId = Annotated[str, _IdRule(_MAX_EVENT_ID_CHARS)]

_ID: TypeAdapter[str] = TypeAdapter(Id)


def id_in_path(request: Request) -> str:
    """The id that is the last part of a path, as it was sent: whole, or refused.

    Not what the router makes of the decoded path: it leaves a line break at the end out, and cannot
    tell a slash in the id from one after it.

    Raises:
        Refused: it is no id, or a slash is not written as %2F.
    """
    path = request.scope["path"]
    sent = request.scope.get("raw_path", path.encode()).partition(b"?")[0]
    _, _, encoded = sent.removeprefix(b"/").partition(b"/")
    name = next(iter(request.path_params), "path")
    if b"/" in encoded:
        raise Refused(
            (name,),
            "holds a slash: write it as %2F, or send the id in a body where the route has one",
            kind="id",
        )
    try:
        return _ID.validate_python(unquote_to_bytes(encoded).decode())
    except (UnicodeDecodeError, ValidationError):
        raise Refused(
            (name,),
            f"an id is text of 1 to {MAX_ID_CHARS} characters without control characters",
            kind="id",
        ) from None
