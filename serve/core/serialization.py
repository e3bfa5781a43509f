"""How the fields of an answer become what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic_core

from serve.observability.trace import current_id

#: Fields of an answer -> what is sent; called in a thread that works for the request.
Serialize = Callable[[dict[str, Any]], Any]


def to_json(fields: dict[str, Any]) -> bytes:
    """JSON of an answer, with the id of its request; NaN and infinities become null."""
    whole = {**fields, "request_id": current_id()}
    return pydantic_core.to_json(whole, inf_nan_mode="null")
