"""Ten users: what they had, the list they would get and why, what they took."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from recsys.reporting.blocks import Block, Folded, Section, Table
from recsys.reporting.findings import Findings
from recsys.reporting.sections.changes import shared_places

_NAME, _TITLE = "people", "Ten users and their lists"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
#: Characters of a title within a reason.
_SHORT = 40
#: What a reason's event is called.
_DONE = {
    "impression": "was shown", "view": "viewed", "click": "clicked",
    "add_to_cart": "put into the cart", "purchase": "bought",
}  # fmt: skip


def section(found: Findings) -> Section:
    """The users of `examples.json`; the one with most hits is open."""
    users = found.examples.get("users")
    if not users:
        return Section(_NAME, _TITLE, absent="not written: `recsys evaluate` of this release does")
    shared = shared_places(found)
    told = (
        "Chosen by rule, from short to long histories; users are pseudonyms. Each list is the one "
        "before the user's first basket of the test window. ✓ marks what was in that basket"
    )
    told += ", + what the champion's list had not." if shared else "."
    most = max(users, key=lambda user: (_hits(user), user["num_events"]))
    folded = [
        Folded(_heading(user), _user(user, shared.get(user["user"])), is_open=user is most)
        for user in users
    ]
    return Section(_NAME, _TITLE, [told, *folded])


def _heading(user: dict[str, Any]) -> str:
    return (
        f"User {user['user'][:8]}: {_many(user['num_events'], 'event')} before, "
        f"{_many(len(user['taken']), 'item')} taken, {_hits(user)} in the list"
    )


def _hits(user: dict[str, Any]) -> int:
    return sum(item["taken"] for item in user["list"])


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _user(user: dict[str, Any], shared: set[str] | None) -> list[Block]:
    rows = []
    for place, item in enumerate(user["list"], start=1):
        is_new = shared is not None and item["item_id"] not in shared
        marks = "✓ " * item["taken"] + "+ " * is_new
        rows.append((f"{place}", marks + _title(item), _reason(item)))
    marked = [place for place, item in enumerate(user["list"]) if item["taken"]]
    listed = Table("The list", ("Place", "Item", "Why"), rows, marked=marked)
    took = Table("What was taken then", ("Item",), [(_title(item),) for item in user["taken"]])
    if not user["history"]:
        return [listed, took, "Nothing is known of this user from before."]
    past = [
        (_day(event["at_us"]), _DONE.get(event["event_type"], event["event_type"]), _title(event))
        for event in user["history"]
    ]
    had = Table("The latest events before, newest first", ("Day", "Event", "Item"), past)
    return [listed, took, had]


def _title(item: dict[str, Any]) -> str:
    """Its title; marks that turn the direction of a line would turn what stands beside it."""
    return _TURNING.sub("", item["title"]) or f"item {item['item_id']}"


def _reason(item: dict[str, Any]) -> str:
    """The strongest reason; see `recsys.ranking.explain`."""
    if not item["reasons"]:
        return "popular with others"
    first = item["reasons"][0]
    times = "once" if first["count"] == 1 else f"{first['count']} times"
    title = _title(first)
    short = title if len(title) <= _SHORT else f"{title[: _SHORT - 1].rstrip()}…"
    what = "it" if first["item_id"] == item["item_id"] else short
    done = _DONE.get(first["event_type"], first["event_type"])
    return f"{done} {what} {times}, last on {_day(first['last_us'])}"


def _day(us: int) -> str:
    return f"{_EPOCH + dt.timedelta(microseconds=us):%Y-%m-%d}"
