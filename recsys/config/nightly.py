"""`nightly`: a night's cuts and full runs, the service that takes the champion, who is told."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from recsys.config.base import Positive, Section

#: What a URL is written in.
_PLAIN = re.compile(r"[!-~]+")


def _http(value: str | None) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _PLAIN.fullmatch(value):
        raise ValueError("is no URL: write https://host/path, other characters than ASCII's as %XX")
    if "@" in parts.netloc:
        raise ValueError("names a user or a password: leave them out")
    _ = parts.port  # raises ValueError where it is none
    return value


class Webhook(Section):
    """Who is told how a night ended; see [Nights](nightly.md#the-webhook)."""

    url: str | None = None
    """Gets a signed POST when a night has finished, was refused by the gate, or failed. Null:
    nobody is told. The secret stands in `RAYCOMMEND_WEBHOOK_SECRET`."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Of one attempt."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 4
    """One, two, four seconds and so on apart."""

    _url = field_validator("url")(_http)


class Nightly(Section):
    """`recsys nightly`; see [Nights](nightly.md)."""

    test_days: Positive | None = 7
    """A night moves `data.cuts`: its test window begins at midnight (UTC), so many days before its
    own day, and lasts until now; the windows before keep the lengths that `data.cuts` gives them.
    Null: the cuts stay, and what comes in is never learned from."""
    full_every_days: Positive = 7
    """A night trains from nothing where no night has for so many days; else from the champion's
    weights."""
    service_address: str | None = None
    """Ray's address of the service that takes the champion. Null: the service of this run on this
    machine, if one runs."""
    service_url: str | None = None
    """Where clients ask the service: the night waits until `GET /model` there tells the champion.
    Where API keys are asked for, one with the right `monitor` stands in `RAYCOMMEND_SERVICE_KEY`.
    """
    service_wait_s: Annotated[float, Field(gt=0)] = 300.0
    """So long at most."""
    webhook: Webhook = Webhook()

    _service_url = field_validator("service_url")(_http)
