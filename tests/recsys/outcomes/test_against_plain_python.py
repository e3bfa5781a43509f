"""Random logs, and the same rules row by row in plain Python."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shown_lists import ShownLists, at, event, known, shown

from recsys.schema import EXPOSURES, Col

USERS, ITEMS, HOURS, WINDOW_H = ["ann", "bob", "eve"], ["i1", "i2", "i3", "i4"], 72, 6.0
KINDS = ["click", "add_to_cart", "purchase", "return", "view"]
FLAGS = {"click": "clicked", "add_to_cart": "carted", "purchase": "purchased", "return": "returned"}
Row = dict[str, Any]


def random_log(seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Answered lists, live events, events of the log; many at one time, some told twice."""
    rng = np.random.default_rng(seed)

    def hour() -> float:
        return float(rng.integers(HOURS * 2)) / 2

    lists: list[Row] = []
    for number in range(40):
        items = rng.permutation(ITEMS)[: rng.integers(1, 4)]
        user = None if rng.random() < 0.2 else str(rng.choice(USERS))
        lists += shown(f"r{number}", user, hour(), *map(str, items))
    live, log = [], []
    for _ in range(60):
        request = rng.choice(["", "own", "list"], p=[0.5, 0.2, 0.3])
        named = {"": None, "own": f"s{rng.integers(8)}", "list": f"r{rng.integers(40)}"}[request]
        one = event(
            str(rng.choice(USERS)), str(rng.choice(ITEMS)), "impression", hour(), named,
            placement=str(rng.choice(["home", "cart"])),
        )  # fmt: skip
        (live if rng.random() < 0.5 else log).append(one)
    moments = rng.permutation(len(USERS) * len(ITEMS) * len(KINDS) * HOURS * 2)[:300]
    for moment in moments:  # no two events are alike but those that are told twice
        request = rng.choice(["", "own", "list", "unknown"], p=[0.5, 0.1, 0.35, 0.05])
        named = {"": None, "own": f"s{rng.integers(8)}", "list": f"r{rng.integers(40)}",
                 "unknown": "x"}[request]  # fmt: skip
        left, half = divmod(int(moment), HOURS * 2)
        left, kind = left // len(KINDS), KINDS[left % len(KINDS)]
        one = event(
            USERS[left // len(ITEMS)], ITEMS[left % len(ITEMS)], kind, half / 2, named,
            dwell_ms=int(rng.integers(1, 9)) if kind == "view" or rng.random() < 0.3 else None,
            price=float(rng.integers(1, 9)), quantity=float(rng.integers(1, 3)),
        )  # fmt: skip
        (live if rng.random() < 0.5 else log).append(one)
        if rng.random() < 0.15:
            live.append(one)
            log.append({**one, Col.request: None})
    return lists, live, log


def plain(lists: list[Row], events: list[Row]) -> list[Row]:
    """The exposures."""
    shows: dict[str, Row] = {}
    posted = [row for row in events if row[Col.event_type] == "impression"]
    named = [row for row in posted if row[Col.request]]
    every = [*lists, *sorted(({**row, Col.user: known(row[Col.user])} for row in named),
                             key=lambda row: (row[Col.timestamp], row[Col.user]))]  # fmt: skip
    for row in every:
        exposure = f"{known(row[Col.request])}:{row[Col.item]}"
        show = shows.setdefault(exposure, {})
        for name in EXPOSURES.names:
            if show.get(name) is None:
                show[name] = row.get(name)
        show |= {Col.exposure: exposure, Col.request: known(row[Col.request])}
    moments = {(row[Col.user], row[Col.item], row[Col.timestamp]) for row in shows.values()}
    bare = [row for row in posted if not row[Col.request]]
    for row in sorted(bare, key=lambda row: str(row[Col.placement])):
        key = (known(row[Col.user]), row[Col.item], row[Col.timestamp])
        if key in moments:
            continue
        us = (row[Col.timestamp] - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(
            microseconds=1
        )
        exposure = f"{key[0]}:{key[1]}:{us}"
        shows.setdefault(exposure, {
            **{name: row.get(name) for name in EXPOSURES.names}, Col.user: key[0],
            Col.exposure: exposure,
        })  # fmt: skip
    for show in shows.values():
        show |= {"happened": []}
    attribute(shows, [row for row in events if row[Col.event_type] != "impression"])
    return counted(list(shows.values()))


def attribute(shows: dict[str, Row], events: list[Row]) -> None:
    """Give each outcome to its exposure."""
    same = defaultdict(list)
    for row in events:
        if row[Col.event_type] in FLAGS or row[Col.dwell_ms] is not None:
            key = (row[Col.user], row[Col.item], row[Col.event_type], row[Col.timestamp])
            same[key].append(row)
    went: dict[tuple[Any, ...], str | None] = {}

    def joined(row: Row) -> str | None:
        exposure = f"{known(row[Col.request])}:{row[Col.item]}"
        return exposure if row[Col.request] and exposure in shows else None

    def told(key: tuple[Any, ...], name: str) -> Any:
        rows = sorted(
            same[key], key=lambda row: (joined(row) or "~", known(row[Col.request]) or "~")
        )
        return next((row[name] for row in rows if row[name] is not None), None)

    for late_ones in (False, True):  # returns after the purchases
        for key, rows in sorted(same.items(), key=lambda each: each[0][3]):
            user, item, kind, moment = key
            bare = not any(row[Col.request] for row in rows)
            if (kind == "return" and bare) != late_ones:
                continue
            to = min(filter(None, map(joined, rows)), default=None)
            if bare and kind != "return":
                near = [
                    show for show in shows.values()
                    if (show[Col.user], show[Col.item]) == (known(user), item)
                    and show[Col.timestamp] <= moment
                ]  # fmt: skip
                last = max(near, key=lambda show: (show[Col.timestamp], show[Col.exposure]),
                           default=None)  # fmt: skip
                if last and moment - last[Col.timestamp] <= dt.timedelta(hours=WINDOW_H):
                    to = last[Col.exposure]
            if bare and kind == "return":
                bought = [
                    (other[3], went[other] or "", other) for other in went
                    if other[:3] == (user, item, "purchase") and other[3] <= moment
                ]  # fmt: skip
                to = went[max(bought)[2]] if bought else None
                to = to if to and shows[to][Col.user] == known(user) else None
            went[key] = to
            if to:
                when = max(moment, shows[to][Col.timestamp])
                price, quantity = told(key, Col.price), told(key, Col.quantity)
                shows[to]["happened"].append(
                    (kind, when, told(key, Col.dwell_ms), price * quantity)
                )


def counted(shows: list[Row]) -> list[Row]:
    """Fill in outcomes and counts."""
    for show in shows:
        happened = show.pop("happened")
        for kind, flag in FLAGS.items():
            times = [when for what, when, _, _ in happened if what == kind]
            show |= {flag: bool(times), f"{flag}_ts": min(times, default=None)}
        dwells = [dwell for _, _, dwell, _ in happened if dwell is not None]
        values = [value for what, _, _, value in happened if what == "purchase"]
        show |= {Col.dwell_ms: sum(dwells) if dwells else None, Col.long_view: None}
        show[Col.value] = sum(values) if values else None
    moments = {"shows": Col.timestamp, "clicks": Col.clicked_ts, "purchases": Col.purchased_ts}
    for show in shows:
        now, user, item = show[Col.timestamp], show[Col.user], show[Col.item]
        for what, name in moments.items():
            times = [(each, each[name]) for each in shows if each[name] is not None]
            show[f"item_{what}"] = sum(
                each[Col.item] == item and when.date() < now.date() for each, when in times
            )
            theirs = [each for each, when in times if user and each[Col.user] == user
                      and when < now]  # fmt: skip
            show[f"user_{what}"] = len(theirs)
            show[f"pair_{what}"] = sum(each[Col.item] == item for each in theirs)
    return sorted(shows, key=lambda show: (show[Col.timestamp], show[Col.exposure]))


@pytest.mark.parametrize("seed", range(6))
def test_the_join_is_that_of_plain_python(seed: int, tmp_path: Path) -> None:
    lists, live, log = random_log(seed)
    shop = ShownLists(tmp_path, attribution_window_h=WINDOW_H)
    shop.lists(lists[::2])
    shop.lists(lists[1::2])
    shop.live(live)
    shop.log("log", log)
    found = shop.join()
    expected = plain(lists, live + log)
    assert found.height == len(expected)
    for ours, theirs in zip(found.rows(named=True), expected, strict=True):
        assert ours == {name: theirs[name] for name in EXPOSURES.names}
    assert at(0) <= found[Col.timestamp].min()  # type: ignore[operator]
    assert found[Col.clicked].sum() > 10 and found[Col.returned].sum() > 0
