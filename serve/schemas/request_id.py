"""Ids of requests, as senders may choose them."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What is taken from a sender as an id: nothing that a log or a header could stumble over.
SANE_ID = r"[A-Za-z0-9._-]{1,64}"
_SANE_ID = re.compile(SANE_ID)


def sane_id(sent: Sequence[str]) -> str | None:
    """The id of a request that came with these; None if there is not one, or it is not sane."""
    return sent[0] if len(sent) == 1 and _SANE_ID.fullmatch(sent[0]) else None
